"""Backpropagation through time for every gated cell: it keeps the states, and differentiates chunks of time.

Reference: Werbos, "Backpropagation through time: what it does and how to do it", Proc. IEEE 78, 1990.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._core.autodiff import reverse_only
from .._core.broadcasting import broadcasting
from .._core.cell import Cell, GatedCell
from .._core.fields import Checked, convert, count, one_of, size
from .._core.live import cut, live, outputs
from .._core.masks import StepMasks, apply_reset, hold_padding, zero_padding
from .._core.preactivations import Preactivations, merge_preactivations
from .._core.sharding import zeros_like
from .._core.trees import cast_like, differentiable
from .._core.types import Inputs, Output, Params, State
from .driver import drop_symbolic_zeros, masked_step, need_gated, num_steps, scan_chunks
from .rows import rows_as_batch


@dataclasses.dataclass(frozen=True)
class BPTT(metaclass=Checked):
    """`lax.scan` with one backward pass for every `GatedCell`.

    The forward pass keeps the state of every step and nothing else (for an LSTM 2 arrays of (T, B, H), where autodiff
    keeps about 14). The backward pass takes one chunk of time after the other: one GEMM recomputes its gates, a scan
    over its steps applies the gradient of the cell's own `transition`, and one GEMM adds to each weight gradient.

    Args:
        chunk: steps in a chunk. Memory grows with it; GEMMs become faster up to about 32.
        keep_gates: keep the preactivations too (G arrays more, a GRU 4), so that no GEMM recomputes them: faster,
            where there is memory for them.
        hoist: steps whose inputs are projected by one GEMM before the loop over them; 0 projects the inputs of every
            step inside the loop. On a CPU it pays for small batches.

    Reverse mode only: for `jax.jvp` and forward mode use `Scan()`. The second order is reverse over reverse,
    `jax.jacrev(jax.grad(f))`, not `jax.hessian`.
    """

    chunk: int = 32
    keep_gates: bool = False
    hoist: int = 0

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, chunk=size, keep_gates=one_of(True, False), hoist=count)

    @rows_as_batch
    def __call__(
        self, cell: Cell, params: Params, state: State, xs: Inputs, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Run `lax.scan`, and keep the states for the backward pass."""
        cell = need_gated(cell, self)
        if not all(differentiable(s) for s in jax.tree.leaves(state)):
            raise ValueError(f"{self} needs a state of floating leaves; {cell} has others too. Use Scan().")
        final, states = trajectory(cell, self, reverse, *reverse_only((params, state, xs, masks), self))
        return final, outputs(cell, params, states, xs, masks)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def trajectory(
    cell: GatedCell, how: BPTT, reverse: bool, params: Params, state: State, xs: Inputs, masks: StepMasks
) -> tuple[State, State]:
    """Return the state after the last step, and the state after every step (T, *batch, ...)."""
    final, (states, _) = _scan(cell, how.hoist, False, reverse, params, state, xs, masks)
    return final, states


def _scan(
    cell: GatedCell, hoist: int, keep: bool, reverse: bool, params: Params, state: State, xs: Inputs, masks: StepMasks
) -> tuple[State, tuple[State, Preactivations | None]]:
    """Return the state after the last step, and the state and, to keep, the preactivations of every step."""
    local = cell.local(params)

    def step(state: State, u: Any) -> tuple[State, Any]:
        v = cell.recur(params, state)
        return cell.advance(local, state, u, v), merge_preactivations(cell, local, state, u, v) if keep else None

    masked = masked_step(step, masks.reset_state)

    def row(state: State, inputs: Any) -> tuple[State, tuple[State, Any]]:
        state, preactivations = masked(state, inputs)
        return state, (state, preactivations)

    def project(inputs: Any) -> Any:
        return cell.project(params, inputs[0]), *inputs[1:]

    inputs = (xs, masks.valid, masks.reset)
    if hoist:
        run = lambda state, rows: lax.scan(row, state, project(rows), reverse=reverse)
        return scan_chunks(run, state, inputs, hoist, reverse)
    return lax.scan(lambda state, inputs: row(state, project(inputs)), state, inputs, reverse=reverse)


@broadcasting
def _forward(cell: GatedCell, how: BPTT, reverse: bool, *primals: Any) -> tuple[Any, Any]:
    arguments = jax.tree.map(lambda p: p.value, primals)
    forward = functools.partial(_scan, cell, how.hoist, how.keep_gates, reverse)
    final, (states, kept) = cut(forward, *arguments, reverse=reverse)
    return (final, states), (*arguments, states, kept)


