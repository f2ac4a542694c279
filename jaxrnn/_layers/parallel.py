"""Layers side by side on the same inputs."""

from __future__ import annotations

import abc
import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp

from .._core.checks import check_step
from .._core.composite import Runner, need_step, out_dim
from .._core.fields import check_init, show
from .._core.randomness import split, step
from .._core.types import Inputs, Key, Output, Params, State
from .parts import Parts


@dataclasses.dataclass(frozen=True)
class _Parallel(Parts):
    """Layers that get the same inputs, and whose outputs `combine` makes one."""

    @abc.abstractmethod
    def combine(self, ys: tuple[jax.Array, ...]) -> jax.Array:
        """Return the output from those of the layers."""

    def init(self, key: Key, in_dim: int) -> tuple[Params, ...]:
        """Draw each layer's params."""
        self.out_dim(check_init(self, key, in_dim))
        keys = split(key, len(self.layers))
        return tuple(layer.init(k, in_dim) for layer, k in zip(self.layers, keys, strict=True))

    def step(
        self, params: tuple[Params, ...], state: tuple[State, ...], x: Inputs, *, key: Key | None = None
    ) -> tuple[State, Output]:
        """Apply one step of each layer."""
        check_step(self, params, state, x)
        keys = split(key, len(self.layers))
        each = zip(self.layers, params, state, keys, strict=True)
        states, ys = zip(*(step(need_step(layer, self), p, s, x, k) for layer, p, s, k in each), strict=True)
        return states, self.combine(ys)

    def unroll(
        self, runner: Runner, params: Params, state: State, reset_state: State, xs: Inputs
    ) -> tuple[State, Output]:
        """Run each layer over time."""
        each = zip(runner.split(len(self.layers)), self.layers, params, state, reset_state, strict=True)
        states, ys = zip(*(run(layer, p, s, r, xs) for run, layer, p, s, r in each), strict=True)
        return states, self.combine(ys)


class Product(_Parallel):
    """y = y_1 * y_2 * ..., the elementwise product of the outputs of layers on the same inputs.

    Args:
        layers: a tuple of cells and composites with the same number of output features.

    Params and state are tuples with an entry a layer. A gated linear unit is
    `Product((Linear(n, activation="silu"), Linear(n)))`; any of the layers may be recurrent.

    >>> gated = Product((Linear(4, activation="gelu"), Stack((Linear(4), LRU(4)))))
    >>> params = gated.init(jax.random.key(0), in_dim=3)
    >>> gated.step(params, gated.initial_state(params), jnp.ones(3))[1].shape
    (4,)

    Raises:
        ValueError: if the numbers of output features differ.

    Reference: Dauphin et al., "Language modeling with gated convolutional networks", 2017, eq. 1
    (https://arxiv.org/abs/1612.08083); Shazeer, "GLU variants improve transformer", 2020, eq. 5
    (https://arxiv.org/abs/2002.05202).
    """

    def out_dim(self, in_dim: int) -> int:
        """Return the number of output features of every layer; raise ValueError if they differ."""
        dims = [out_dim(layer, in_dim) for layer in self.layers]
        if len(set(dims)) > 1:
            raise ValueError(
                f"Product multiplies outputs of the same number of features; those of {show(self.layers)} are {dims} "
                f"for {in_dim} input features. Put a Linear on top of the layers that differ."
            )
        return dims[0]

    def combine(self, ys: tuple[jax.Array, ...]) -> jax.Array:
        """Return the product."""
        return functools.reduce(operator.mul, ys)


class Concat(_Parallel):
    """y = [y_1, y_2, ...], the outputs of layers on the same inputs, concatenated along the features.

    Args:
        layers: a tuple of cells and composites.

    Params and state are tuples with an entry a layer.

    >>> both = Concat((LSTM(4), Reversed(GRU(3))))
    >>> params = both.init(jax.random.key(0), in_dim=2)
    >>> unroll(both, params, jnp.ones((5, 2)))[1].shape
    (5, 7)
    """

    def out_dim(self, in_dim: int) -> int:
        """Return the sum of the output features of the layers."""
        return sum(out_dim(layer, in_dim) for layer in self.layers)

    def combine(self, ys: tuple[jax.Array, ...]) -> jax.Array:
        """Return the outputs, concatenated."""
        return jnp.concatenate(ys, axis=-1)
