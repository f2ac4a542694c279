"""The adapters: an `nnx.Module` and a `linen.Module` that hold any jaxrnn cell or composite."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from ..._core.cell import Cell
from ..._core.composite import Composite
from ..._core.extras import extra
from ..._core.types import Context, Inputs, Key, Output, Params, State
from ..._drivers import Driver
from .._arrays import in_dim_of
from ._unroll_module import unroll_module

with extra("flax"):
    import flax.linen as nn
    from flax import nnx


class NnxRNN(nnx.Module):
    """An `nnx.Module` that holds a jaxrnn cell or composite with its params, and unrolls it when called.

    Args:
        cell: any cell or composite; a static attribute.
        in_dim: D, the number of input features.
        driver: how to run over time; None asks `jaxrnn.select`.
        time_major: xs and outputs are (T, *batch, D), as everywhere in jaxrnn. False selects flax's default layout,
            (*batch, T, D), with resets (*batch, T).
        return_carry: return (state, outputs), as everywhere in jaxrnn. False, flax's default, returns only outputs.
        keep_order: with `reverse`, the output of step t stays at t, as everywhere in jaxrnn. False, flax's default,
            returns outputs in the order of computation, with padding at the end.
        rngs: its `params` stream draws the params.

    `self.params` is the cell's tree of params, each leaf an `nnx.Param`, so `nnx.jit`, `nnx.value_and_grad`,
    `nnx.Optimizer`, `nnx.split` and `nnx.merge` apply to the module. `from_nnx(module)` returns the cell and the params
    as plain arrays.

    >>> from flax import nnx
    >>> module = NnxRNN(LSTM(8), 3, rngs=nnx.Rngs(0))
    >>> state, ys = module(jnp.ones((10, 2, 3)), lengths=jnp.array([10, 4]))
    >>> state.c.shape, ys.shape
    ((2, 8), (10, 2, 8))
    """

    def __init__(
        self,
        cell: Cell | Composite,
        in_dim: int,
        *,
        driver: Driver | None = None,
        time_major: bool = True,
        return_carry: bool = True,
        keep_order: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
        self.cell = cell
        self.driver = driver
        self.time_major = time_major
        self.return_carry = return_carry
        self.keep_order = keep_order
        self.params = nnx.data(jax.tree.map(nnx.Param, cell.init(rngs.params(), in_dim)))

    def __call__(
        self,
        xs: Inputs,
        state: State = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        reverse: bool = False,
        context: Context = None,
        rngs: nnx.Rngs | nnx.RngStream | Key | None = None,
        state_dtype: DTypeLike | None = None,
        return_carry: bool | None = None,
        keep_order: bool | None = None,
    ) -> tuple[State, Output] | Output:
        """Run the cell over time, as `jaxrnn.unroll` does.

        Args:
            xs: (T, *batch, D), or (*batch, T, D) without `time_major`; or a pytree of such arrays.
            state: the state before the first step, each leaf (*batch, H); None takes the cell's own.
            lengths: integers (*batch).
            resets: booleans (T, *batch), or (*batch, T) without `time_major`.
            reverse: run from the last step to the first.
            context: what is constant over time, for cells that take a context.
            rngs: what dropout and noise are drawn from: `nnx.Rngs` (its stream `dropout`), a stream or a key; None is
                deterministic.
            state_dtype: the dtype that the state is kept in, if not its own.
            return_carry: overrides that of the module.
            keep_order: overrides that of the module.

        Returns:
            The state after the last step, and the outputs (T, *batch, H), or (*batch, T, H) without `time_major`; the
            outputs alone without `return_carry`.

        Raises:
            ValueError: as `unroll`.
        """
        stream = rngs.dropout if isinstance(rngs, nnx.Rngs) else rngs
        return unroll_module(
            self.cell,
            self.weights(),
            xs,
            state,
            time_major=self.time_major,
            return_carry=self.return_carry if return_carry is None else return_carry,
            keep_order=self.keep_order if keep_order is None else keep_order,
            lengths=lengths,
            resets=resets,
            reverse=reverse,
            context=context,
            key=stream() if isinstance(stream, nnx.RngStream) else stream,
            state_dtype=state_dtype,
            driver=self.driver,
        )

    def weights(self) -> Params:
        """Return the params as plain arrays."""
        return jax.tree.map(lambda p: p[...], self.params, is_leaf=_is_variable)

    def load(self, params: Params) -> None:
        """Replace the params by plain arrays of the same structure and shapes.

        Raises:
            ValueError: if the structure or the shapes differ.
        """
        current, new = (jax.tree.flatten(tree) for tree in (self.weights(), params))
        if current[1] != new[1] or [*map(np.shape, current[0])] != [*map(np.shape, new[0])]:  # type: ignore[operator]
            shapes = [jax.tree.map(jnp.shape, tree) for tree in (self.weights(), params)]
            raise ValueError(f"the params of {self.cell} have the shapes {shapes[0]}; got {shapes[1]}")
        for variable, value in zip(jax.tree.leaves(self.params, is_leaf=_is_variable), new[0], strict=True):
            variable.set_value(jnp.asarray(value))


def _is_variable(node: object) -> bool:
    return isinstance(node, nnx.Variable)


class LinenRNN(nn.Module):
    """A `linen.Module` that holds a jaxrnn cell or composite with its params, and unrolls it when called.

    Attributes:
        cell: any cell or composite; it is hashable, as linen requires of attributes.
        driver: how to run over time; None asks `jaxrnn.select`.
        time_major: xs and outputs are (T, *batch, D), as everywhere in jaxrnn. False selects flax's default layout,
            (*batch, T, D), with resets (*batch, T).
        return_carry: return (state, outputs), as everywhere in jaxrnn. False, flax's default, returns only outputs.
        keep_order: with `reverse`, the output of step t stays at t, as everywhere in jaxrnn. False, flax's default,
            returns outputs in the order of computation, with padding at the end.
        in_dim: D; None takes it from the shape of xs, which must then be one array.

    Its one param is "rnn", the cell's tree of params: `variables["params"]["rnn"]` is what `jaxrnn.unroll` takes.

    >>> module = LinenRNN(LSTM(8))
    >>> xs = jnp.ones((10, 2, 3))
    >>> variables = module.init(jax.random.key(0), xs)
    >>> state, ys = module.apply(variables, xs, lengths=jnp.array([10, 4]))
    >>> state.c.shape, ys.shape
    ((2, 8), (10, 2, 8))
    """

    cell: Cell | Composite
    driver: Driver | None = None
    time_major: bool = True
    in_dim: int | None = None
    return_carry: bool = True
    keep_order: bool = True

    @nn.compact
    def __call__(
        self,
        xs: Inputs,
        state: State = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        reverse: bool = False,
        context: Context = None,
        deterministic: bool = True,
        state_dtype: DTypeLike | None = None,
        return_carry: bool | None = None,
        keep_order: bool | None = None,
    ) -> tuple[State, Output] | Output:
        """Run the cell over time, as `jaxrnn.unroll` does.

        Args:
            xs: (T, *batch, D), or (*batch, T, D) without `time_major`; or a pytree of such arrays.
            state: the state before the first step, each leaf (*batch, H); None takes the cell's own.
            lengths: integers (*batch).
            resets: booleans (T, *batch), or (*batch, T) without `time_major`.
            reverse: run from the last step to the first.
            context: what is constant over time, for cells that take a context.
            deterministic: False draws dropout and noise from the stream "dropout", as `linen.Dropout` does.
            state_dtype: the dtype that the state is kept in, if not its own.
            return_carry: overrides that of the module.
            keep_order: overrides that of the module.

        Returns:
            The state after the last step, and the outputs (T, *batch, H), or (*batch, T, H) without `time_major`; the
            outputs alone without `return_carry`.

        Raises:
            ValueError: if `in_dim` is None and xs is not one array; and as `unroll`.
        """
        in_dim = in_dim_of(xs, self.in_dim, f"LinenRNN({self.cell}, in_dim=...)")
        return unroll_module(
            self.cell,
            self.param("rnn", self.cell.init, in_dim),
            xs,
            state,
            time_major=self.time_major,
            return_carry=self.return_carry if return_carry is None else return_carry,
            keep_order=self.keep_order if keep_order is None else keep_order,
            lengths=lengths,
            resets=resets,
            reverse=reverse,
            context=context,
            key=None if deterministic else self.make_rng("dropout"),
            state_dtype=state_dtype,
            driver=self.driver,
        )
