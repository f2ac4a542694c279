"""Which steps are valid and where the state is reset: one rule, as functions that drivers call around each step.

T time, B batch (any number of leading axes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from .trees import Tree, cast_like, where
from .types import State

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Int


class StepMasks(NamedTuple):
    """The masks of all steps, or of one: which are valid, and before which the state is reset.

    Attributes:
        valid: (T, *batch) bool, false in the padding; None where there is none.
        reset: (T, *batch) bool, true where the state is reset before this step; None where it never is.
        reset_state: the state after a reset; None where there is none.
    """

    valid: Bool[Array, T * batch] | None = None
    reset: Bool[Array, T * batch] | None = None
    reset_state: State = None


def apply_reset(state: State, masks: StepMasks) -> State:
    """Return the state that a step starts from: `masks.reset_state` where it is reset."""
    if masks.reset is None:
        return state
    return where(masks.reset, masks.reset_state, state)


def zero_padding(tree: Tree, valid: jax.Array | None) -> Tree:
    """Return a tree of arrays (*valid.shape, ...) with zeros where `valid` is false. Keys of `jax.random` stay."""
    if valid is None:
        return tree
    one = lambda a: a if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else where(valid, a, jnp.zeros_like(a))
    return jax.tree.map(one, tree)


def hold_padding(new: State, old: State, masks: StepMasks) -> State:
    """Return the state after a step: the old one where the step is padding. It keeps its dtype."""
    new = cast_like(new, old)
    if masks.valid is None:
        return new
    return where(masks.valid, new, old)


def length_mask(lengths: Int[ArrayLike, "*batch"], num_steps: int) -> Bool[Array, T * batch]:
    """Return the mask (T, *batch) of valid steps for lengths (*batch): whether t < lengths[b].

    >>> length_mask(jnp.array([3, 1]), 3).T
    Array([[ True,  True,  True],
           [ True, False, False]], dtype=bool)
    """
    lengths = jnp.asarray(lengths).astype(jnp.int32)  # wide enough for t
    return jnp.arange(num_steps, dtype=jnp.int32).reshape(num_steps, *[1] * lengths.ndim) < lengths


def reset_boundaries(resets: jax.Array, valid: jax.Array | None, reverse: bool) -> jax.Array:
    """Return (T, *batch): whether the state is reset before a step, in running order.

    That is where a reset lies between a step and the valid step before it. A reset in the padding takes effect at the
    next valid step, if there is one.

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
