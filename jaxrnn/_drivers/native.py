"""The time loop in C++: cells whose equation has a kernel in `jaxrnn/_kernels/cpu`, in float32, on a CPU."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from .._core.affine_cell import AffineCell, run_affine
from .._core.autodiff import reverse_only
from .._core.broadcasting import broadcasting
from .._core.cell import Cell, GatedCell, GatedParams
from .._core.fields import Checked, convert, instance
from .._core.masks import StepMasks
from .._core.recurrence import Dense, check_features
from .._core.sharding import on_each_device, vary, varying
from .._core.types import Output, Params, State
from .._kernels.cpu import library
from .._kernels.cpu.affine import Kernel
from .._kernels.cpu.calls import Backward, Cotangents, Forward, ForwardOutputs, Gradients, Operands, Weights
from .bptt import BPTT
from .live import cut, live


@dataclasses.dataclass(frozen=True)
class Native(metaclass=Checked):
    """The whole time loop in one C++ kernel, forward and backward, called through `jax.ffi`.

    For `Elman` (tanh or relu), `LSTM` and `GRU` (sigmoid and tanh) with dense recurrent weights, and any `AffineCell`;
    params and state in float32, on a CPU.
    The matmuls of a step, for inputs and state at once, and its gate are one pass over registers. A gradient keeps
    what the gates gave (in all an LSTM 6 arrays of (T, B, H), a GRU 5, an Elman net 1). Work is split over the batch,
    on XLA's own threads; results do not depend, to the last bit, on how many there are.

    Of an affine cell it is the recurrence alone that the kernel crosses; a and b of all steps are made in JAX before.

    Reverse mode only: for `jax.jvp` and forward mode use `Scan()`. A second order, reverse over reverse, of a
    gated cell is taken through `BPTT()`.

    Args:
        exported: what computes in its place in a program that `jax.export` makes, since whoever loads that may not have
            this library; None leaves the call in the program, which `jax.export` takes with
            `disabled_checks=[jax.export.DisabledSafetyCheck.custom_call(name)]` for every name that it refuses.

    Raises:
        ValueError: for another cell, recurrence or dtype.
        RuntimeError: where the library was not built; `jaxrnn.available_drivers()` says why.
    """

    exported: BPTT | None = dataclasses.field(default=BPTT(), repr=False)

    def __check_init__(self) -> None:
        """Check the field."""
        convert(self, exported=instance(BPTT | None, "BPTT(), or None"))

    def __call__(
        self, cell: Cell, params: Params, state: State, xs: Any, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Cross time in the kernel."""
        if reason := library.unavailable_reason():
            raise RuntimeError(f"{self} cannot run: {reason} {library.INSTALL_HINT}")
        if refusal := unsupported_reason(cell, {a.dtype for a in jax.tree.leaves((params, state))}):
            raise ValueError(f"{self} {refusal}. Use BPTT(), or Scan(), which takes any cell.")
        if isinstance(cell, AffineCell):
            across = functools.partial(run_affine, Kernel(self.exported is not None), cell, reverse=reverse)
            across = functools.partial(cut, across, reverse=reverse)
            return on_each_device(across, params, state, xs, masks)
        assert isinstance(cell, GatedCell)
        check_features(xs, params.w_x)
        plan = Plan(cell, reverse, self.exported, jax.tree.structure(params.local), jax.tree.structure(state))
        return on_each_device(plan.cross, *reverse_only((params, state, xs, masks), self))


