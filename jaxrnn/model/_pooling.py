"""What is read of the outputs of the layers: from (T, *batch, H) and lengths (*batch) to what the readout sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._core.masks import length_mask
from .._core.sharding import zeros_like
from .._core.trees import where

Pooling = Callable[[jax.Array, Any], jax.Array]
"""From outputs (T, *batch, H), zero in the padding, and lengths (*batch) or None, to what the readout sees."""


def every(ys: jax.Array, lengths: Any = None) -> jax.Array:
    """Read every step: (T, *batch, H), for tagging and language modelling. The padding stays; a loss leaves it out."""
    return ys


def last(ys: jax.Array, lengths: Any = None) -> jax.Array:
    """Read the last valid step: (T, *batch, H) to (*batch, H); zeros where the length is 0."""
    if lengths is None:
        return ys[-1]
    lengths = jnp.asarray(lengths).astype(jnp.int32)
    index = jnp.maximum(lengths - 1, 0)[None, ..., None]
    return _nonempty(jnp.take_along_axis(ys, index, axis=0)[0], lengths)


def ends(ys: jax.Array, lengths: Any = None) -> jax.Array:
    """Read where each direction ended: the forward half at the last valid step, the backward half at the first.

    For `Bidirectional` on top, both of whose cells put out the same number of features: (T, *batch, H) to (*batch, H),
    zeros where the length is 0. Raises ValueError for an odd H.
    """
    half, odd = divmod(ys.shape[-1], 2)
    if odd:
        raise ValueError(f"ends reads two halves, forward and backward; got {ys.shape[-1]} features. Use last or mean.")
    first = ys[0, ..., half:] if lengths is None else _nonempty(ys[0, ..., half:], jnp.asarray(lengths))
    return jnp.concatenate([last(ys[..., :half], lengths), first], axis=-1)


def mean(ys: jax.Array, lengths: Any = None) -> jax.Array:
    """Read the mean of the valid steps: (T, *batch, H) to (*batch, H); zeros where the length is 0."""
    if lengths is None:
        return _sum(ys) / len(ys)
    lengths = jnp.asarray(lengths).astype(jnp.int32)
    total = _sum(where(length_mask(lengths, ys.shape[0]), ys, jnp.zeros_like(ys)))
    return total / jnp.maximum(lengths, 1)[..., None].astype(ys.dtype)


def maximum(ys: jax.Array, lengths: Any = None) -> jax.Array:
    """Read each feature's maximum over the valid steps: (T, *batch, H) to (*batch, H); zeros where the length is 0.

    Its gradient is shared by the steps that have it.
    """
    if lengths is None:
        return _greatest(ys)
    lengths = jnp.asarray(lengths).astype(jnp.int32)
    lowest = jnp.full_like(ys, -jnp.inf)
    return _nonempty(_greatest(where(length_mask(lengths, ys.shape[0]), ys, lowest)), lengths)


# XLA reduces a leading axis on a CPU one feature at a time, each from as many far places as there are steps. At
# (21, 128, 256) `ys.sum(axis=0)` takes 12 times as long as a matmul, and `ys.max(axis=0)` with its gradient 5 times as
# long as a scan (trials that left no file).


def _sum(ys: jax.Array) -> jax.Array:
    """Add up the steps (T, ...), in float32 at least."""
    wide = jnp.promote_types(ys.dtype, jnp.float32)
    ones = jnp.ones(ys.shape[0], ys.dtype)
    return jnp.tensordot(ones, ys, 1, precision="highest", preferred_element_type=wide).astype(ys.dtype)


@jax.custom_jvp
def _greatest(ys: jax.Array) -> jax.Array:
    """Give the maximum over the steps (T, ...)."""
    return _greatest_and_count(ys)[0]


@_greatest.defjvp
def _greatest_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (ys,), (dys,) = primals, tangents
    greatest, count = _greatest_and_count(ys)
    return greatest, _sum(jnp.where(ys == greatest, dys, 0) / count)


def _greatest_and_count(ys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Give the maximum over the steps (T, ...), and how many of them have it."""

    def at_once(ys: jax.Array) -> tuple[jax.Array, jax.Array]:
        greatest = ys.max(axis=0)
        return greatest, (ys == greatest).sum(axis=0).astype(ys.dtype)

    def step_by_step(ys: jax.Array) -> tuple[jax.Array, jax.Array]:
        def see(best: tuple[jax.Array, jax.Array], y: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
            greatest, count = best
            count = jnp.where(y > greatest, 1, count + (y == greatest).astype(y.dtype))
            return (jnp.maximum(greatest, y), count), None

        none = zeros_like(ys[0])
        return jax.lax.scan(see, (none - jnp.inf, none), ys)[0]

    return jax.lax.platform_dependent(ys, cpu=step_by_step, default=at_once)


def _nonempty(h: jax.Array, lengths: jax.Array) -> jax.Array:
    """Zero the rows (*batch, H) of length 0."""
    return where(lengths > 0, h, jnp.zeros_like(h))
