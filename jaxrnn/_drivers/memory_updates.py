"""The updates of a matrix memory over some steps, with what masks and a common exponent make of them.

G steps in running order, B batch, N heads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .._core.affine_cell import shifted
from .._core.masks import StepMasks, zero_padding
from .._core.matrix_cell import MatrixState, MemoryUpdate, need_log_scale, write_scaled
from .._core.trees import where

Pair = tuple[jax.Array, jax.Array]


class NotFinite(NamedTuple):
    """Which results must be NaN: what queries read at each step (G, *batch, N), and the last state (*batch, N)."""

    steps: jax.Array
    state: jax.Array


def without_padding(update: MemoryUpdate, valid: jax.Array | None) -> MemoryUpdate:
    """Return updates that change nothing, and read nothing, where `valid` is false."""
    if valid is None:
        return update
    strength = update.log_strength
    update = zero_padding(update._replace(log_strength=None), valid)
    if strength is None:
        return update
    return update._replace(log_strength=where(valid, strength, jnp.full_like(strength, -jnp.inf)))


def quarantine(
    update: MemoryUpdate, state: MatrixState, masks: StepMasks
) -> tuple[MemoryUpdate, MatrixState, NotFinite]:
    """Return finite updates and a finite state, and which results they must not decide.

    A matmul multiplies a NaN before a reset by zero, which is NaN after it. So numbers that are not finite are replaced
    by zeros here, and the later results up to the next reset are made NaN.
    """
    bad = _not_finite((update.key, update.value, update.log_decay, update.erase), update.query.ndim - 1)
    if update.log_strength is not None:
        bad |= jnp.isnan(update.log_strength) | (update.log_strength == jnp.inf)
    start = _not_finite(state, state.memory.ndim - 2)
    zeros = lambda tree: jax.tree.map(jnp.zeros_like, tree)
    clean = where(~bad, update, zeros(update))._replace(query=update.query)

    def both(a: Pair, b: Pair) -> Pair:
        return a[0] & b[0], (a[1] & b[0]) | b[1]

    assert masks.reset is not None
    kept = jnp.broadcast_to(~masks.reset[..., None], bad.shape)
    kept, reached = lax.associative_scan(both, (kept, bad))
    reached |= kept & start
    steps = reached if masks.valid is None else reached & masks.valid[..., None]
    return clean, where(~start, state, zeros(state)), NotFinite(steps, reached[-1])


def spoil(tree: Any, bad: jax.Array) -> Any:
    """Return the arrays (*bad.shape, ...) with NaN where `bad`, for the gradient too."""
    nan = lambda a: jnp.where(bad, jnp.nan, 1).astype(a.dtype).reshape(bad.shape + (1,) * (a.ndim - bad.ndim))
    return jax.tree.map(lambda a: a * nan(a), tree)


def rescale(update: MemoryUpdate, log_scale: Any, masks: StepMasks) -> tuple[MemoryUpdate, Any]:
    """Return the updates of the scaled memory, and the log_scale after each step: see `matrix_cell.rescaled`.

    `log_scale` is that before the first step; () for a cell without one.
    """
    if update.log_strength is None:
        return update, log_scale
    log_scale = need_log_scale(log_scale)
    between, largest = scale_pairs(update.log_decay[..., 0], update.log_strength, masks)
    scales = jnp.maximum(between + log_scale, largest)
    before = shifted(scales, log_scale, False)
    if masks.reset is not None:
        before = where(masks.reset, jnp.broadcast_to(masks.reset_state.log_scale, before.shape), before)
    return write_scaled(update, update.log_decay[..., 0] + before - scales, update.log_strength - scales), scales


def scale_pairs(between: jax.Array, largest: jax.Array, masks: StepMasks) -> Pair:
    """Return (g, m), each (G, *batch, N): log_scale after each step is max(g + log_scale before the first, m).

    Args:
        between: log a of each step.
        largest: log w of each step.
        masks: the masks of the steps.
    """
    if masks.reset is not None:
        again = between + masks.reset_state.log_scale
        largest = where(masks.reset, jnp.maximum(again, largest), largest)
        between = where(masks.reset, jnp.full_like(between, -jnp.inf), between)
    return lax.associative_scan(both_scales, (between, largest))


def both_scales(a: Pair, b: Pair) -> Pair:
    """Return the pair (g, m) of earlier steps and later ones."""
    return a[0] + b[0], jnp.maximum(a[1] + b[0], b[1])


def _not_finite(tree: Any, axes: int) -> jax.Array:
    """Return whether any number of the leaves is not finite, for each entry of their first `axes` axes."""
    leaves = jax.tree.leaves(tree)
    found = [~jnp.isfinite(leaf).all(axis=tuple(range(axes, leaf.ndim))) for leaf in leaves]
    return jnp.stack(found).any(axis=0)