@broadcasting
def _backward(cell: GatedCell, how: BPTT, reverse: bool, residuals: Any, cotangents: Any) -> Any:
    params, state, xs, masks, states, kept = residuals
    dfinal, dstates = drop_symbolic_zeros(cotangents)
    masks = live(masks, dfinal, dstates, reverse, state, (xs, states))
    xs = xs if masks.reset is None else zero_padding(xs, masks.valid)
    ds = _add(jax.tree.map(zeros_like, state), dfinal)
    local, local_vjp = jax.vjp(cell.local, params)
    zeros = (_wide_zeros(params), _wide_zeros(local), jax.tree.map(zeros_like, masks.reset_state))
    inputs = BackwardInputs(cell, reverse, params, local, state, xs, masks, states, kept, dstates)
    (ds, sums), dxs = _all_chunks(inputs, how.chunk, (ds, zeros))
    dparams, dlocal, dreset_state = sums
    (through_local,) = local_vjp(_cotangents(dlocal, local))
    dparams = _add(_cotangents(dparams, params), through_local)
    return dparams, ds, dxs, StepMasks(None, None, dreset_state)


trajectory.defvjp(_forward, _backward, symbolic_zeros=True)


@dataclasses.dataclass(frozen=True)
class BackwardInputs:
    """What the backward pass takes; `cut` returns a chunk of time of it.

    `preactivations` are those that the forward pass kept, or None.
    """

    cell: GatedCell
    reverse: bool
    params: Params
    local: Any
    state: State
    xs: Inputs
    masks: StepMasks
    states: State
    preactivations: Preactivations | None
    dstates: Any

    def cut(self, start: Any, size: int) -> tuple[Any, State, StepMasks, Preactivations | None, Any]:
        """Return x_t, s_{t-1}, the masks, the preactivations kept and ds_t for `size` steps from `start` on."""
        take = functools.partial(_slice, start=start, size=size)
        masks = StepMasks(take(self.masks.valid), take(self.masks.reset), self.masks.reset_state)
        return take(self.xs), self.previous(start, size), masks, take(self.preactivations), take(self.dstates)

    def previous(self, start: Any, size: int) -> State:
        """Return s_{t-1} of each step: the state of the step before it in time, or the state before the first step."""
        edge = start + size if self.reverse else start - 1
        border = (start + size == num_steps(self.states)) if self.reverse else (start == 0)
        inner = _slice(self.states, start + 1 if self.reverse else start, size - 1)

        def join(before_first: jax.Array, states: jax.Array, inner: jax.Array) -> jax.Array:
            edge_row = lax.dynamic_index_in_dim(states, edge, keepdims=False)
            first = jnp.where(border, before_first, edge_row)[None]
            return jnp.concatenate([inner, first] if self.reverse else [first, inner])

        return jax.tree.map(join, self.state, self.states, inner)


def _all_chunks(inputs: BackwardInputs, chunk: int, carry: Any) -> tuple[Any, Any]:
    """Differentiate all chunks, the last in time first. The first T % chunk steps make a shorter chunk."""
    length = num_steps(inputs.states)
    rest = length % chunk
    dxs = jax.tree.map(lambda x: zeros_like(x) if differentiable(x) else None, inputs.xs)
    count = length // chunk

    def one(i: Any, carry: Any) -> Any:
        carry, dxs = carry
        start = rest + chunk * (i if inputs.reverse else count - 1 - i)
        carry, dx = _chunk(inputs, start, chunk, carry)
        return carry, _put(dxs, dx, start)

    def left_over(carry: Any, dxs: Any) -> Any:
        if not rest:
            return carry, dxs
        carry, dx = _chunk(inputs, 0, rest, carry)
        return carry, _put(dxs, dx, 0)

    def whole(carry: Any, dxs: Any) -> Any:
        return lax.fori_loop(0, count, one, (carry, dxs)) if count else (carry, dxs)

    for part in (left_over, whole) if inputs.reverse else (whole, left_over):
        carry, dxs = part(carry, dxs)
    return carry, dxs


