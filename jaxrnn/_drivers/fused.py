"""The time loop in one Pallas kernel, into which the gate of the cell is traced."""

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
from .._core.live import live
from .._core.live import outputs as cell_outputs
from .._core.masks import StepMasks, apply_reset
from .._core.preactivations import merge_preactivations
from .._core.sharding import on_each_device, vary, varying
from .._core.trees import cast_like, where
from .._core.types import Inputs, Output, Params, State
from .._kernels.pallas.calls import KernelCall, RowInputs, SequenceInputs, Weights, with_vmap_rule
from .._kernels.pallas.equation import Equation, blocks, equation, recurrence_of
from . import bptt
from .driver import drop_symbolic_zeros, need_gated, num_steps
from .rows import rows_as_batch
from .second_order import second_order


def _fits(driver: Any, cell: Any, params: Params, state: State, xs: Inputs) -> bool:
    """Return whether a kernel takes the batch of these arrays, forward and backward."""
    try:
        u = jax.eval_shape(cell.project, params, xs)
        KernelAdapter.of(cell, driver, False, params, state, u, backward=True)
    except ValueError:
        return False
    return True


@dataclasses.dataclass(frozen=True)
class Fused(metaclass=Checked):
    """The whole time loop in one kernel, forward and backward, on a Hopper GPU (H100, H200) or a TPU.

    For any `GatedCell` with an elementwise gate, user-defined ones included, with `Dense()` recurrent weights or
    `Heads(n)`, in float32, bfloat16 or float16. The recurrent weights stay on the chip for the whole sequence. The gate
    is computed in float32, and the state is kept in float32 from step to step. One GEMM projects all inputs before the
    kernel. A gradient keeps the states and what the weights read of them (for an LSTM 3 arrays of (T, B, H)): one GEMM
    recomputes the recurrent part, a kernel runs the backward pass, and one GEMM computes each weight gradient.

    On a GPU float32 is multiplied in TF32, as XLA does by default; it needs jax 0.11. It has not run on a TPU. A gate
    may use the operations in `jaxrnn._kernels.pallas.equation.ELEMENTWISE`.

    Args:
        interpret: interpret the kernel for a TPU on any platform; slow, for tests.

    Reverse mode only: for `jax.jvp` and forward mode use `Scan()`. The second order, reverse over reverse, is
    computed by `BPTT()`. Over several devices shard the batch over explicit axes, or by `jax.shard_map`: XLA cannot
    split a kernel over automatic axes.

    Raises:
        ValueError: for another cell, recurrence, dtype, precision or platform, and for weights that do not fit on the
            chip; the message names the reason.
    """

    interpret: bool = False

    def __check_init__(self) -> None:
        """Check the field."""
        convert(self, interpret=one_of(True, False))

    @functools.partial(rows_as_batch, fits=_fits)
    def __call__(
        self, cell: Cell, params: Params, state: State, xs: Inputs, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Run the kernel over time."""
        cell = need_gated(cell, self)
        if num_steps(xs) == 0 or any(s.size == 0 for s in jax.tree.leaves(state)):
            states = jax.tree.map(lambda s: jnp.zeros((num_steps(xs), *s.shape), s.dtype), state)
            return state, cell.output(params, states, xs)

        def run(params: Params, state: State, xs: Inputs, masks: StepMasks) -> tuple[State, Output]:
            operands = (params, state, xs, masks)
            operands = reverse_only(vary(operands, varying(operands)), self)
            final, states, _ = _trajectory(cell, self, reverse, *operands)
            return final, cell_outputs(cell, params, states, xs, masks)

        out: tuple[State, Output] = on_each_device(run, params, state, xs, masks)
        return out


@dataclasses.dataclass(frozen=True)
class KernelAdapter:
    """Converts the pytrees of a cell to the arrays of a kernel and back.

    Attributes:
        equation: the step without its matmul.
        kernel: the kernel of the platform.
        weights: the shape of the recurrent weights as blocks (N, K, G, K), and their dtype.
        batch: the shape of the batch, which is one axis in the kernel.
    """

    equation: Equation
    kernel: Any
    weights: tuple[Any, Any]
    batch: tuple[int, ...]

    @classmethod
    def of(
        cls, cell: GatedCell, driver: Fused, reverse: bool, params: Params, state: State, u: Any, backward: bool
    ) -> KernelAdapter:
        """Build the adapter; raise ValueError if `driver` does not take the cell."""
        try:
            step_equation = equation(cell, params, state, u, jax.eval_shape(cell.recur, params, state))
            kernel = _kernel(driver, step_equation, reverse)
            batch = jax.tree.leaves(state)[0].shape[:-1]
            w = jax.eval_shape(blocks, params.w_h)
            kernel.check(w.shape, w.dtype, math.prod(batch), backward)
        except ValueError as error:
            raise ValueError(f"{driver} {error}. Use BPTT(), or Scan(), which takes any cell.") from error
        return cls(step_equation, kernel, (w.shape, w.dtype), batch)

    def kernel_call(self, backward: bool) -> KernelCall:
        """Return the forward or the backward pass of the kernel, with its rule for `vmap`."""

        def fits(batch: int) -> bool:
            try:
                self.kernel.check(*self.weights, batch, backward)
            except ValueError:
                return False
            return True

        return with_vmap_rule(self.kernel.backward if backward else self.kernel.forward, fits)

    def flatten_sequences(self, arrays: list[Any]) -> list[Any]:
        """Reshape (T, *batch, H) to (T, B, H); None stays."""
        count = math.prod(self.batch)
        return [None if a is None else a.reshape(len(a), count, a.shape[-1]) for a in arrays]

    def flatten_rows(self, tree: Any) -> list[jax.Array]:
        """Reshape (*batch, H) to (B, H)."""
        return [a.reshape(math.prod(self.batch), a.shape[-1]) for a in jax.tree.leaves(tree)]

    def flatten_mask(self, mask: jax.Array | None) -> jax.Array | None:
        """Reshape (T, *batch) to (T, B)."""
        return None if mask is None else mask.reshape(len(mask), math.prod(self.batch))

    def unflatten(self, arrays: list[jax.Array]) -> list[jax.Array]:
        """Restore the batch axes that `flatten_sequences` and `flatten_rows` merged."""
        return [a.reshape(*a.shape[:-2], *self.batch, a.shape[-1]) for a in arrays]


def unavailable_reason() -> str | None:
    """Return why there is no kernel for this platform; None if there is one."""
    device = jax.devices()[0]
    if device.platform == "gpu" and jax.__version_info__ < (0, 11):
        return f"needs jax 0.11 on a GPU, and this is {jax.__version__}"
    if device.platform == "gpu" and device.compute_capability != "9.0":
        return f"has a kernel for Hopper GPUs (compute capability 9.0), and this is an {device.device_kind}"
    if device.platform not in ("gpu", "tpu"):
        return f"runs on a GPU or a TPU, and this is a {device.platform} (Fused(interpret=True) is for tests)"
    return None


def _kernel(driver: Fused, step_equation: Equation, reverse: bool) -> Any:
    """Return the kernel for this platform, imported here because Pallas is slow to import."""
    if not driver.interpret and (reason := unavailable_reason()):
        raise ValueError(reason)
    if driver.interpret or jax.default_backend() == "tpu":
        from .._kernels.pallas.blocks import Blocks

        return Blocks(step_equation, reverse, driver.interpret)
    from .._kernels.pallas.hopper import Hopper

    return Hopper(step_equation, reverse)


def _local(cell: GatedCell, params: Params) -> list[jax.Array]:
    """Return the params of the gate, each (1, H)."""
    row = lambda a: jnp.broadcast_to(a.astype(jnp.float32), (1, cell.hidden))
    return [row(a) for a in jax.tree.leaves(cell.local(params))]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _trajectory(
    cell: GatedCell, driver: Fused, reverse: bool, params: Params, state: State, xs: Inputs, masks: StepMasks
) -> tuple[State, State, jax.Array]:
    """Return the final state, the state after every step, and what the recurrent weights read of it (T, *batch, H)."""
    u = cell.project(params, xs)
    adapter = KernelAdapter.of(cell, driver, reverse, params, state, u, backward=False)
    first_reset = next_reset = None
    if masks.reset is not None:
        first_reset = masks.reset[-1 if reverse else 0]
        next_reset = shifted(masks.reset, jnp.zeros_like(first_reset), not reverse)  # whether the next step is reset
    sequences = SequenceInputs(
        adapter.flatten_sequences(jax.tree.leaves(u)),
        adapter.flatten_mask(masks.valid),
        adapter.flatten_mask(next_reset),
    )
    rows = RowInputs(
        adapter.flatten_rows(apply_reset(state, masks._replace(reset=first_reset))),
        adapter.flatten_rows(masks.reset_state),
    )
    outputs = adapter.kernel_call(backward=False)(sequences, rows, Weights(blocks(params.w_h), _local(cell, params)))
    states = jax.tree.unflatten(adapter.equation.state, adapter.unflatten(outputs.states))
    return (
        jax.tree.map(lambda s: s[0 if reverse else -1], states),
        states,
        adapter.unflatten([outputs.recurrent_reads])[0],
    )


@broadcasting
def _forward(cell: GatedCell, driver: Fused, reverse: bool, *primals: Any) -> tuple[Any, Any]:
    arguments = jax.tree.map(lambda p: p.value, primals)
    out = _trajectory(cell, driver, reverse, *reverse_only(arguments, driver))
    return out, (arguments, out[1:])


@broadcasting
def _backward(cell: GatedCell, driver: Fused, reverse: bool, residuals: Any, cotangents: Any) -> Any:
    (params, state, xs, masks), (states, recurrent_reads) = residuals
    dfinal, dstates = drop_symbolic_zeros(cotangents[:2])
    live_masks = live(masks, dfinal, dstates, reverse, state, (xs, states))
    if live_masks.valid is not None and masks.reset is not None:
        # the padding holds the state of a valid step, so it is kept
        keep = live_masks.valid if masks.valid is None else live_masks.valid | ~masks.valid
        over_time = (xs, states, recurrent_reads)
        xs, states, recurrent_reads = where(keep, over_time, jax.tree.map(jnp.zeros_like, over_time))
    arguments, residuals = reverse_only(((params, state, xs, live_masks), (states, recurrent_reads)), driver)
    return _gradients(cell, driver, reverse, arguments, residuals, (dfinal, dstates))


_trajectory.defvjp(_forward, _backward, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _gradients(cell: GatedCell, driver: Fused, reverse: bool, arguments: Any, residuals: Any, cotangents: Any) -> Any:
    """Return the gradients of the arguments. The residuals are a function of the arguments: their gradient is zero."""
    (params, state, xs, masks), (states, recurrent_reads), (dfinal, dstates) = arguments, residuals, cotangents
    u, project_vjp = jax.vjp(cell.project, params, xs)
    v, recur_vjp = jax.vjp(lambda params: recurrence_of(cell)(params.w_h, recurrent_reads), params)
    local, local_vjp = jax.vjp(functools.partial(_local, cell), params)
    adapter = KernelAdapter.of(cell, driver, reverse, params, state, u, backward=True)
    preactivations = jax.tree.leaves(merge_preactivations(cell, cell.local(params), states, u, v))
    over_time = (adapter.flatten_sequences(adapter.equation.state.flatten_up_to(tree)) for tree in (states, dstates))
    sequences = SequenceInputs(
        adapter.flatten_sequences(preactivations),
        adapter.flatten_mask(masks.valid),
        adapter.flatten_mask(masks.reset),
        *over_time,
    )
    dfinal = jax.tree.map(lambda s, d: jnp.zeros_like(s) if d is None else d, state, dfinal)
    d = adapter.kernel_call(backward=True)(
        sequences,
        RowInputs(*map(adapter.flatten_rows, (state, masks.reset_state, dfinal))),
        Weights(blocks(params.w_h), local),
    )
    dpreactivations = jax.tree.unflatten(adapter.equation.preactivations, adapter.unflatten(d.preactivations))
    dparams, dxs = project_vjp(cast_like(dpreactivations.u, u))
    dlocal = [sums.sum(0, keepdims=True) for sums in d.local]
    for more in (*recur_vjp(cast_like(dpreactivations.recurrent_cotangents(), v)), *local_vjp(dlocal)):
        dparams = jax.tree.map(jnp.add, dparams, more)
    unflatten_state = lambda arrays: jax.tree.unflatten(adapter.equation.state, adapter.unflatten(arrays))
    dreset_state = None if masks.reset_state is None else cast_like(unflatten_state(d.reset_state), masks.reset_state)
    return dparams, cast_like(unflatten_state(d.state), state), dxs, StepMasks(None, None, dreset_state)


def _gradients_forward(cell: GatedCell, driver: Fused, reverse: bool, *operands: Any) -> tuple[Any, Any]:
    return _gradients(cell, driver, reverse, *operands), operands


@broadcasting
def _gradients_backward(cell: GatedCell, driver: Fused, reverse: bool, operands: Any, seconds: Any) -> Any:
    """Differentiate the backward pass, through `BPTT()`."""
    (params, state, xs, masks), residuals, cotangents = operands

    def forward(params: Params, state: State, xs: Inputs, reset_state: State) -> tuple[State, State]:
        with_reset_state = masks._replace(reset_state=reset_state)
        return bptt.trajectory(cell, bptt.BPTT(), reverse, params, state, xs, with_reset_state)

    *of_arguments, of_masks = seconds
    primals = (params, state, xs, masks.reset_state)
    dprimals, dcotangents = second_order(forward, primals, cotangents, (*of_arguments, of_masks.reset_state))
    *darguments, dreset_state = dprimals
    dzero = jax.tree.map(jnp.zeros_like, residuals)
    return (*darguments, StepMasks(None, None, dreset_state)), dzero, dcotangents


_gradients.defvjp(_gradients_forward, _gradients_backward)
