"""The adapter: an `hk.Module` that holds any jaxrnn cell."""

from __future__ import annotations

from typing import Any

import jax

from .._core.cell import Cell
from .._core.composite import Composite
from .._core.extras import extra
from .._core.types import Inputs, Output, Params, State
from .._drivers import Driver
from .._unroll import unroll
from ._arrays import in_dim_of

with extra("haiku"):
    import haiku as hk


class HaikuRNN(hk.Module):
    """An `hk.Module` that holds the params of a jaxrnn cell or composite, and unrolls it when called.

    Args:
        cell: any cell or composite.
        driver: how to run over time; None asks `jaxrnn.select`.
        in_dim: D; None takes it from the shape of xs, which must then be one array.
        name: the module's name.

    Each leaf of the cell's params is a param of the module, in the dtype of `cell.init`: `w_x`, `b`, in a
    `Stack` `0.w_x`. `from_haiku` returns them as the tree of the cell.

    >>> network = hk.transform(lambda xs: HaikuRNN(LSTM(8))(xs, lengths=jnp.array([10, 4])))
    >>> params = network.init(jax.random.key(0), jnp.ones((10, 2, 3)))
    >>> state, ys = network.apply(params, None, jnp.ones((10, 2, 3)))
    >>> state.c.shape, ys.shape
    ((2, 8), (10, 2, 8))
    """

    def __init__(
        self,
        cell: Cell | Composite,
        *,
        driver: Driver | None = None,
        in_dim: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.cell = cell
        self.driver = driver
        self.in_dim = in_dim

    def __call__(self, xs: Inputs, state: State = None, **keywords: Any) -> tuple[State, Output]:
        """Run the cell over time, as `jaxrnn.unroll` does.

        Args:
            xs: (T, *batch, D), or a pytree of such arrays.
            state: the state before the first step, each leaf (*batch, H); None takes the cell's own.
            keywords: those of `unroll`: lengths, mask, resets, reverse, context, state_dtype, and
                `key=hk.next_rng_key()` for dropout and noise.

        Returns:
            The state after the last step, and the outputs (T, *batch, H).

        Raises:
            ValueError: if `in_dim` is None and xs is not one array; and as `unroll`.
        """
        in_dim = in_dim_of(xs, self.in_dim, f"HaikuRNN({self.cell}, in_dim=...)")
        names, shapes, structure = named_leaves(self.cell, in_dim)
        initial: Params = shapes
        if hk.running_init():
            initial = jax.tree.leaves(self.cell.init(hk.next_rng_key(), in_dim))
        leaves = [
            hk.get_parameter(name, a.shape, a.dtype, init=hk.initializers.Constant(value))
            for name, a, value in zip(names, shapes, initial, strict=True)
        ]
        params = jax.tree.unflatten(structure, leaves)
        return unroll(self.cell, params, xs, state, driver=self.driver, **keywords)


def named_leaves(
    cell: Cell | Composite, in_dim: int
) -> tuple[list[str], list[jax.ShapeDtypeStruct], jax.tree_util.PyTreeDef]:
    """Return the names, the shapes and the structure of a cell's params."""
    shapes = jax.eval_shape(lambda key: cell.init(key, in_dim), jax.random.key(0))
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
    return names, jax.tree.leaves(shapes), jax.tree.structure(shapes)
