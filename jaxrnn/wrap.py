"""A cell with one thing changed: what it begins with, or what it puts out."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .cell import Cell, GatedCell, Output, Params, State
from .compose import Composite, Run, need_step, out_dim, part
from .delegate import Delegate
from .exportable import exportable
from .fields import convert, show


@exportable
class LearnedParams(NamedTuple):
    """The params of a cell, and its initial state without batch axes."""

    cell: Params
    state: State


@dataclasses.dataclass(frozen=True)
class LearnedState(Composite):
    """A cell (or a composite) whose initial state is among its params; resets go to it too.

    It begins as the cell's own initial state.

    >>> cell = LearnedState(LSTM(4))
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> params.state.c.shape, cell.initial_state(params, (2,)).c.shape
    ((4,), (2, 4))
    """

    cell: Any

    def __check_init__(self) -> None:
        """Check the cell."""
        convert(self, cell=part)

    def init(self, key: jax.Array, in_dim: int) -> LearnedParams:
        """Draw the cell's params; its initial state is the first guess."""
        params = self.cell.init(key, in_dim)
        return LearnedParams(params, self.cell.initial_state(params))

    def initial_state(self, params: LearnedParams, batch: tuple[int, ...] = ()) -> State:
        """Return the learned state, the same for every row; raise ValueError without params."""
        if params is None:
            raise ValueError(
                f"the initial state of {show(self)} is among its params; got None for them. Make them first: "
                "params = cell.init(key, in_dim)."
            )
        return jax.tree.map(lambda s: jnp.broadcast_to(s, (*batch, *s.shape)), params.state)

    def out_dim(self, in_dim: int) -> int:
        """Give what the cell puts out."""
        return out_dim(self.cell, in_dim)

    def step(self, params: LearnedParams, state: State, x: Any) -> tuple[State, Output]:
        """Take one step of the cell."""
        return need_step(self.cell, self).step(params.cell, state, x)

    def cross(
        self, run: Run, params: LearnedParams, state: State, initial: State, xs: Any, key: jax.Array | None
    ) -> tuple[State, Output]:
        """Cross time with the cell."""
        return run(self.cell, params.cell, state, initial, xs, key)


@dataclasses.dataclass(frozen=True)
class States(Composite):
    """A cell that puts out its whole state: an LSTM's c_t too.

    >>> cell = States(LSTM(4))
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.c.shape
    (4,)
    """

    cell: Cell

    def __check_init__(self) -> None:
        """Check the cell."""
        convert(self, cell=part)
        if isinstance(self.cell, Composite):
            raise ValueError(
                f"States returns the state of one cell; got {show(self.cell)}. Wrap the cell inside it instead, or "
                "unroll layer by layer."
            )

    def init(self, key: jax.Array, in_dim: int) -> Params:
        """Draw the cell's params."""
        return self.cell.init(key, in_dim)

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """Give the cell's initial state."""
        return self.cell.initial_state(params, batch)

    def out_dim(self, in_dim: int) -> int:
        """Raise: a whole state is no array of features."""
        raise ValueError(f"{show(self)} returns a whole state, so no layer can stand on it. Put it on top.")

    def step(self, params: Params, state: State, x: Any) -> tuple[State, State]:
        """Take one step of the cell."""
        state, _ = self.cell.step(params, state, x)
        return state, state

    def cross(
        self, run: Run, params: Params, state: State, initial: State, xs: Any, key: jax.Array | None
    ) -> tuple[State, Output]:
        """Cross time with the cell, its output exchanged."""
        leaf = _GatedStates(self.cell) if isinstance(self.cell, GatedCell) else _PlainStates(self.cell)
        return run(leaf, params, state, initial, xs, key)


@dataclasses.dataclass(frozen=True)
class _PlainStates:
    """A plain cell that puts out its state."""

    cell: Cell

    def init(self, key: jax.Array, in_dim: int) -> Params:
        """As the cell."""
        return self.cell.init(key, in_dim)

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """As the cell."""
        return self.cell.initial_state(params, batch)

    def step(self, params: Params, state: State, x: Any) -> tuple[State, State]:
        """As the cell, but for what is put out."""
        state, _ = self.cell.step(params, state, x)
        return state, state


class _GatedStates(Delegate):
    """A gated cell that puts out its state."""

    def output(self, params: Params, s: State, x: Any) -> State:
        """Put out the whole state, in the dtype that it is kept in."""
        return s
