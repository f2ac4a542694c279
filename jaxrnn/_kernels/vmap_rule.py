"""`vmap` as a larger batch, for calls that XLA cannot batch itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def fold(array: jax.Array, mapped: bool, size: int, axis: int) -> jax.Array:
    """Merge the mapped leading axis, of `size`, into the batch at `axis`; an array that is not mapped is repeated."""
    array = jnp.moveaxis(array, 0, axis) if mapped else jnp.repeat(jnp.expand_dims(array, axis), size, axis)
    return array.reshape(*array.shape[:axis], size * array.shape[axis + 1], *array.shape[axis + 2 :])


def unfold(array: jax.Array, size: int, axis: int) -> jax.Array:
    """Return the array with the mapped axis in front again, the inverse of `fold`."""
    shape = *array.shape[:axis], size, array.shape[axis] // size, *array.shape[axis + 1 :]
    return jnp.moveaxis(array.reshape(shape), axis, 0)
