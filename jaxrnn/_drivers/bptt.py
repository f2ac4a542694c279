"""Back-propagation through time for every gated cell: keep the state, walk back in chunks of time.

Reference: Werbos, "Backpropagation through time: what it does and how to do it", Proc. IEEE 78, 1990.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._core.autodiff import reverse_only
from .._core.broadcasting import broadcasting
from .._core.cell import Cell, GatedCell
from .._core.fields import Checked, convert, count, one_of, size
from .._core.masks import StepMasks, apply_reset, hold_padding, zero_padding
from .._core.preactivations import Preactivations, merge_preactivations
from .._core.sharding import rows_of, zeros_like
from .._core.trees import cast_like, differentiable
from .._core.types import Output, Params, State
from .driver import drop_symbolic_zeros, gated, masked_step, scan_chunks, steps
from .live import cut, live, outputs


@dataclasses.dataclass(frozen=True)
class BPTT(metaclass=Checked):
    """`lax.scan` with a backward pass of our own, one for every `GatedCell`.

    Forward, it keeps the state of every step and nothing else (for an LSTM 2 arrays of (T, B, H), where autodiff
    keeps about 14). Backward, it takes a chunk of time at once: one GEMM recomputes its gates, a scan walks back
    through its steps by the gradient of the cell's own `transition`, and one GEMM adds to each weight gradient.

    Args:
        chunk: steps in a chunk. Memory grows with it; GEMMs become better up to about 32.
        keep_gates: keep what the gates are made of too (G arrays more, a GRU 4), so that no GEMM recomputes it: the
            faster way where there is room for it.
        hoist: steps whose inputs are projected by one GEMM before they are crossed; 0 lets every step project its own.
            On a CPU it pays for small batches.

    Reverse mode only: for `jax.jvp` and forward mode use `Scan()`. second order is reverse over
    reverse, `jax.jacrev(jax.grad(f))`, not `jax.hessian`.
    """

    chunk: int = 32
    keep_gates: bool = False
    hoist: int = 0

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, chunk=size, keep_gates=one_of(True, False), hoist=count)

    def __call__(
        self, cell: Cell, params: Params, state: State, xs: Any, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Cross time, and remember the states for the way back."""
        cell = gated(cell, self)
        if not all(differentiable(s) for s in jax.tree.leaves(state)):
            raise ValueError(f"{self} needs a state of floating leaves; {cell} keeps others too. Use Scan().")
        final, states = trajectory(cell, self, reverse, *reverse_only((params, state, xs, masks), self))
        return final, outputs(cell, params, states, xs, masks)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def trajectory(
    cell: GatedCell, how: BPTT, reverse: bool, params: Params, state: State, xs: Any, masks: StepMasks
) -> tuple[State, State]:
    """Give the state after the last step, and the state after every step (T, *batch, ...)."""
    final, (states, _) = _scan(cell, how.hoist, False, reverse, params, state, xs, masks)
    return final, states


def _scan(
    cell: GatedCell, hoist: int, keep: bool, reverse: bool, params: Params, state: State, xs: Any, masks: StepMasks
) -> tuple[State, tuple[State, Preactivations | None]]:
    """Give the state after the last step, and of every step the state and, to keep, the terms of its gates."""
    local = cell.local(params)

    def step(state: State, u: Any) -> tuple[State, Any]:
        v = cell.recur(params, state)
        return cell.advance(local, state, u, v), merge_preactivations(cell, local, state, u, v) if keep else None

    masked = masked_step(step, masks.reset_state)

    def row(state: State, inputs: Any) -> tuple[State, tuple[State, Any]]:
        state, terms = masked(state, inputs)
        return state, (state, terms)

    def project(inputs: Any) -> Any:
        return cell.project(params, inputs[0]), *inputs[1:]

    inputs = (xs, masks.valid, masks.reset)
    if hoist:
        cross = lambda state, rows: lax.scan(row, state, project(rows), reverse=reverse)
        return scan_chunks(cross, state, inputs, hoist, reverse)
    return lax.scan(lambda state, inputs: row(state, project(inputs)), state, inputs, reverse=reverse)


