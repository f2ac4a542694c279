"""The time loop in one kernel of Pallas, with the cell's own gate traced into it."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from .._core.affine_cell import shifted
from .._core.autodiff import reverse_only
from .._core.broadcasting import broadcasting
from .._core.cell import Cell, GatedCell
from .._core.fields import Checked, convert, one_of
from .._core.masks import StepMasks, apply_reset
from .._core.preactivations import merge_preactivations
from .._core.sharding import on_each_device, vary, varying
from .._core.trees import cast_like, where
from .._core.types import Output, Params, State
from .._kernels.pallas.calls import Call, RowInputs, SequenceInputs, Weights, with_vmap_rule
from .._kernels.pallas.equation import Equation, blocks, equation, recurrence_of
from . import bptt
from .driver import drop_symbolic_zeros, need_gated, num_steps
from .live import live, outputs


@dataclasses.dataclass(frozen=True)
class Fused(metaclass=Checked):
    """The whole time loop in one kernel, forward and backward, on a Hopper GPU (H100, H200) or a TPU.

    For any `GatedCell` whose gate is elementwise, a user's own included, with `Dense()` recurrent weights or
    `Heads(n)`, in float32, bfloat16 or float16. The recurrent weights stay on the chip for the whole sequence; the gate
    is reckoned in float32, in which the state is kept from step to step. All inputs are projected by one GEMM before.
    A gradient keeps the states and what the weights saw of them (an LSTM 3 arrays of (T, B, H)): one GEMM recomputes
    the recurrent terms, a kernel walks back, and one GEMM gives the gradient for each weight.

    On a GPU float32 is multiplied in TF32, as XLA does by default; it needs jax 0.11. On a TPU it has not run. Kernels
    know the operations in `jaxrnn._kernels.pallas.equation.ELEMENTWISE`; a gate is made of them.

    Args:
        interpret: interpret the TPU's kernel, on any platform: slow, for tests.

    Reverse mode only: for `jax.jvp` and forward mode use `Scan()`. A second order, reverse over reverse, is taken
    through `BPTT()`. Over several devices shard the batch over explicit axes, or by `jax.shard_map`: XLA cannot split a
    kernel over automatic ones.

    Raises:
        ValueError: for another cell, recurrence, dtype, precision or platform, and for weights that do not fit on the
            chip; it says which.
    """

    interpret: bool = False

    def __check_init__(self) -> None:
        """Check the field."""
        convert(self, interpret=one_of(True, False))

    def __call__(
        self, cell: Cell, params: Params, state: State, xs: Any, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Cross time in the kernel."""
        cell = need_gated(cell, self)
        if num_steps(xs) == 0 or any(s.size == 0 for s in jax.tree.leaves(state)):
            nothing = jax.tree.map(lambda s: jnp.zeros((num_steps(xs), *s.shape), s.dtype), state)
            return state, cell.output(params, nothing, xs)

        def cross(params: Params, state: State, xs: Any, masks: StepMasks) -> tuple[State, Output]:
            operands = (params, state, xs, masks)
            operands = reverse_only(vary(operands, varying(operands)), self)
            final, states, _ = _trajectory(cell, self, reverse, *operands)
            return final, outputs(cell, params, states, xs, masks)

        return on_each_device(cross, params, state, xs, masks)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a cell's trees become arrays for a kernel, and back.

    Attributes:
        equation: what a step does besides its matmul.
        kernel: the kernel that crosses time.
        weights: the shape of the recurrent weights as blocks (N, K, G, K), and their dtype.
        batch: the shape of the batch, which the kernel knows as one axis.
    """

    equation: Equation
    kernel: Any
    weights: tuple[Any, Any]
    batch: tuple[int, ...]

    @classmethod
    def of(cls, cell: GatedCell, how: Fused, reverse: bool, params: Params, state: State, u: Any, back: bool) -> Plan:
        """Make it; raise ValueError where the cell is not for `how`."""
        try:
            made = equation(cell, params, state, u, jax.eval_shape(cell.recur, params, state))
            kernel = _kernel(how, made, reverse)
            batch = jax.tree.leaves(state)[0].shape[:-1]
            w = jax.eval_shape(blocks, params.w_h)
            kernel.check(w.shape, w.dtype, math.prod(batch), back)
        except ValueError as error:
            raise ValueError(f"{how} {error}. Use BPTT(), or Scan(), which takes any cell.") from error
        return cls(made, kernel, (w.shape, w.dtype), batch)

    def call(self, back: bool) -> Call:
        """Give the kernel, there or back, with its rule for `vmap`."""

        def fits(batch: int) -> bool:
            try:
                self.kernel.check(*self.weights, batch, back)
            except ValueError:
                return False
            return True

        return with_vmap_rule(self.kernel.backward if back else self.kernel.forward, fits)

    def rows(self, arrays: list[Any]) -> list[Any]:
        """(T, *batch, H) to (T, B, H); None stays."""
        count = math.prod(self.batch)
        return [None if a is None else a.reshape(len(a), count, a.shape[-1]) for a in arrays]

    def ones(self, tree: Any) -> list[jax.Array]:
        """(*batch, H) to (B, H)."""
        return [a.reshape(math.prod(self.batch), a.shape[-1]) for a in jax.tree.leaves(tree)]

    def mark(self, mark: Any) -> Any:
        """(T, *batch) to (T, B)."""
        return None if mark is None else mark.reshape(len(mark), math.prod(self.batch))

    def apart(self, arrays: list[jax.Array]) -> list[jax.Array]:
        """Undo `rows` and `ones`."""
        return [a.reshape(*a.shape[:-2], *self.batch, a.shape[-1]) for a in arrays]


def unavailable_reason() -> str | None:
    """Say why there is no kernel for this platform; None where there is one."""
    device = jax.devices()[0]
    if device.platform == "gpu" and jax.__version_info__ < (0, 11):
        return f"needs jax 0.11 on a GPU, and this is {jax.__version__}"
    if device.platform == "gpu" and device.compute_capability != "9.0":
        return f"has a kernel for Hopper GPUs (compute capability 9.0), and this is an {device.device_kind}"
    if device.platform not in ("gpu", "tpu"):
        return f"runs on a GPU or a TPU, and this is a {device.platform} (Fused(interpret=True) is for tests)"
    return None


def _kernel(how: Fused, made: Equation, reverse: bool) -> Any:
    """Give the kernel for this platform. It is imported here, since Pallas takes a while to import."""
    if not how.interpret and (reason := unavailable_reason()):
        raise ValueError(reason)
    if how.interpret or jax.default_backend() == "tpu":
        from .._kernels.pallas.blocks import Blocks

        return Blocks(made, reverse, how.interpret)
    from .._kernels.pallas.hopper import Hopper

    return Hopper(made, reverse)


def _local(cell: GatedCell, params: Params) -> list[jax.Array]:
    """Give the gate's own params, each (1, H)."""
    row = lambda a: jnp.broadcast_to(a.astype(jnp.float32), (1, cell.hidden))
    return [row(a) for a in jax.tree.leaves(cell.local(params))]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _trajectory(
    cell: GatedCell, how: Fused, reverse: bool, params: Params, state: State, xs: Any, masks: StepMasks
) -> tuple[State, State, jax.Array]:
    """Give the state after the last step, that after every step, and what the recurrent weights saw (T, *batch, H)."""
    u = cell.project(params, xs)
    plan = Plan.of(cell, how, reverse, params, state, u, back=False)
    first = later = None
    if masks.reset is not None:
        first = masks.reset[-1 if reverse else 0]
        later = shifted(masks.reset, jnp.zeros_like(first), not reverse)  # whether the step after a step is reset
    rows = SequenceInputs(plan.rows(jax.tree.leaves(u)), plan.mark(masks.valid), plan.mark(later))
    ones = RowInputs(plan.ones(apply_reset(state, masks._replace(reset=first))), plan.ones(masks.reset_state))
    crossed = plan.call(back=False)(rows, ones, Weights(blocks(params.w_h), _local(cell, params)))
    states = jax.tree.unflatten(plan.equation.state, plan.apart(crossed.states))
    return jax.tree.map(lambda s: s[0 if reverse else -1], states), states, plan.apart([crossed.reads])[0]


