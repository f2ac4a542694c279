"""A gated cell that passes everything on to another."""

from __future__ import annotations

import dataclasses

import jax

from .cell import GatedCell
from .randomness import inner_noise
from .types import Inputs, Key, Output, Params, Projected, State


@dataclasses.dataclass(frozen=True)
class WrappedGatedCell(GatedCell):
    """A gated cell that computes what `cell` computes; a subclass changes one method.

    >>> class CellState(WrappedGatedCell):
    ...     def output(self, params, s, x): return s.c
    >>> cell = CellState(LSTM(4))
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> cell.step(params, cell.initial_state(params), jnp.ones(3))[1].shape
    (4,)
    """

    cell: GatedCell

    @property
    def hidden(self) -> int:
        """H of the cell."""
        return self.cell.hidden

    @property
    def gates(self) -> int:
        """G of the cell."""
        return self.cell.gates

    def init(self, key: Key, in_dim: int) -> Params:
        """Draw the cell's params."""
        return self.cell.init(key, in_dim)

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """Return the cell's initial state."""
        return self.cell.initial_state(params, batch)

    def read(self, s: State) -> jax.Array:
        """Return what the cell reads of its state."""
        return self.cell.read(s)

    def gate(self, s: State, u: Projected, v: tuple[jax.Array, ...]) -> State:
        """Apply the cell's gate."""
        return self.cell.gate(s, u, v)

    def local(self, params: Params) -> Params:
        """Return the params that the cell's gate uses."""
        return self.cell.local(params)

    def transition(self, local: Params, s: State, u: Projected, v: tuple[jax.Array, ...]) -> State:
        """Apply the cell's transition."""
        return self.cell.transition(local, s, u, v)

    def project(self, params: Params, x: Inputs) -> Projected:
        """Return the cell's u."""
        return self.cell.project(params, x)

    def recur(self, params: Params, s: State) -> tuple[jax.Array, ...]:
        """Return the cell's v."""
        return self.cell.recur(params, s)

    noise = inner_noise

    def output(self, params: Params, s: State, x: Inputs) -> Output:
        """Return the cell's output."""
        return self.cell.output(params, s, x)
