"""Trees of arrays: chosen by a mask, cast."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")


def where(mask: jax.Array, a: Tree, b: Tree) -> Tree:
    """`jnp.where` over trees, `mask` (*batch) standing for every feature of a leaf (*batch, ...)."""

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (b.ndim - mask.ndim)), a, b)

    return jax.tree.map(choose, a, b)


def float_dtype(tree: Any) -> Any:
    """Return the dtype of the first floating leaf, None if there is none."""
    return next((a.dtype for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.floating)), None)


def differentiable(leaf: Any) -> bool:
    """Return whether the leaf is of floating or complex numbers."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def number_rank(dtype: Any) -> int:
    """Return 0 for integers and booleans, 1 for floating numbers, 2 for complex ones: no cast may go down in it."""
    return int(jnp.issubdtype(dtype, jnp.inexact)) + int(jnp.issubdtype(dtype, jnp.complexfloating))


def cast_like(tree: Tree, like: Any) -> Tree:
    """Cast each leaf to the dtype of its like; raise ValueError where it would lose fractions or imaginary parts."""

    def one(a: Any, b: Any) -> Any:
        if number_rank(a.dtype) > number_rank(b.dtype):
            raise ValueError(
                f"the step of a cell makes {a.dtype} of a state in {b.dtype}, which would cut it. Let `initial_state` "
                f"begin with {a.dtype}, or cast in the cell."
            )
        return a.astype(b.dtype)

    return jax.tree.map(one, tree, like)


def cast(tree: Tree, dtype: Any) -> Tree:
    """Cast the floating leaves to `dtype`; None leaves everything as it is."""

    def one(a: Any) -> Any:
        return a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a

    return tree if dtype is None else jax.tree.map(one, tree)
