"""Functions over pytrees of arrays: select by a mask, cast."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Tree = TypeVar("Tree")
DType: TypeAlias = np.dtype[Any]


def where(mask: jax.Array, a: Tree, b: Tree) -> Tree:
    """Apply `jnp.where` to two trees, with a mask (*batch) broadcast over the features of a leaf (*batch, ...)."""

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (b.ndim - mask.ndim)), a, b)

    chosen: Tree = jax.tree.map(choose, a, b)
    return chosen


def float_dtype(tree: object) -> DType | None:
    """Return the dtype of the first floating leaf, or None."""
    return next((a.dtype for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.floating)), None)


def at_least_float32(dtype: DType | None) -> DType:
    """Return the dtype, or float32 for None and for a narrower one."""
    return dtype if dtype is not None and dtype.itemsize >= 4 else np.dtype("float32")


def differentiable(leaf: jax.Array) -> bool:
    """Return whether the leaf has floating or complex numbers."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def number_rank(dtype: DType) -> int:
    """Return 0 for integers and booleans, 1 for floating, 2 for complex numbers; a cast to a lower rank loses data."""
    return int(jnp.issubdtype(dtype, jnp.inexact)) + int(jnp.issubdtype(dtype, jnp.complexfloating))


def cast_like(tree: Tree, like: object) -> Tree:
    """Cast each leaf to the dtype of `like`; raise ValueError where fractions or imaginary parts would be lost."""

    def one(a: jax.Array, b: jax.Array) -> jax.Array:
        if number_rank(a.dtype) > number_rank(b.dtype):
            raise ValueError(
                f"the step of a cell returns {a.dtype} for a state of {b.dtype}, and a cast would lose data. Return "
                f"{a.dtype} from `initial_state`, or cast in the cell."
            )
        return a.astype(b.dtype)

    cast: Tree = jax.tree.map(one, tree, like)
    return cast


def cast(tree: Tree, dtype: DType | None) -> Tree:
    """Cast the floating leaves to `dtype`; for None, return the tree unchanged."""

    def one(a: jax.Array) -> jax.Array:
        return a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a

    return tree if dtype is None else jax.tree.map(one, tree)