@broadcasting
def _forward(cell: GatedCell, how: Fused, reverse: bool, *primals: Any) -> tuple[Any, Any]:
    arguments = jax.tree.map(lambda p: p.value, primals)
    out = _trajectory(cell, how, reverse, *reverse_only(arguments, how))
    return out, (arguments, out[1:])


@broadcasting
def _backward(cell: GatedCell, how: Fused, reverse: bool, residuals: Any, cotangents: Any) -> Any:
    (params, state, xs, masks), (states, reads) = residuals
    dfinal, dstates = drop_symbolic_zeros(cotangents[:2])
    alive = live(masks, dfinal, dstates, reverse, state, (xs, states))
    if alive.valid is not None and masks.reset is not None:
        keep = alive.valid if masks.valid is None else alive.valid | ~masks.valid  # a gap holds what comes after it
        xs, states, reads = where(keep, (xs, states, reads), jax.tree.map(jnp.zeros_like, (xs, states, reads)))
    arguments, kept = reverse_only(((params, state, xs, alive), (states, reads)), how)
    return _pull(cell, how, reverse, arguments, kept, (dfinal, dstates))


_trajectory.defvjp(_forward, _backward, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _pull(cell: GatedCell, how: Fused, reverse: bool, arguments: Any, kept: Any, cotangents: Any) -> Any:
    """Pull cotangents back through the kernel. What was kept follows from the arguments: it gets no gradient."""
    (params, state, xs, masks), (states, reads), (dfinal, dstates) = arguments, kept, cotangents
    u, pull_u = jax.vjp(cell.project, params, xs)
    v, pull_v = jax.vjp(lambda params: recurrence_of(cell)(params.w_h, reads), params)
    local, pull_local = jax.vjp(functools.partial(_local, cell), params)
    plan = Plan.of(cell, how, reverse, params, state, u, back=True)
    terms = jax.tree.leaves(merge_preactivations(cell, cell.local(params), states, u, v))
    over_time = (plan.rows(plan.equation.state.flatten_up_to(tree)) for tree in (states, dstates))
    rows = SequenceInputs(plan.rows(terms), plan.mark(masks.valid), plan.mark(masks.reset), *over_time)
    zero = jax.tree.map(lambda s, d: jnp.zeros_like(s) if d is None else d, state, dfinal)
    d = plan.call(back=True)(
        rows, RowInputs(*map(plan.ones, (state, masks.reset_state, zero))), Weights(blocks(params.w_h), local)
    )
    dterms = jax.tree.unflatten(plan.equation.terms, plan.apart(d.terms))
    dparams, dxs = pull_u(cast_like(dterms.u, u))
    of_local = [sums.sum(0, keepdims=True) for sums in d.local]
    for more in (*pull_v(cast_like(dterms.recurrent_cotangents(), v)), *pull_local(of_local)):
        dparams = jax.tree.map(jnp.add, dparams, more)
    whole = lambda arrays: jax.tree.unflatten(plan.equation.state, plan.apart(arrays))
    dinitial = None if masks.reset_state is None else cast_like(whole(d.initial), masks.reset_state)
    return dparams, cast_like(whole(d.state), state), dxs, StepMasks(None, None, dinitial)


def _pull_forward(cell: GatedCell, how: Fused, reverse: bool, *operands: Any) -> tuple[Any, Any]:
    return _pull(cell, how, reverse, *operands), operands


@broadcasting
def _pull_backward(cell: GatedCell, how: Fused, reverse: bool, operands: Any, seconds: Any) -> Any:
    """Differentiate the way back, for a second order: that of `BPTT()`, which computes the same."""
    (*primals, masks), kept, cotangents = operands
    initial = masks.reset_state

    def way_back(primals: Any, initial: Any, cotangents: Any) -> Any:
        there = lambda *p: bptt.trajectory(cell, bptt.BPTT(), reverse, *p[:-1], masks._replace(reset_state=p[-1]))
        out, pull = jax.vjp(there, *primals, initial)
        full = jax.tree.map(lambda o, c: jnp.zeros_like(o) if c is None else c, out, cotangents)
        *d, dinitial = pull(full)
        return *d, StepMasks(None, None, dinitial)

    dprimals, dinitial, dcotangents = jax.vjp(way_back, primals, initial, cotangents)[1](seconds)
    return (*dprimals, StepMasks(None, None, dinitial)), jax.tree.map(jnp.zeros_like, kept), dcotangents


_pull.defvjp(_pull_forward, _pull_backward)
