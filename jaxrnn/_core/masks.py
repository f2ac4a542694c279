"""Which steps count and where the state is reset: one rule, as functions that every driver calls around its step.

T time, B batch (any number of leading axes).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .trees import Tree, cast_like, where

State = Any  # a pytree of arrays, each (*batch, features)


class StepMasks(NamedTuple):
    """Which steps count and before which the state is reset; a driver hands each step its row.

    Attributes:
        valid: (T, *batch) bool, false in the padding; None where there is none.
        reset: (T, *batch) bool, true where the state is reset before this step; None where it never is.
        initial: the state that a reset puts in its place; None where there is none.
    """

    valid: jax.Array | None = None
    reset: jax.Array | None = None
    reset_state: State = None


def apply_reset(state: State, masks: StepMasks) -> State:
    """Return the state that a step starts from: the initial state where it is reset."""
    if masks.reset is None:
        return state
    return where(masks.reset, masks.reset_state, state)


def zero_padding(tree: Tree, valid: jax.Array | None) -> Tree:
    """Return a tree of arrays (*valid.shape, ...) with zeros where `valid` is false, whatever stood there."""
    return tree if valid is None else where(valid, tree, jax.tree.map(jnp.zeros_like, tree))


def hold_padding(new: State, old: State, masks: StepMasks) -> State:
    """Return the state that a step ends with: the old one where the step is padding. It keeps its dtype."""
    new = cast_like(new, old)
    if masks.valid is None:
        return new
    return where(masks.valid, new, old)


def length_mask(lengths: Any, time: int) -> jax.Array:
    """Return (T, *batch) for lengths (*batch): whether t < lengths[b]. Narrow integers are widened, lest t overflow."""
    lengths = jnp.asarray(lengths).astype(jnp.int32)
    return jnp.arange(time, dtype=jnp.int32).reshape(time, *[1] * lengths.ndim) < lengths


def reset_boundaries(resets: jax.Array, valid: jax.Array | None, reverse: bool) -> jax.Array:
    """Return (T, *batch): whether a reset lies between a step and the valid step that comes before it as time runs.

    A reset where steps are masked counts at the next valid step; one that no valid step follows does not count.

    Args:
        resets: (T, *batch) bool, true at t for a boundary between t - 1 and t.
        valid: (T, *batch) bool, false in the padding; None where there is none.
        reverse: whether time runs from the last step to the first.
    """
    if valid is None:
        return jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])]) if reverse else resets
    count = jnp.cumsum(resets.astype(jnp.int32), 0)
    most = jnp.iinfo(jnp.int32).max
    if reverse:
        later = lax.cummin(jnp.where(valid, count, most), 0, reverse=True)
        later = jnp.concatenate([later[1:], jnp.full_like(later[:1], most)])
        return valid & (later > count) & (later != most)
    earlier = lax.cummax(jnp.where(valid, count, 0), 0)
    return valid & (count > jnp.concatenate([jnp.zeros_like(earlier[:1]), earlier[:-1]]))
