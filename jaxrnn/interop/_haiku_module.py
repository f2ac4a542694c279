"""The adapter: an `hk.Module` around any jaxrnn cell."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from .._core.extras import extra
from .._core.types import Output, State
from .._drivers import Driver
from .._unroll import unroll

with extra("haiku"):
    import haiku as hk


class HaikuRNN(hk.Module):
    """An `hk.Module` that holds the params of a jaxrnn cell or composite, and unrolls it when called.

    Args:
        cell: any cell or composite.
        driver: how to run over time; None asks `jaxrnn.select`.
        in_dim: D; None reads it off xs, which must then be one array.
        name: the module's name.

    Each leaf of the cell's params is a param of the module: `w_x`, `b`, in a `Stack` `0.w_x`. `from_haiku` returns them
    as the cell's own tree.

    >>> network = hk.transform(lambda xs: HaikuRNN(LSTM(8))(xs, lengths=jnp.array([10, 4])))
    >>> params = network.init(jax.random.key(0), jnp.ones((10, 2, 3)))
    >>> state, ys = network.apply(params, None, jnp.ones((10, 2, 3)))
    >>> state.c.shape, ys.shape
    ((2, 8), (10, 2, 8))
    """

    def __init__(
        self, cell: Any, *, driver: Driver | None = None, in_dim: int | None = None, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.cell = cell
        self.driver = driver
        self.in_dim = in_dim

    def __call__(self, xs: Any, state: State = None, **keywords: Any) -> tuple[State, Output]:
        """Return the state after the last step, and the outputs: `jaxrnn.unroll`.

        Args:
            xs: (T, *batch, D).
            state: the state before the first step; None takes the cell's own.
            keywords: those of `unroll`: lengths, resets, reverse, state_dtype, and `key=hk.next_rng_key()` for dropout.
        """
        if self.in_dim is None and not isinstance(xs, jax.Array | np.ndarray):
            raise ValueError(
                f"xs is no array, whose last axis would be in_dim; name it: HaikuRNN({self.cell}, in_dim=...)"
            )
        in_dim = xs.shape[-1] if self.in_dim is None else self.in_dim
        names, shapes, structure = named_leaves(self.cell, in_dim)
        drawn: Any = shapes
        if hk.running_init():
            drawn = jax.tree.leaves(self.cell.init(hk.next_rng_key(), in_dim))
        leaves = [
            hk.get_parameter(name, a.shape, a.dtype, init=functools.partial(_drawn, value))
            for name, a, value in zip(names, shapes, drawn, strict=True)
        ]
        params = jax.tree.unflatten(structure, leaves)
        return unroll(self.cell, params, xs, state, driver=self.driver, **keywords)


def _drawn(value: jax.Array, shape: Any, dtype: Any) -> jax.Array:
    """Return what was drawn, as haiku's initialiser."""
    return value


def named_leaves(cell: Any, in_dim: int) -> tuple[list[str], list[Any], Any]:
    """Return the names, the shapes and the structure of a cell's params."""
    shapes = jax.eval_shape(lambda key: cell.init(key, in_dim), jax.random.key(0))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
    return names, jax.tree.leaves(shapes), jax.tree.structure(shapes)
