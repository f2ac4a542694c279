"""The whole state as the output."""

from __future__ import annotations

import dataclasses

from .._core.cell import Cell, GatedCell
from .._core.composite import Composite, Runner, WrappedCell, need_step
from .._core.fields import show
from .._core.randomness import step
from .._core.types import Inputs, Key, Output, Params, State
from .._core.wrapped_cell import WrappedGatedCell


@dataclasses.dataclass(frozen=True)
class States(WrappedCell):
    """A cell whose output is its whole state: an LSTM's c_t too.

    >>> cell = States(LSTM(4))
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.c.shape
    (4,)
    """

    def __check_init__(self) -> None:
        """Check the cell."""
        if isinstance(self.cell, Composite):
            raise ValueError(
                f"States returns the state of one cell; got {show(self.cell)}. Wrap the cell inside it instead, or "
                "unroll layer by layer."
            )

    def out_dim(self, in_dim: int) -> int:
        """Raise ValueError: a whole state is no array of features."""
        raise ValueError(f"{show(self)} returns a whole state, so no layer can stand on it. Put it on top.")

    def step(self, params: Params, state: State, x: Inputs, *, key: Key | None = None) -> tuple[State, State]:
        """Apply one step of the cell."""
        state, _ = step(self.cell, params, state, x, key)
        return state, state

    def unroll(
        self, runner: Runner, params: Params, state: State, reset_state: State, xs: Inputs
    ) -> tuple[State, Output]:
        """Run the cell over time, with its state as the output."""
        cell = _GatedStates(self.cell) if isinstance(self.cell, GatedCell) else _PlainStates(need_step(self.cell, self))
        return runner(cell, params, state, reset_state, xs)


class _GatedStates(WrappedGatedCell):
    """A gated cell whose output is its state."""

    def output(self, params: Params, s: State, x: Inputs) -> State:
        """Return the whole state, in the dtype that it is kept in."""
        return s


@dataclasses.dataclass(frozen=True)
class _PlainStates:
    """A plain cell whose output is its state."""

    cell: Cell

    def init(self, key: Key, in_dim: int) -> Params:
        """Draw the cell's params."""
        return self.cell.init(key, in_dim)

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """Return the cell's initial state."""
        return self.cell.initial_state(params, batch)

    def step(self, params: Params, state: State, x: Inputs, *, key: Key | None = None) -> tuple[State, State]:
        """Apply one step of the cell."""
        state, _ = step(self.cell, params, state, x, key)
        return state, state
