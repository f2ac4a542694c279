"""The time loop in C++, for cells whose equation has a kernel in `jaxrnn/_kernels/cpu`, on a CPU."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from .._core.affine_cell import AffineCell, run_affine
from .._core.autodiff import reverse_only
from .._core.broadcasting import broadcasting
from .._core.cell import Cell, GatedCell, GatedParams
from .._core.fields import Checked, convert, instance
from .._core.live import cut, live
from .._core.masks import StepMasks
from .._core.matrix_cell import MatrixCell
from .._core.recurrence import Dense, check_features
from .._core.sharding import on_each_device, vary, varying
from .._core.types import Output, Params, State
from .._kernels.cpu import library
from .._kernels.cpu.affine import AffineKernel
from .._kernels.cpu.calls import Backward, Cotangents, Forward, ForwardOutputs, Gradients, Operands, Weights
from .bptt import BPTT
from .native_memory import has_one_decay, run_memory
from .precision import MatmulPrecision, matmul_precision, passes
from .rows import rows_as_batch
from .second_order import gradients, second_order


@dataclasses.dataclass(frozen=True)
class Native(metaclass=Checked):
    """The whole time loop in one C++ kernel, forward and backward, called through `jax.ffi`.

    For `Elman` (tanh or relu), `LSTM` and `GRU` (sigmoid and tanh) with dense recurrent weights, any `AffineCell`, and
    any `MatrixCell` with one decay a head; params in float32, bfloat16 or float16, the state in any of these, on a CPU.
    The matmuls of a step, for inputs and state together, and its gate are one pass. A gradient keeps the activations of
    the gates (in all 6 arrays of (T, B, H) for an LSTM, 5 for a GRU, 1 for an Elman network), in the dtype of the
    params. Work is split over the batch, or over the units where the weights exceed a core's cache, on the threads of
    XLA; results are the same to the last bit for any number of threads.

    Whatever the dtypes, sums, gates and the state from step to step are in float32; what leaves the kernel is rounded
    to its dtype. A matmul of bfloat16 weights runs on the tiles of AMX, for which h is rounded too, where the processor
    has them and the system permits their use (`jaxrnn.available_drivers()` says whether); elsewhere 16-bit weights are
    widened to float32.

    For an affine cell the kernel runs the recurrence alone; a and b of all steps are computed in JAX before it. For a
    matrix cell it runs chunks of time, as `Chunkwise` does, with work split over batch rows and heads; it takes no
    resets. The gradient keeps what is read and the memory before each chunk.

    Reverse mode only: for `jax.jvp` and forward mode use `Scan()`. The second order, reverse over reverse, of a gated
    cell is computed by `BPTT()`, that of a matrix cell as `Chunkwise` computes it.

    Args:
        exported: the driver that replaces this one in a program that `jax.export` makes, since the library may not
            exist where the program is loaded. With None the call stays in the program, which `jax.export` accepts with
            `disabled_checks=[jax.export.DisabledSafetyCheck.custom_call(name)]` for each name in its error.
        precision: the least precision that matmuls of float32 params may have, as JAX names it: "float32" (or
            "highest"), "bfloat16_3x" (or "high": each number is the sum of two of bfloat16, and three products are
            added), "bfloat16" (or "default": each number is rounded to one), a `jax.lax.Precision` or a
            `jax.lax.DotAlgorithmPreset`. None follows `jax.default_matmul_precision` where that names
            bfloat16, and is float32 otherwise. A processor without tiles computes in float32 whatever is allowed.

    Raises:
        ValueError: for another cell, recurrence or dtype, and for a matrix cell with resets.
        RuntimeError: if the library was not built; `jaxrnn.available_drivers()` says why.
    """

    exported: BPTT | None = dataclasses.field(default=BPTT(), repr=False)
    precision: MatmulPrecision | str = None

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, exported=instance(BPTT | None, "BPTT(), or None"), precision=matmul_precision)

    @rows_as_batch
    def __call__(
        self, cell: Cell, params: Params, state: State, xs: Any, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Run the kernel over time."""
        if reason := library.unavailable_reason():
            raise RuntimeError(f"{self} cannot run: {reason} {library.INSTALL_HINT}")
        of_params, of_state = ({a.dtype for a in jax.tree.leaves(tree)} for tree in (params, state))
        if unsupported := unsupported_reason(cell, of_params, of_state):
            instead = "Chunkwise()" if isinstance(cell, MatrixCell) else "BPTT()"
            raise ValueError(f"{self} {unsupported}. Use {instead}, or Scan(), which takes any cell.")
        out: tuple[State, Output]
        if isinstance(cell, MatrixCell):
            unroll = functools.partial(run_memory, self, self.exported is not None, cell, reverse)
            out = on_each_device(unroll, params, state, xs, masks)
            return out
        if isinstance(cell, AffineCell):
            unroll = functools.partial(run_affine, AffineKernel(self.exported is not None), cell, reverse=reverse)
            unroll = functools.partial(cut, unroll, reverse=reverse)
            out = on_each_device(unroll, params, state, xs, masks)
            return out
        assert isinstance(cell, GatedCell)
        check_features(xs, params.w_x)
        adapter = CellAdapter(
            cell, reverse, passes(self.precision), self.exported, *map(jax.tree.structure, (params.local, state))
        )
        out = on_each_device(adapter.unroll, *reverse_only((params, state, xs, masks), self))
        return out