@broadcasting
def _forward(cell: GatedCell, how: BPTT, reverse: bool, *primals: Any) -> tuple[Any, Any]:
    arguments = jax.tree.map(lambda p: p.value, primals)
    forward = functools.partial(_scan, cell, how.hoist, how.keep_gates, reverse)
    final, (states, terms) = cut(forward, *arguments, reverse=reverse)
    return (final, states), (*arguments, states, terms)


@broadcasting
def _backward(cell: GatedCell, how: BPTT, reverse: bool, residuals: Any, cotangents: Any) -> Any:
    params, state, xs, masks, states, terms = residuals
    dfinal, dstates = drop_symbolic_zeros(cotangents)
    masks = live(masks, dfinal, dstates, reverse, state, (xs, states))
    xs = xs if masks.reset is None else zero_padding(xs, masks.valid)
    ds = _add(jax.tree.map(zeros_like, state), dfinal)
    local, local_vjp = jax.vjp(cell.local, params)
    zeros = (_wide_zeros(params), _wide_zeros(local), jax.tree.map(zeros_like, masks.reset_state))
    rows = BackwardInputs(cell, reverse, params, local, state, xs, masks, states, terms, dstates)
    (ds, sums), dxs = _walk(rows, how.chunk, (ds, zeros))
    dparams, dlocal, dinitial = sums
    (through_local,) = local_vjp(cast_like(dlocal, local))
    dparams = _add(cast_like(dparams, params), through_local)
    return dparams, ds, dxs, StepMasks(None, None, dinitial)


trajectory.defvjp(_forward, _backward, symbolic_zeros=True)


@dataclasses.dataclass(frozen=True)
class BackwardInputs:
    """All that the way back looks at; `cut` takes a chunk of time out of it."""

    cell: GatedCell
    reverse: bool
    params: Params
    local: Any
    state: State
    xs: Any
    masks: StepMasks
    states: State
    terms: Preactivations | None
    dstates: Any

    def cut(self, start: Any, size: int) -> tuple[Any, State, StepMasks, Preactivations | None, Any]:
        """Give x_t, s_{t-1}, the masks, the terms kept and ds_t for `size` steps from `start` on."""
        take = functools.partial(_slice, start=start, size=size)
        masks = StepMasks(take(self.masks.valid), take(self.masks.reset), self.masks.reset_state)
        return take(self.xs), self.previous(start, size), masks, take(self.terms), take(self.dstates)

    def previous(self, start: Any, size: int) -> State:
        """Give the states that the steps came from: one step aside, and at the border the state handed in."""
        edge = start + size if self.reverse else start - 1
        border = (start + size == steps(self.states)) if self.reverse else (start == 0)
        inner = _slice(self.states, start + 1 if self.reverse else start, size - 1)

        def join(handed_in: jax.Array, states: jax.Array, inner: jax.Array) -> jax.Array:
            edge_row = lax.dynamic_index_in_dim(states, edge, keepdims=False)
            first = jnp.where(border, handed_in, edge_row)[None]
            return jnp.concatenate([inner, first] if self.reverse else [first, inner])

        return jax.tree.map(join, self.state, self.states, inner)


def _walk(rows: BackwardInputs, chunk: int, carry: Any) -> tuple[Any, Any]:
    """Walk back over all chunks. The first steps left over by whole chunks make a chunk of their own."""
    length = steps(rows.states)
    rest = length % chunk
    dxs = jax.tree.map(lambda x: zeros_like(x) if differentiable(x) else None, rows.xs)
    count = length // chunk

    def one(i: Any, carry: Any) -> Any:
        carry, dxs = carry
        start = rest + chunk * (i if rows.reverse else count - 1 - i)
        carry, dx = _chunk(rows, start, chunk, carry)
        return carry, _put(dxs, dx, start)

    def left_over(carry: Any, dxs: Any) -> Any:
        if not rest:
            return carry, dxs
        carry, dx = _chunk(rows, 0, rest, carry)
        return carry, _put(dxs, dx, 0)

    def whole(carry: Any, dxs: Any) -> Any:
        return lax.fori_loop(0, count, one, (carry, dxs)) if count else (carry, dxs)

    for part in (left_over, whole) if rows.reverse else (whole, left_over):
        carry, dxs = part(carry, dxs)
    return carry, dxs


