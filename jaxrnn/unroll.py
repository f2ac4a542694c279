"""Crossing time: the checks, the padding, and what each part of a composite is handed."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .cell import Cell, GatedCell, GatedParams, Marks, Output, Params, State, before, boundaries, cast, where
from .compose import Composite
from .drivers import Driver, Loop
from .mesh import lift
from .select import select


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
        resets: booleans (T, *batch): true at t marks a boundary between t - 1 and t, where the state becomes
            `cell.initial_state(params)` whatever it was; before x_t is consumed. With `reverse` the same boundary
            holds between the same two steps. A boundary inside a gap of `mask` counts at the next step that counts.
            Nothing before a boundary reaches a gradient of what comes after it, NaN included.
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
    on_host = lambda m: m if m is None or isinstance(m, jax.Array) else np.asarray(m)
    lengths, mask, resets = map(on_host, (lengths, mask, resets))
    batch = _check(cell, xs, lengths, mask, resets, driver)
    cross = _cross if isinstance(driver, Loop) else _compiled
    dtype = None if state_dtype is None else jnp.dtype(state_dtype)
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
    xs = _cleared(xs, valid)
    initial = cast(cell.initial_state(params, batch), state_dtype)
    if state is None:
        state = initial
    else:
        state = jax.tree.map(jnp.asarray, state)
        _check_state(cell, batch, state, initial)
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
        _check_params(cell, params)
        params, state, initial = lift((params, state, initial), xs, len(batch))
        fresh = None if resets is None else boundaries(jnp.asarray(resets), valid, rev)
        marks = Marks(valid, fresh, None if fresh is None else initial)
        with jax.named_scope(type(cell).__name__):
            state, ys = _driver(cell, params, state, xs, driver)(cell, params, state, xs, marks, reverse=rev)
        return state, _cleared(ys, valid)

    return run(cell, params, state, initial, xs, key, rev=reverse)


_compiled = jax.jit(_cross, static_argnames=("cell", "batch", "reverse", "state_dtype", "driver"))


def _driver(cell: Cell, params: Params, state: State, xs: Any, driver: Driver | None) -> Driver:
    """The driver named, or the one that `select` chooses."""
    if driver is not None:
        return driver
    dtypes = {a.dtype for a in jax.tree.leaves((params, state))}
    dtype = dtypes.pop() if len(dtypes) == 1 else None
    return select(cell, jax.tree.leaves(xs)[0].shape, dtype, jax.default_backend(), state)


def _cleared(tree: Any, valid: jax.Array | None) -> Any:
    """Zero in the padding, whatever stood there."""
    return tree if valid is None else where(valid, tree, jax.tree.map(jnp.zeros_like, tree))


def _check(cell: Any, xs: Any, lengths: Any, mask: Any, resets: Any, driver: Any) -> tuple[int, ...]:
    """Give the batch axes; raise what does not fit."""
    if isinstance(cell, type) or not isinstance(cell, Cell | Composite):
        raise ValueError(
            f"unroll needs a cell (init, initial_state, step) or a composite; got {cell!r}. An instance, not a class: "
            "LSTM(128), not LSTM."
        )
    if isinstance(driver, type) or not (driver is None or callable(driver)):
        raise ValueError(f"driver is a driver such as Scan() or BPTT(), or None; got {driver!r}")
    shapes = [np.shape(x) for x in jax.tree.leaves(xs)]
    if not shapes or any(len(shape) < 2 for shape in shapes) or len({shape[:-1] for shape in shapes}) > 1:
        raise ValueError(
            f"xs must be (T, *batch, D), or a pytree of arrays that agree in all but D; got shapes {shapes}. One "
            "sequence of T scalars is xs[:, None]."
        )
    length, *axes = shapes[0][:-1]
    batch = tuple(axes)
    _check_marks(length, batch, lengths, {"mask": mask, "resets": resets})
    return batch


def _check_marks(length: Any, batch: tuple[int, ...], lengths: Any, flags: dict[str, Any]) -> None:
    """Raise unless lengths (*batch) are integers, and mask and resets (T, *batch) booleans."""
    if lengths is not None:
        if lengths.shape != batch or not jnp.issubdtype(lengths.dtype, jnp.integer):
            raise ValueError(
                f"lengths must be integers of shape {batch}, one for each row; got {lengths.dtype} {lengths.shape}"
            )
        if isinstance(lengths, np.ndarray) and lengths.size and not 0 <= lengths.min() <= lengths.max() <= length:
            raise ValueError(f"lengths must lie between 0 and T={length}; got {lengths.min()} to {lengths.max()}")
    for name, flag in flags.items():
        if flag is not None and (flag.shape != (length, *batch) or flag.dtype != jnp.dtype(bool)):
            raise ValueError(
                f"{name} must be booleans of shape {(length, *batch)}, (T, *batch); got {flag.dtype} {flag.shape}. "
                f"From numbers: {name}.astype(bool)."
            )


def _check_state(cell: Any, batch: tuple[int, ...], state: State, needed: State) -> None:
    """Raise unless the state has the structure, the shapes and the kinds of number of the cell's own."""
    kind = lambda a: (a.shape, jnp.issubdtype(a.dtype, jnp.inexact))
    fits = jax.tree.structure(state) == jax.tree.structure(needed)  # type: ignore[operator]
    if not fits or [*map(kind, jax.tree.leaves(state))] != [*map(kind, jax.tree.leaves(needed))]:
        needed, state = (jax.tree.map(lambda a: f"{a.dtype}{list(a.shape)}", tree) for tree in (needed, state))
        raise ValueError(
            f"the state of {type(cell).__name__} for a batch of {batch} is {needed}; got {state}. Start from "
            f"cell.initial_state(params, {batch})."
        )


def _check_params(cell: Any, params: Params) -> None:
    """Raise unless the params of a gated cell have the structure and the shapes that its `init` gives them."""
    if not isinstance(cell, GatedCell) or not isinstance(params, GatedParams):
        return
    shapes = lambda tree: jax.tree.map(lambda a: str(list(a.shape)), tree)
    needed = shapes(jax.eval_shape(lambda k: cell.init(k, params.w_x.shape[0]), jax.random.key(0)))
    if shapes(params) != needed or jax.tree.structure(params.local) != jax.tree.structure(needed.local):  # type: ignore[operator]
        raise ValueError(
            f"the params are not those of {cell}: it needs {needed}; got {shapes(params)}. Make them with "
            "cell.init(key, in_dim), or take the cell that they were made for."
        )
