"""A learned initial state."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._core.composite import Runner, WrappedCell, need_step
from .._core.context import with_context
from .._core.exportable import exportable
from .._core.fields import show
from .._core.randomness import step
from .._core.types import Context, Inputs, Key, Output, Params, State


@exportable
class LearnedParams(NamedTuple):
    """The params of a cell, and its initial state without batch axes."""

    cell: Params
    state: State


@dataclasses.dataclass(frozen=True)
class LearnedState(WrappedCell):
    """A cell (or a composite) whose initial state is one of its params; resets go to it too.

    It is initialized as the cell's own initial state.

    >>> cell = LearnedState(LSTM(4))
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> params.state.c.shape, cell.initial_state(params, (2,)).c.shape
    ((4,), (2, 4))
    """

    def init(self, key: Key, in_dim: int) -> LearnedParams:
        """Draw the cell's params, and start from its initial state."""
        params = self.cell.init(key, in_dim)
        return LearnedParams(params, self.cell.initial_state(params))

    def initial_state(self, params: LearnedParams, batch: tuple[int, ...] = ()) -> State:
        """Return the learned state, the same for every row; raise ValueError without params."""
        if params is None:
            raise ValueError(
                f"the initial state of {show(self)} is one of its params; got None for them. Make them first: "
                "params = cell.init(key, in_dim)."
            )
        return jax.tree.map(lambda s: jnp.broadcast_to(s, (*batch, *s.shape)), params.state)

    def with_context(self, params: LearnedParams, context: Context) -> LearnedParams:
        """Return the params with the context in those of the cell."""
        return params._replace(cell=with_context(self.cell, params.cell, context))

    def step(self, params: LearnedParams, state: State, x: Inputs, *, key: Key | None = None) -> tuple[State, Output]:
        """Apply one step of the cell."""
        return step(need_step(self.cell, self), params.cell, state, x, key)

    def unroll(
        self, runner: Runner, params: LearnedParams, state: State, reset_state: State, xs: Inputs
    ) -> tuple[State, Output]:
        """Run the cell over time."""
        return runner(self.cell, params.cell, state, reset_state, xs)