def _chunk(rows: BackwardInputs, start: Any, size: int, carry: Any) -> tuple[Any, Any]:
    """Walk back over one chunk: from ds after it to ds before it, adding to the sums of gradients."""
    cell, params = rows.cell, rows.params
    ds, (dparams, dlocal, dinitial) = carry
    xs, previous, masks, terms, dstates = rows.cut(start, size)
    previous, terms = zero_padding((previous, terms), masks.valid)
    into = lambda s, valid, reset: apply_reset(s, StepMasks(valid, reset, masks.reset_state))
    entered = jax.vmap(into)(previous, masks.valid, masks.reset)
    if terms is None:
        terms = jax.vmap(functools.partial(merge_preactivations, cell, rows.local))(
            entered, cell.project(params, xs), cell.recur(params, entered)
        )
    each = StepMasks(masks.valid, masks.reset, None)

    def back(carry: Any, row: Any) -> tuple[Any, Preactivations]:
        ds, dlocal, dinitial = carry
        terms, s, mark, dstate = row
        dl, ds, d0, dterms = _pull(rows, s, terms, mark, _add(ds, dstate))
        recur = lambda s, initial: cell.recur(params, apply_reset(s, mark._replace(reset_state=initial)))
        v, recur_vjp = jax.vjp(recur, s, masks.reset_state)
        ds_v, d0_v = recur_vjp(cast_like(dterms.recurrent_cotangents(), v))
        sums = _add(dlocal, dl), _add(_add(dinitial, d0), d0_v)
        return (_add(ds, ds_v), *sums), dterms

    (ds, dlocal, dinitial), dterms = lax.scan(
        back, (ds, dlocal, dinitial), (terms, previous, each, dstates), reverse=not rows.reverse
    )
    dp, dxs = _through_weights(cell, params, xs, entered, dterms)
    return (ds, (_add(dparams, dp), dlocal, dinitial)), dxs


def _pull(rows: BackwardInputs, s: State, terms: Preactivations, mark: StepMasks, ds: State) -> Any:
    """Pull ds_t back through one step's transition: to the local params, s_{t-1}, the initial state and the terms."""

    def transition(local: Any, s: State, initial: State, terms: Preactivations) -> State:
        masks = mark._replace(reset_state=initial)
        old = apply_reset(s, masks)
        return hold_padding(rows.cell.advance(local, old, terms.u, terms.recurrent_inputs()), old, masks)

    return jax.vjp(transition, rows.local, s, rows.masks.reset_state, terms)[1](ds)


def _through_weights(
    cell: GatedCell, params: Params, xs: Any, entered: State, dterms: Preactivations
) -> tuple[Params, Any]:
    """Give a chunk's gradients for params and inputs. Time and batch are one axis, so each is one plain GEMM."""
    flat = functools.partial(jax.tree.map, rows_of)
    us, project_vjp = jax.vjp(cell.project, params, flat(xs))
    vs, recur_vjp = jax.vjp(lambda p: cell.recur(p, flat(entered)), params)
    dp, dxs = project_vjp(cast_like(flat(dterms.u), us))
    dxs = jax.tree.map(lambda dx, x: dx.reshape(x.shape) if differentiable(x) else None, dxs, xs)
    return _add(dp, recur_vjp(cast_like(flat(dterms.recurrent_cotangents()), vs))[0]), dxs


def _slice(tree: Any, start: Any, size: int) -> Any:
    return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, size), tree)


def _put(tree: Any, rows: Any, start: Any) -> Any:
    return jax.tree.map(lambda a, r: lax.dynamic_update_slice_in_dim(a, r, start, 0), tree, rows)


def _add(a: Any, b: Any) -> Any:
    """a + b in the dtype of a, None in b standing for zero."""
    return jax.tree.map(lambda a, b: a if b is None else a + b.astype(a.dtype), a, b, is_leaf=lambda x: x is None)


def _wide_zeros(tree: Any) -> Any:
    """Zeros to sum in: float32 for narrower dtypes."""
    return jax.tree.map(lambda a: zeros_like(a, a.dtype if a.dtype.itemsize >= 4 else jnp.float32), tree)
