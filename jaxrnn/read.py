"""What is read of the outputs of the layers: from (T, *batch, H) and lengths (*batch) to what the readout sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .cell import before, where

Read = Callable[[jax.Array, Any], jax.Array]
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
        return ys.mean(axis=0)
    lengths = jnp.asarray(lengths).astype(jnp.int32)
    total = where(before(lengths, ys.shape[0]), ys, jnp.zeros_like(ys)).sum(axis=0)
    return total / jnp.maximum(lengths, 1)[..., None].astype(ys.dtype)


def maximum(ys: jax.Array, lengths: Any = None) -> jax.Array:
    """Read each feature's maximum over the valid steps: (T, *batch, H) to (*batch, H); zeros where the length is 0."""
    if lengths is None:
        return ys.max(axis=0)
    lengths = jnp.asarray(lengths).astype(jnp.int32)
    lowest = jnp.full_like(ys, -jnp.inf)
    return _nonempty(where(before(lengths, ys.shape[0]), ys, lowest).max(axis=0), lengths)


def _nonempty(h: jax.Array, lengths: jax.Array) -> jax.Array:
    """Zero the rows (*batch, H) of length 0."""
    return where(lengths > 0, h, jnp.zeros_like(h))
