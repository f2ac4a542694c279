"""Crossing time: the checks, the padding, and what each part of a composite is handed."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from . import checks
from .broadcasting import broadcasting
from .cell import Cell, Output, Params, State
from .compose import Composite
from .drivers import Driver, Loop
from .marks import Marks, before, boundaries, hide_padding
from .mesh import lift
from .select import select
from .trees import cast


@broadcasting
def unroll(
    cell: Any,
    params: Params,
    xs: Any,
    state: State = None,
    *,
    lengths: Any = None,
    mask: Any = None,
    resets: Any = None,
    reverse: bool = False,
    key: jax.Array | None = None,
    state_dtype: Any = None,
    driver: Driver | None = None,
) -> tuple[State, Output]:
    """Cross time with a cell or a composite: `lax.scan`'s order, time first.

    Args:
        cell: a `Cell`, or a composite such as `Stack` and `Bidirectional`.
        params: from `cell.init(key, in_dim)`. They decide the dtype of matmuls and outputs; xs are cast to it.
        xs: inputs (T, *batch, D), any number of batch axes, none included; or a pytree of such arrays.
        state: the state before the first step, each leaf (*batch, ...); None takes `cell.initial_state(params, batch)`.
        lengths: integers (*batch): step t of row b counts where t < lengths[b]. Past it the state is frozen, the
            output is zero, and nothing in the padding reaches an output or a gradient (of a cell that is
            differentiable at an input of zeros). Length 0 gives back the state handed in. NumPy arrays and lists are
            checked to lie between 0 and T; values on a device are taken at their word.
        mask: booleans (T, *batch): a step where it is false leaves the state as it is, yields zeros, and is padding
            in every other way: padding on the left, or gaps. With `lengths`, a step counts where both say so.
        resets: booleans, or numbers 0 and 1, (T, *batch): true at t marks a boundary between t - 1 and t, where the
            state becomes `cell.initial_state(params)` whatever it was; before x_t is consumed. With `reverse` the same
            boundary holds between the same two steps. A boundary inside a gap of `mask` counts at the next step that
            counts. Nothing before a boundary reaches a gradient of what comes after it, NaN included. Numbers on a
            device are not checked: all but 0 are true.
        reverse: cross from the last step to the first; the output of step t stays at t.
        key: what dropout and zoneout draw from; None is deterministic.
        state_dtype: what the state is kept in, if not in the dtype that it comes with: `jnp.float32` for a
            bfloat16 run.
        driver: how to cross time; None asks `select` for each leaf.

    Returns:
        The state after the last step, and the outputs (T, *batch, H): what `cell.step` puts out at every step.

    Raises:
        ValueError: if shapes, dtypes or structures do not fit; it says which, and how to mend it.

    >>> cell = LSTM(8)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, ys = unroll(cell, params, jnp.ones((10, 2, 3)), lengths=jnp.array([10, 4]))
    >>> state.h.shape, ys.shape
    ((2, 8), (10, 2, 8))
    """
    checks.check_cell(cell, Cell | Composite, "unroll")
    checks.check_driver(driver)
    checks.check_key(key)
    length, batch = checks.check_inputs(xs)
    xs, params, state = (checks.as_numbers(*pair) for pair in (("xs", xs), ("params", params), ("state", state)))
    lengths = checks.as_lengths(lengths, length, batch)
    mask, resets = (checks.as_flags(*pair, length, batch) for pair in (("mask", mask), ("resets", resets)))
    dtype = checks.float_kind("state_dtype", state_dtype)
    cross = _cross if isinstance(driver, Loop) else _compiled
    return cross(cell, params, xs, state, lengths, mask, resets, key, batch, bool(reverse), dtype, driver)


def _cross(
    cell: Any,
    params: Params,
    xs: Any,
    state: State,
    lengths: Any,
    mask: Any,
    resets: Any,
    key: jax.Array | None,
    batch: tuple[int, ...],
    reverse: bool,
    state_dtype: Any,
    driver: Driver | None,
) -> tuple[State, Output]:
    """`unroll` behind its checks."""
    xs, params = jax.tree.map(jnp.asarray, (xs, params))
    length = jax.tree.leaves(xs)[0].shape[0]
    valid = None if lengths is None else before(lengths, length)
    if mask is not None:
        valid = jnp.asarray(mask) if valid is None else valid & mask
    xs = hide_padding(xs, valid)
    checks.check_params(cell, params, jax.tree.leaves(xs)[0].shape[-1])
    initial = cast(cell.initial_state(params, batch), state_dtype)
    if state is None:
        state = initial
    else:
        state = jax.tree.map(jnp.asarray, state)
        checks.check_state(cell, batch, state, initial)
        state = cast(state, state_dtype)
    initial = jax.tree.map(lambda i, s: i.astype(s.dtype), initial, state)

    def run(
        cell: Any,
        params: Params,
        state: State,
        initial: State,
        xs: Any,
        key: Any,
        *,
        flip: bool = False,
        rev: bool,
    ) -> tuple[State, Output]:
        rev = rev != flip
        if isinstance(cell, Composite):
            return cell.cross(functools.partial(run, rev=rev), params, state, initial, xs, key)
        params, state, initial = lift((params, state, initial), xs, len(batch))
        fresh = None if resets is None else boundaries(jnp.asarray(resets), valid, rev)
        marks = Marks(valid, fresh, None if fresh is None else initial)
        with jax.named_scope(type(cell).__name__):
            state, ys = _driver(cell, params, state, xs, driver)(cell, params, state, xs, marks, reverse=rev)
        return state, hide_padding(ys, valid)

    return run(cell, params, state, initial, xs, key, rev=reverse)


_compiled = jax.jit(_cross, static_argnames=("cell", "batch", "reverse", "state_dtype", "driver"))


def _driver(cell: Cell, params: Params, state: State, xs: Any, driver: Driver | None) -> Driver:
    """The driver named, or the one that `select` chooses."""
    if driver is not None:
        return driver
    dtypes = {a.dtype for a in jax.tree.leaves((params, state))}
    dtype = dtypes.pop() if len(dtypes) == 1 else None
    return select(cell, jax.tree.leaves(xs)[0].shape, dtype, jax.default_backend(), state)
