"""`unroll` with the options of flax's `RNN`: what `NnxRNN` and `LinenRNN` call."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..._core.cell import Cell
from ..._core.composite import Composite
from ..._core.types import Inputs, Output, Params, State
from ..._unroll import unroll


def unroll_module(
    cell: Cell | Composite,
    params: Params,
    xs: Inputs,
    state: State,
    *,
    time_major: bool,
    return_carry: bool,
    keep_order: bool,
    lengths: ArrayLike | None,
    resets: ArrayLike | None,
    reverse: bool,
    **keywords: Any,
) -> tuple[State, Output] | Output:
    """Run a cell over time in the layout of a flax module; `keywords` are passed on to `unroll`."""
    if not time_major:
        xs = jax.tree.map(lambda x: jnp.moveaxis(x, -2, 0) if np.ndim(x) > 1 else x, xs)
        resets = None if resets is None else jnp.moveaxis(jnp.asarray(resets), -1, 0)
    state, ys = unroll(cell, params, xs, state, lengths=lengths, resets=resets, reverse=reverse, **keywords)
    if reverse and not keep_order:
        ys = jax.tree.map(functools.partial(_in_order_of_computation, lengths), ys)
    if not time_major:
        ys = jax.tree.map(lambda y: jnp.moveaxis(y, 0, -2), ys)
    return (state, ys) if return_carry else ys


def _in_order_of_computation(lengths: ArrayLike | None, ys: jax.Array) -> jax.Array:
    """Return outputs (T, *batch, H) of a reversed run, the last valid step first; padding stays at the end."""
    if lengths is None:
        return ys[::-1]
    lengths = jnp.asarray(lengths)
    t = jnp.arange(len(ys)).reshape(-1, *[1] * lengths.ndim)
    return jnp.take_along_axis(ys, ((lengths - 1 - t) % max(1, len(ys)))[..., None], axis=0)
