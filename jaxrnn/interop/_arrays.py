"""Arrays of other libraries: conversion to JAX without loss, and the layouts of packed gates."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from .._core.types import Inputs

AnyArray = TypeVar("AnyArray", np.ndarray, jax.Array)
"""An array of NumPy or of JAX, and the result of the same kind."""


def to_jax_array(array: ArrayLike) -> jax.Array:
    """Copy an array into JAX in its own dtype; return an array of JAX unchanged.

    Raises:
        ValueError: for float64 in JAX's 32-bit mode, which would round it to float32.

    >>> to_jax_array(np.ones(2, np.float32)).dtype
    dtype('float32')
    """
    if isinstance(array, jax.Array):
        return array
    array = np.asarray(array)
    kept = jax.dtypes.canonicalize_dtype(array.dtype)
    if kept != array.dtype:
        raise ValueError(
            f"got {array.dtype} weights, which JAX would round to {kept}. Convert them under `with "
            "jax.enable_x64(True):`, or cast them to float32 first."
        )
    return jnp.asarray(np.array(array))  # jnp.array may read its argument after it has returned (jax 0.10.2)


def split_gates(w: AnyArray, gates: int, order: tuple[int, ...] | None = None) -> AnyArray:
    """Return weights (G * H, D), the rows of each gate contiguous, as (D, G, H).

    Args:
        w: the weights.
        gates: G.
        order: for each gate of jaxrnn, its index in `w`; None if both orders are equal.

    >>> split_gates(np.ones((8, 3)), gates=4).shape
    (3, 4, 2)
    """
    blocks = w.reshape(gates, w.shape[0] // gates, w.shape[1])
    return (blocks if order is None else blocks[np.array(order)]).transpose(2, 0, 1)


def join_gates(w: AnyArray) -> AnyArray:
    """Return weights (D, G, H) as (G * H, D): the inverse of `split_gates`.

    >>> join_gates(np.ones((3, 4, 2))).shape
    (8, 3)
    """
    return w.transpose(1, 2, 0).reshape(-1, w.shape[0])


def in_dim_of(xs: Inputs, in_dim: int | None, example: str) -> int:
    """Return `in_dim`, or the number of features of `xs` where it is None.

    Raises:
        ValueError: if `in_dim` is None and `xs` is not one array; `example` shows where to pass `in_dim`.

    >>> in_dim_of(jnp.ones((5, 2, 3)), None, "LinenRNN(cell, in_dim=...)")
    3
    """
    if in_dim is not None:
        return in_dim
    if not isinstance(xs, jax.Array | np.ndarray) or xs.ndim == 0:
        raise ValueError(f"xs is not one array whose last axis gives in_dim. Pass it: {example}")
    return xs.shape[-1]
