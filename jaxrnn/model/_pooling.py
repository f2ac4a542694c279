"""Pooling over time: from outputs (T, *batch, H) and lengths (*batch) to the inputs of the readout."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .._core.masks import length_mask
from .._core.sharding import zeros_like
from .._core.trees import where

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

Pooling: TypeAlias = "Callable[[jax.Array, ArrayLike | None], jax.Array]"
"""From outputs (T, *batch, H), zero in the padding, and lengths (*batch) or None, to the inputs of the readout."""


def every(
    ys: Float[Array, "T *batch H"], lengths: Int[ArrayLike, "*batch"] | None = None
) -> Float[Array, "T *batch H"]:
    """Return every step, for tagging and language modelling. The padding is included; a loss masks it."""
    return ys


def last(ys: Float[Array, "T *batch H"], lengths: Int[ArrayLike, "*batch"] | None = None) -> Float[Array, "*batch H"]:
    """Return the last valid step; zeros where the length is 0."""
    if lengths is None:
        return ys[-1]
    lengths = jnp.asarray(lengths).astype(jnp.int32)
    index = jnp.maximum(lengths - 1, 0)[None, ..., None]
    return _nonempty(jnp.take_along_axis(ys, index, axis=0)[0], lengths)


def ends(ys: Float[Array, "T *batch H"], lengths: Int[ArrayLike, "*batch"] | None = None) -> Float[Array, "*batch H"]:
    """Return the last output of each direction: the forward half at the last valid step, the backward one at the first.

    It is for a `Bidirectional` whose cells have the same number of output features. Zeros where the length is 0.

    Raises:
        ValueError: for an odd H.
    """
    half, odd = divmod(ys.shape[-1], 2)
    if odd:
        raise ValueError(f"ends reads two halves, forward and backward; got {ys.shape[-1]} features. Use last or mean.")
    first = ys[0, ..., half:] if lengths is None else _nonempty(ys[0, ..., half:], jnp.asarray(lengths))
    return jnp.concatenate([last(ys[..., :half], lengths), first], axis=-1)


def mean(ys: Float[Array, "T *batch H"], lengths: Int[ArrayLike, "*batch"] | None = None) -> Float[Array, "*batch H"]:
    """Return the mean of the valid steps; zeros where the length is 0."""
    if lengths is None:
        return _sum(ys) / len(ys)
    lengths = jnp.asarray(lengths).astype(jnp.int32)
    total = _sum(where(length_mask(lengths, ys.shape[0]), ys, jnp.zeros_like(ys)))
    return total / jnp.maximum(lengths, 1)[..., None].astype(ys.dtype)


def maximum(
    ys: Float[Array, "T *batch H"], lengths: Int[ArrayLike, "*batch"] | None = None
) -> Float[Array, "*batch H"]:
    """Return the maximum of each feature over the valid steps; zeros where the length is 0.

    Steps that attain the maximum share its gradient equally.
    """
    if lengths is None:
        return _max(ys)
    lengths = jnp.asarray(lengths).astype(jnp.int32)
    lowest = jnp.full_like(ys, -jnp.inf)
    return _nonempty(_max(where(length_mask(lengths, ys.shape[0]), ys, lowest)), lengths)


# On a CPU, XLA reduces the leading axis one feature at a time, with a long stride between steps: a matmul for the sum
# and a scan for the maximum are faster. Untuned.


def _sum(ys: jax.Array) -> jax.Array:
    """Return the sum over the steps (T, ...), computed in float32 at least."""
    wide = jnp.promote_types(ys.dtype, jnp.float32)
    ones = jnp.ones(ys.shape[0], ys.dtype)
    return jnp.tensordot(ones, ys, 1, precision="highest", preferred_element_type=wide).astype(ys.dtype)


@jax.custom_jvp
def _max(ys: jax.Array) -> jax.Array:
    """Return the maximum over the steps (T, ...)."""
    return _max_and_count(ys)[0]


@_max.defjvp
def _max_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (ys,), (dys,) = primals, tangents
    largest, count = _max_and_count(ys)
    return largest, _sum(jnp.where(ys == largest, dys, 0) / count)


def _max_and_count(ys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the maximum over the steps (T, ...), and the number of steps that attain it."""

    def at_once(ys: jax.Array) -> tuple[jax.Array, jax.Array]:
        largest = ys.max(axis=0)
        return largest, (ys == largest).sum(axis=0).astype(ys.dtype)

    def step_by_step(ys: jax.Array) -> tuple[jax.Array, jax.Array]:
        def update(best: tuple[jax.Array, jax.Array], y: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
            largest, count = best
            count = jnp.where(y > largest, 1, count + (y == largest).astype(y.dtype))
            return (jnp.maximum(largest, y), count), None

        zeros = zeros_like(ys[0])
        return jax.lax.scan(update, (zeros - jnp.inf, zeros), ys)[0]

    return jax.lax.platform_dependent(ys, cpu=step_by_step, default=at_once)


def _nonempty(h: jax.Array, lengths: jax.Array) -> jax.Array:
    """Return h (*batch, H) with zeros in the rows of length 0."""
    return where(lengths > 0, h, jnp.zeros_like(h))
