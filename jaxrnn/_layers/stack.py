"""Layers on top of each other."""

from __future__ import annotations

import dataclasses

import jax

from .._core.checks import check_step
from .._core.composite import Composite, Part, Runner, need_step, out_dim, part
from .._core.context import with_context
from .._core.fields import check_init, show
from .._core.randomness import split, step
from .._core.types import Context, Inputs, Key, Output, Params, State


@dataclasses.dataclass(frozen=True)
class Stack(Composite):
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

    layers: tuple[Part, ...]

    def __check_init__(self) -> None:
        """Check the layers."""
        if not isinstance(self.layers, tuple) or not self.layers:
            raise ValueError(
                f"Stack takes a tuple of one layer or more: Stack((LSTM(8), GRU(8))); got {show(self.layers)}"
            )
        for k, layer in enumerate(self.layers):
            part(layer, f"Stack.layers[{k}]")

    def init(self, key: jax.Array, in_dim: int) -> tuple[Params, ...]:
        """Draw each layer's params for the outputs of the layer below."""
        dims = [check_init(self, key, in_dim)]
        for layer in self.layers[:-1]:
            dims.append(out_dim(layer, dims[-1]))
        keys = split(key, len(self.layers))
        return tuple(layer.init(k, dim) for layer, k, dim in zip(self.layers, keys, dims, strict=True))

    def initial_state(self, params: tuple[Params, ...], batch: tuple[int, ...] = ()) -> tuple[State, ...]:
        """Return each layer's initial state."""
        params = (None,) * len(self.layers) if params is None else params
        return tuple(layer.initial_state(p, batch) for layer, p in zip(self.layers, params, strict=True))

    def out_dim(self, in_dim: int) -> int:
        """Return the number of output features of the top layer."""
        for layer in self.layers:
            in_dim = out_dim(layer, in_dim)
        return in_dim

    def with_context(self, params: tuple[Params, ...], context: Context) -> tuple[Params, ...]:
        """Return the params with the context in those of the layers that take one."""
        return tuple(with_context(layer, p, context) for layer, p in zip(self.layers, params, strict=True))

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
