"""Layers on top of each other."""

from __future__ import annotations

import dataclasses

import jax

from .._core.checks import check_step
from .._core.composite import Runner, need_step, out_dim
from .._core.fields import check_init
from .._core.randomness import split, step
from .._core.types import Inputs, Key, Output, Params, State
from .parts import Parts


@dataclasses.dataclass(frozen=True)
class Stack(Parts):
    """Layers on top of each other, the outputs of one being the inputs of the next.

    Args:
        layers: a tuple of cells, composites and dropouts, the lowest first.

    Params and state are tuples with an entry a layer. A stack takes a `step` if all its layers do; over a
    `Bidirectional` its `step` raises.

    >>> stack = Stack((LSTM(8), GRU(4)))
    >>> params = stack.init(jax.random.key(0), in_dim=3)
    >>> state, y = stack.step(params, stack.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)
    """

    def init(self, key: jax.Array, in_dim: int) -> tuple[Params, ...]:
        """Draw each layer's params for the outputs of the layer below."""
        dims = [check_init(self, key, in_dim)]
        for layer in self.layers[:-1]:
            dims.append(out_dim(layer, dims[-1]))
        keys = split(key, len(self.layers))
        return tuple(layer.init(k, dim) for layer, k, dim in zip(self.layers, keys, dims, strict=True))

    def out_dim(self, in_dim: int) -> int:
        """Return the number of output features of the top layer."""
        for layer in self.layers:
            in_dim = out_dim(layer, in_dim)
        return in_dim

    def step(
        self, params: tuple[Params, ...], state: tuple[State, ...], x: Inputs, *, key: Key | None = None
    ) -> tuple[State, Output]:
        """Apply one step of all layers."""
        check_step(self, params, state, x)
        states = []
        keys = split(key, len(self.layers))
        for layer, p, s, k in zip(self.layers, params, state, keys, strict=True):
            s, x = step(need_step(layer, self), p, s, x, k)
            states.append(s)
        return tuple(states), x

    def unroll(
        self, runner: Runner, params: Params, state: State, reset_state: State, xs: Inputs
    ) -> tuple[State, Output]:
        """Run one layer after the other over all of time."""
        states = []
        runners = runner.split(len(self.layers))
        for run, layer, p, s, r in zip(runners, self.layers, params, state, reset_state, strict=True):
            s, xs = run(layer, p, s, r, xs)
            states.append(s)
        return tuple(states), xs