DTYPES = {jnp.dtype(dtype) for dtype in (jnp.float32, jnp.bfloat16, jnp.float16)}
"""The dtypes of params and state that the kernels take."""


def unsupported_reason(cell: Cell, of_params: set[Any], of_state: set[Any]) -> str | None:
    """Return why `Native` does not take a cell with params and a state of these dtypes; None if it does."""
    gated = isinstance(cell, GatedCell) and cell.native() is not None
    if not gated and not isinstance(cell, AffineCell | MatrixCell):
        has = "Elman with tanh or relu, LSTM and GRU with sigmoid and tanh, AffineCell and MatrixCell"
        return f"has no kernel for {cell}: it has one for {has}"
    if isinstance(cell, GatedCell) and type(cell.recurrence) is not Dense:  # a subclass may be another equation
        return f"takes dense recurrent weights; got {cell}"
    if others := (of_params | of_state) - DTYPES:
        return f"has no kernel for {', '.join(sorted(map(str, others)))}: it takes float32, bfloat16 and float16"
    if isinstance(cell, MatrixCell) and not has_one_decay(cell):
        return f"takes one decay a head; the updates of {cell} have one a key feature"
    if gated and len(of_params) > 1:
        return f"takes params of one dtype; got {' and '.join(sorted(map(str, of_params)))}"
    return None


@dataclasses.dataclass(frozen=True)
class CellAdapter:
    """Converts the pytrees of a cell to the arrays of its kernel and back; the `JaxEquivalent` of the kernel."""

    cell: GatedCell
    reverse: bool
    precision: str
    exported: BPTT | None
    local_tree: Any
    state_tree: Any

    @property
    def kernel(self) -> str:
        """Return the name of the kernel."""
        return str(self.cell.native())

    @property
    def portable(self) -> bool:
        """Return whether another driver replaces the kernel in a program that is exported."""
        return self.exported is not None

    def unroll(self, params: GatedParams, state: State, xs: jax.Array, masks: StepMasks) -> tuple[State, Output]:
        """Run the kernel over time."""
        shape = *xs.shape[1:-1], self.cell.hidden
        outputs = _outputs(self, False, self.operands(params, state, xs, masks))
        final = jax.tree.unflatten(self.state_tree, [a.reshape(shape) for a in outputs.final])
        return final, outputs.ys.reshape(len(xs), *shape)

    def operands(self, params: GatedParams, state: State, xs: jax.Array, masks: StepMasks) -> Operands:
        """Return arrays with one batch axis, and one array for the state and one for the local params."""
        batch = xs.ndim - 2
        count = math.prod(xs.shape[1:-1])
        rows = lambda a: a.reshape(len(a), count) if batch != 1 else a  # (T, *batch)
        wide = lambda a: a.reshape(len(a), count, a.shape[-1]) if batch != 1 else a  # (T, *batch, features)
        stack = lambda tree: wide(jnp.stack(jax.tree.leaves(tree)))
        local = jax.tree.leaves(params.local)
        weights = Weights(*params[:3], jnp.stack(local) if local else jnp.zeros((0, self.cell.hidden), params.b.dtype))
        reset_state = None if masks.reset_state is None else stack(masks.reset_state)
        valid, reset = (m if m is None else rows(m) for m in (masks.valid, masks.reset))
        operands = Operands(wide(xs.astype(params.w_x.dtype)), weights, stack(state), reset_state, valid, reset)
        varied: Operands = vary(operands, varying(operands))
        return varied

    def forward(self, operands: Operands) -> tuple[Any, Any]:
        """Return ys and the final state, as the kernel does, in JAX."""
        local = jax.tree.unflatten(self.local_tree, list(operands.weights.local))
        params = GatedParams(*operands.weights[:3], local)
        state, reset_state = (
            None if s is None else jax.tree.unflatten(self.state_tree, list(s))
            for s in (operands.state, operands.reset_state)
        )
        masks = StepMasks(operands.valid, operands.reset, reset_state)
        final, ys = (self.exported or BPTT())(self.cell, params, state, operands.xs, masks, reverse=self.reverse)
        return ys, jnp.stack(jax.tree.leaves(final))

    def backward(self, operands: Operands, cotangents: Cotangents) -> Gradients:
        """Return the gradients of the operands, as the kernel does, in JAX."""
        forward = self.forward_with_masks(operands.valid, operands.reset)
        return Gradients(*gradients(forward, operands[:4], tuple(cotangents)))

    def forward_with_masks(self, valid: jax.Array | None, reset: jax.Array | None) -> Callable[..., Any]:
        """Return `forward` as a function of the operands other than the masks."""
        return lambda xs, weights, state, reset_state: self.forward(
            Operands(xs, weights, state, reset_state, valid, reset)
        )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _outputs(adapter: CellAdapter, keep: bool, operands: Operands) -> ForwardOutputs:
    return Forward(adapter, keep)(operands)


