"""The adapters: a module of each kind of flax around any jaxrnn cell or composite."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._core.extras import extra
from ..._core.types import Output, Params, State
from ..._drivers import Driver
from ._contract import cross

with extra("flax"):
    import flax.linen as nn
    from flax import nnx


class NnxRNN(nnx.Module):
    """An `nnx.Module` that holds a jaxrnn cell or composite with its params, and unrolls it when called.

    Args:
        cell: any cell or composite; a static attribute.
        in_dim: D, the number of input features.
        driver: how to cross time; None asks `jaxrnn.select`.
        time_major: xs and outputs are (T, *batch, D), as everywhere in jaxrnn. False takes flax's own order,
            (*batch, T, D), and resets (*batch, T).
        return_carry: return (state, outputs), as everywhere in jaxrnn. False, flax's default, is the outputs alone.
        keep_order: with `reverse`, the output of step t stays at t, as everywhere in jaxrnn. False, flax's default,
            returns outputs in the order in which they were computed, padding still at the end.
        rngs: its `params` stream draws the params.

    `self.params` is the cell's tree of params, each leaf an `nnx.Param`: `nnx.jit`, `nnx.value_and_grad`,
    `nnx.Optimizer`, `nnx.split` and `nnx.merge` need nothing besides. `from_nnx(module)` gives plain params back.

    >>> from flax import nnx
    >>> module = NnxRNN(LSTM(8), 3, rngs=nnx.Rngs(0))
    >>> state, ys = module(jnp.ones((10, 2, 3)), lengths=jnp.array([10, 4]))
    >>> state.c.shape, ys.shape
    ((2, 8), (10, 2, 8))
    """

    def __init__(
        self,
        cell: Any,
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
        xs: Any,
        state: State = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        reverse: bool = False,
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
        state_dtype: Any = None,
        return_carry: bool | None = None,
        keep_order: bool | None = None,
    ) -> tuple[State, Output] | Output:
        """Cross time: `jaxrnn.unroll`, whose keywords these are.

        Args:
            xs: (T, *batch, D), or (*batch, T, D) without `time_major`.
            state: the state before the first step; None takes the cell's own.
            lengths: integers (*batch).
            resets: booleans (T, *batch), or (*batch, T) without `time_major`.
            reverse: from the last step to the first.
            rngs: what dropout draws from: `nnx.Rngs` (its `dropout` stream), a stream or a key; None is
                deterministic.
            state_dtype: what the state is kept in.
            return_carry: overrides the module's.
            keep_order: overrides the module's.

        Returns:
            The state after the last step, and the outputs; the outputs alone without `return_carry`.
        """
        stream = rngs.dropout if isinstance(rngs, nnx.Rngs) else rngs
        return cross(
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
            key=stream() if isinstance(stream, nnx.RngStream) else stream,
            state_dtype=state_dtype,
            driver=self.driver,
        )

    def weights(self) -> Params:
        """Give the params as plain arrays."""
        return jax.tree.map(lambda p: p[...], self.params, is_leaf=_is_variable)

    def load(self, params: Params) -> None:
        """Replace the params by plain arrays of the same structure and shapes.

        Raises:
            ValueError: if structure or shapes differ.
        """
        variables = jax.tree.leaves(self.params, is_leaf=_is_variable)
        needed: Any = jax.tree.structure(self.weights())
        if needed != jax.tree.structure(params) or [v.shape for v in variables] != [
            np.shape(p) for p in jax.tree.leaves(params)
        ]:
            shapes = [jax.tree.map(jnp.shape, tree) for tree in (self.weights(), params)]
            raise ValueError(f"the params of {self.cell} have the shapes {shapes[0]}; got {shapes[1]}")
        for variable, value in zip(variables, jax.tree.leaves(params), strict=True):
            variable.set_value(jnp.asarray(value))


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


class LinenRNN(nn.Module):
    """A `linen.Module` that holds a jaxrnn cell or composite, and unrolls it when called.

    Attributes:
        cell: any cell or composite; it hashes, so it is a legal attribute.
        driver: how to cross time; None asks `jaxrnn.select`.
        time_major: xs and outputs are (T, *batch, D), as everywhere in jaxrnn. False takes flax's own order,
            (*batch, T, D), and resets (*batch, T).
        return_carry: return (state, outputs), as everywhere in jaxrnn. False, flax's default, is the outputs alone.
        keep_order: with `reverse`, the output of step t stays at t, as everywhere in jaxrnn. False, flax's default,
            returns outputs in the order in which they were computed, padding still at the end.
        in_dim: D; None reads it off xs, which must then be one array.

    Its one param is "rnn", the cell's own tree: `variables["params"]["rnn"]` goes into `jaxrnn.unroll` as it is.

    >>> module = LinenRNN(LSTM(8))
    >>> xs = jnp.ones((10, 2, 3))
    >>> variables = module.init(jax.random.key(0), xs)
    >>> state, ys = module.apply(variables, xs, lengths=jnp.array([10, 4]))
    >>> state.c.shape, ys.shape
    ((2, 8), (10, 2, 8))
    """

    cell: Any
    driver: Driver | None = None
    time_major: bool = True
    in_dim: int | None = None
    return_carry: bool = True
    keep_order: bool = True

    @nn.compact
    def __call__(
        self,
        xs: Any,
        state: State = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        reverse: bool = False,
        deterministic: bool = True,
        state_dtype: Any = None,
        return_carry: bool | None = None,
        keep_order: bool | None = None,
    ) -> tuple[State, Output] | Output:
        """Cross time: `jaxrnn.unroll`, whose keywords these are.

        Args:
            xs: (T, *batch, D), or (*batch, T, D) without `time_major`.
            state: the state before the first step; None takes the cell's own.
            lengths: integers (*batch).
            resets: booleans (T, *batch), or (*batch, T) without `time_major`.
            reverse: from the last step to the first.
            deterministic: False draws dropout from the stream "dropout", as `linen.Dropout` does.
            state_dtype: what the state is kept in.
            return_carry: overrides the module's.
            keep_order: overrides the module's.

        Returns:
            The state after the last step, and the outputs; the outputs alone without `return_carry`.

        Raises:
            ValueError: if `in_dim` is needed; and all that `unroll` raises.
        """
        return cross(
            self.cell,
            self.param("rnn", self.cell.init, self._in_dim(xs)),
            xs,
            state,
            time_major=self.time_major,
            return_carry=self.return_carry if return_carry is None else return_carry,
            keep_order=self.keep_order if keep_order is None else keep_order,
            lengths=lengths,
            resets=resets,
            reverse=reverse,
            key=None if deterministic else self.make_rng("dropout"),
            state_dtype=state_dtype,
            driver=self.driver,
        )

    @nn.nowrap
    def _in_dim(self, xs: Any) -> int:
        """Give D."""
        if self.in_dim is not None:
            return self.in_dim
        if not isinstance(xs, jax.Array | np.ndarray) or xs.ndim == 0:
            raise ValueError(f"xs is no array whose last axis says in_dim; name it: LinenRNN({self.cell}, in_dim=...)")
        return xs.shape[-1]