def unsupported_reason(cell: Cell, dtypes: set[Any]) -> str | None:
    """Say why `Native` does not take a cell with params and state of these dtypes; None where it does."""
    gated = isinstance(cell, GatedCell) and cell.native() is not None
    if not gated and not isinstance(cell, AffineCell):
        has = "Elman with tanh or relu, LSTM and GRU with sigmoid and tanh, and AffineCell"
        return f"has no kernel for {cell}: it has one for {has}"
    if isinstance(cell, GatedCell) and type(cell.recurrence) is not Dense:  # a subclass may be another equation
        return f"takes dense recurrent weights; got {cell}"
    if dtypes != {jnp.dtype(jnp.float32)}:
        return f"has no kernel for {', '.join(sorted(map(str, dtypes)))}: it takes params and a state in float32"
    return None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is known before there are numbers, and how a cell's own trees become arrays for the kernel, and back."""

    cell: GatedCell
    reverse: bool
    exported: BPTT | None
    local_tree: Any
    state_tree: Any

    @property
    def kernel(self) -> str:
        """Its name."""
        return str(self.cell.native())

    @property
    def portable(self) -> bool:
        """Whether another driver takes its place in a program that is exported."""
        return self.exported is not None

    def cross(self, params: GatedParams, state: State, xs: jax.Array, masks: StepMasks) -> tuple[State, Output]:
        """Cross time."""
        shape = *xs.shape[1:-1], self.cell.hidden
        crossed = _cross(self, False, self.operands(params, state, xs, masks))
        final = jax.tree.unflatten(self.state_tree, [a.reshape(shape) for a in crossed.final])
        return final, crossed.ys.reshape(len(xs), *shape)

    def operands(self, params: GatedParams, state: State, xs: jax.Array, masks: StepMasks) -> Operands:
        """Make the batch one axis, the state one array and the local params one array."""
        batch = xs.ndim - 2
        count = math.prod(xs.shape[1:-1])
        rows = lambda a: a.reshape(len(a), count) if batch != 1 else a  # (T, *batch)
        wide = lambda a: a.reshape(len(a), count, a.shape[-1]) if batch != 1 else a  # (T, *batch, features)
        stack = lambda tree: wide(jnp.stack(jax.tree.leaves(tree)))
        local = jax.tree.leaves(params.local)
        weights = Weights(*params[:3], jnp.stack(local) if local else jnp.zeros((0, self.cell.hidden), jnp.float32))
        initial = None if masks.reset_state is None else stack(masks.reset_state)
        valid, reset = (m if m is None else rows(m) for m in (masks.valid, masks.reset))
        operands = Operands(wide(xs.astype(jnp.float32)), weights, stack(state), initial, valid, reset)
        return vary(operands, varying(operands))

    def forward(self, operands: Operands) -> tuple[Any, Any]:
        """Return ys and the final state, as the kernel does, in JAX."""
        local = jax.tree.unflatten(self.local_tree, list(operands.weights.local))
        params = GatedParams(*operands.weights[:3], local)
        state, initial = (
            None if s is None else jax.tree.unflatten(self.state_tree, list(s))
            for s in (operands.state, operands.initial)
        )
        masks = StepMasks(operands.valid, operands.reset, initial)
        final, ys = (self.exported or BPTT())(self.cell, params, state, operands.xs, masks, reverse=self.reverse)
        return ys, jnp.stack(jax.tree.leaves(final))

    def backward(self, operands: Operands, cotangents: Cotangents) -> Gradients:
        """Return the gradients for the operands, as the kernel does, in JAX."""
        xs, weights, state, initial, valid, reset = operands
        forward = lambda xs, weights, state, initial: self.forward(Operands(xs, weights, state, initial, valid, reset))
        out, pull = jax.vjp(forward, xs, weights, state, initial)
        full = [jnp.zeros_like(o) if ct is None else ct for o, ct in zip(out, cotangents, strict=True)]
        return Gradients(*pull(tuple(full)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _cross(plan: Plan, keep: bool, operands: Operands) -> ForwardOutputs:
    return Forward(plan, keep)(operands)


def _forward(plan: Plan, keep: bool, operands: Operands) -> tuple[ForwardOutputs, Any]:
    wanted = None if operands.xs.perturbed else ()
    operands = jax.tree.map(lambda p: p.value, operands)
    crossed = _cross(plan, True, reverse_only(operands, Native()))
    return (crossed if keep else crossed._replace(kept=None)), (operands, crossed, wanted)


def _backward(plan: Plan, keep: bool, residuals: Any, cotangents: ForwardOutputs) -> tuple[Operands]:
    operands, crossed, wanted = residuals
    ys, final = (None if isinstance(ct, SymbolicZero) else ct for ct in (cotangents.ys, cotangents.final))
    masks = StepMasks(operands.valid, operands.reset)
    rows_first = lambda a: None if a is None else jnp.moveaxis(a, 1, 0)
    over_time = (operands.xs, crossed.ys)
    valid = live(masks, rows_first(final), ys, plan.reverse, rows_first(operands.state), over_time).valid
    operands, crossed = reverse_only((operands._replace(valid=valid), crossed), Native())
    d = _pull(plan, wanted is None, operands, crossed, Cotangents(ys, final))
    return (Operands(d.xs, d.weights, d.state, d.initial, None, None),)


_cross.defvjp(_forward, _backward, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _pull(plan: Plan, inputs: bool, operands: Operands, crossed: ForwardOutputs, cotangents: Cotangents) -> Gradients:
    """Pull cotangents back through the kernel. `crossed` follows from the operands: it gets no gradient of its own."""
    return Backward(plan, inputs)(operands, crossed, cotangents)


def _pull_forward(plan: Plan, inputs: bool, *operands: Any) -> tuple[Gradients, Any]:
    return _pull(plan, inputs, *operands), operands


@broadcasting
def _pull_backward(plan: Plan, inputs: bool, residuals: Any, seconds: Gradients) -> Any:
    """Differentiate the way back, for a second order: that of `BPTT()`, which computes the same."""
    operands, crossed, cotangents = residuals

    def backward(operands: Operands, cotangents: Cotangents) -> Gradients:
        gradients = plan.backward(operands, cotangents)
        return gradients if inputs else gradients._replace(xs=None)

    doperands, dcotangents = jax.vjp(backward, operands, cotangents)[1](seconds)
    return doperands, jax.tree.map(jnp.zeros_like, crossed), dcotangents


_pull.defvjp(_pull_forward, _pull_backward)