def _forward(adapter: CellAdapter, keep: bool, operands: Operands) -> tuple[ForwardOutputs, Any]:
    wanted = None if operands.xs.perturbed else ()
    operands = jax.tree.map(lambda p: p.value, operands)
    outputs = _outputs(adapter, True, reverse_only(operands, Native()))
    return (outputs if keep else outputs._replace(residuals=None)), (operands, outputs, wanted)


def _backward(adapter: CellAdapter, keep: bool, residuals: Any, cotangents: ForwardOutputs) -> tuple[Operands]:
    operands, outputs, wanted = residuals
    ys, final = (None if isinstance(ct, SymbolicZero) else ct for ct in (cotangents.ys, cotangents.final))
    masks = StepMasks(operands.valid, operands.reset)
    rows_first = lambda a: None if a is None else jnp.moveaxis(a, 1, 0)
    over_time = (operands.xs, outputs.ys)
    valid = live(masks, rows_first(final), ys, adapter.reverse, rows_first(operands.state), over_time).valid
    operands, outputs = reverse_only((operands._replace(valid=valid), outputs), Native())
    d = _gradients(adapter, wanted is None, operands, outputs, Cotangents(ys, final))
    return (Operands(d.xs, d.weights, d.state, d.reset_state, None, None),)


_outputs.defvjp(_forward, _backward, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gradients(
    adapter: CellAdapter, inputs: bool, operands: Operands, outputs: ForwardOutputs, cotangents: Cotangents
) -> Gradients:
    """Return the gradients of the operands. `outputs` is a function of the operands and has a gradient of zero."""
    return Backward(adapter, inputs)(operands, outputs, cotangents)


def _gradients_forward(adapter: CellAdapter, inputs: bool, *operands: Any) -> tuple[Gradients, Any]:
    return _gradients(adapter, inputs, *operands), operands


@broadcasting
def _gradients_backward(adapter: CellAdapter, inputs: bool, residuals: Any, seconds: Gradients) -> Any:
    """Differentiate the backward pass, through `BPTT()`."""
    operands, outputs, cotangents = residuals
    forward = adapter.forward_with_masks(operands.valid, operands.reset)
    (dxs, dweights, dstate, dreset_state), dcotangents = second_order(
        forward, operands[:4], tuple(cotangents), tuple(seconds)
    )
    dzero = jax.tree.map(jnp.zeros_like, outputs)
    return Operands(dxs, dweights, dstate, dreset_state, None, None), dzero, Cotangents(*dcotangents)


_gradients.defvjp(_gradients_forward, _gradients_backward)