def _chunk(inputs: BackwardInputs, start: Any, size: int, carry: Any) -> tuple[Any, Any]:
    """Differentiate one chunk: from ds after it to ds before it, adding to the sums of gradients."""
    cell, params = inputs.cell, inputs.params
    ds, (dparams, dlocal, dreset_state) = carry
    xs, previous, masks, kept, dstates = inputs.cut(start, size)
    previous, kept = zero_padding((previous, kept), masks.valid)
    reset_one = lambda s, valid, reset: apply_reset(s, StepMasks(valid, reset, masks.reset_state))
    entered = jax.vmap(reset_one)(previous, masks.valid, masks.reset)
    if kept is None:
        kept = jax.vmap(functools.partial(merge_preactivations, cell, inputs.local))(
            entered, cell.project(params, xs), cell.recur(params, entered)
        )
    each = StepMasks(masks.valid, masks.reset, None)

    def backward_step(carry: Any, row: Any) -> tuple[Any, Preactivations]:
        ds, dlocal, dreset_state = carry
        preactivations, s, step_masks, dstate = row
        dl, ds, dr, dpre = _step_vjp(inputs, s, preactivations, step_masks, _add(ds, dstate))
        recur = lambda s, reset_state: cell.recur(params, apply_reset(s, step_masks._replace(reset_state=reset_state)))
        v, recur_vjp = jax.vjp(recur, s, masks.reset_state)
        ds_v, dr_v = recur_vjp(cast_like(dpre.recurrent_cotangents(), v))
        sums = _add(dlocal, dl), _add(_add(dreset_state, dr), dr_v)
        return (_add(ds, ds_v), *sums), dpre

    (ds, dlocal, dreset_state), dpre = lax.scan(
        backward_step, (ds, dlocal, dreset_state), (kept, previous, each, dstates), reverse=not inputs.reverse
    )
    dp, dxs = _weights_vjp(cell, params, xs, entered, dpre)
    return (ds, (_add(dparams, dp), dlocal, dreset_state)), dxs


def _step_vjp(inputs: BackwardInputs, s: State, preactivations: Preactivations, masks: StepMasks, ds: State) -> Any:
    """Return the cotangents of the local params, s_{t-1}, the reset state and the preactivations of one step."""

    def transition(local: Any, s: State, reset_state: State, preactivations: Preactivations) -> State:
        step_masks = masks._replace(reset_state=reset_state)
        old = apply_reset(s, step_masks)
        new = inputs.cell.advance(local, old, preactivations.u, preactivations.recurrent_inputs())
        return hold_padding(new, old, step_masks)

    return jax.vjp(transition, inputs.local, s, inputs.masks.reset_state, preactivations)[1](ds)


def _weights_vjp(
    cell: GatedCell, params: Params, xs: Inputs, entered: State, dpre: Preactivations
) -> tuple[Params, Inputs]:
    """Return the cotangents of params and inputs for a chunk: one GEMM for each weight."""
    us, project_vjp = jax.vjp(cell.project, params, xs)
    vs, recur_vjp = jax.vjp(lambda p: cell.recur(p, entered), params)
    dp, dxs = project_vjp(cast_like(dpre.u, us))
    dxs = jax.tree.map(lambda dx, x: dx if differentiable(x) else None, dxs, xs)
    return _add(dp, recur_vjp(cast_like(dpre.recurrent_cotangents(), vs))[0]), dxs


def _slice(tree: Any, start: Any, size: int) -> Any:
    return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, size), tree)


def _put(tree: Any, rows: Any, start: Any) -> Any:
    return jax.tree.map(lambda a, r: lax.dynamic_update_slice_in_dim(a, r, start, 0), tree, rows)


def _add(a: Any, b: Any) -> Any:
    """Return a + b in the dtype of a; None and float0 in b stand for zero."""
    no = lambda b: b is None or b.dtype == jax.dtypes.float0
    return jax.tree.map(lambda a, b: a if no(b) else a + b.astype(a.dtype), a, b, is_leaf=lambda x: x is None)


def _wide_zeros(tree: Any) -> Any:
    """Return zeros to sum in, float32 for narrower dtypes; one number for a leaf without a gradient."""
    zeros = lambda a: zeros_like(a, a.dtype if a.dtype.itemsize >= 4 else jnp.float32)
    return jax.tree.map(lambda a: zeros(a) if differentiable(a) else jnp.zeros(()), tree)


def _cotangents(sums: Any, like: Any) -> Any:
    """Return sums as cotangents of `like`: in its dtypes, float0 for leaves without a gradient."""
    one = lambda d, p: d.astype(p.dtype) if differentiable(p) else np.zeros(p.shape, jax.dtypes.float0)
    return jax.tree.map(one, sums, like)
