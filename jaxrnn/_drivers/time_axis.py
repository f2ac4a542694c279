"""Time split over the devices along an axis of a mesh."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class TimeAxis:
    """The parts of time along an axis of a mesh, inside `jax.shard_map`.

    Args:
        name: the axis.
        reverse: whether time runs from the last part to the first.
    """

    name: str
    reverse: bool

    def is_first(self) -> jax.Array:
        """Return whether time starts on this device."""
        return self.place() == 0

    def place(self) -> jax.Array:
        """Return how many parts run before this one."""
        index = lax.axis_index(self.name)
        return lax.axis_size(self.name) - 1 - index if self.reverse else index

    def earlier(self, tree: Tree, reach: int, fill: Tree) -> Tree:
        """Return the tree of the part that runs `reach` parts before this one; `fill` where there is none."""
        count = lax.axis_size(self.name)
        pairs = [(i, i + reach) for i in range(count - reach)]
        pairs = [pair[::-1] for pair in pairs] if self.reverse else pairs
        inside = self.place() >= reach

        def one(array: jax.Array, rest: jax.Array | float) -> jax.Array:
            return jnp.where(inside, lax.ppermute(array, self.name, pairs), rest)

        moved: Tree = jax.tree.map(one, tree, fill)
        return moved

    def before(self, tree: Tree, combine: Callable[[Tree, Tree], Tree], neutral: Tree) -> Tree:
        """Return what all parts before this one amount to: `neutral` for the first.

        Args:
            tree: what this part amounts to.
            combine: from what earlier parts and later parts amount to, to what both do; associative.
            neutral: what no part amounts to.
        """
        reach = 1
        while reach < lax.axis_size(self.name):  # 1, 2, 4, ... parts
            tree = combine(self.earlier(tree, reach, neutral), tree)
            reach *= 2
        return self.earlier(tree, 1, neutral)
