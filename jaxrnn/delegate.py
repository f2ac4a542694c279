"""A gated cell that hands on to another."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from .cell import GatedCell, Output, Params, State


@dataclasses.dataclass(frozen=True)
class Delegate(GatedCell):
    """A gated cell that is `cell` in everything; a subclass changes one thing."""

    cell: GatedCell

    @property
    def hidden(self) -> int:
        """H of the cell."""
        return self.cell.hidden

    @property
    def gates(self) -> int:
        """G of the cell."""
        return self.cell.gates

    def init(self, key: jax.Array, in_dim: int) -> Params:
        """As the cell."""
        return self.cell.init(key, in_dim)

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """As the cell."""
        return self.cell.initial_state(params, batch)

    def read(self, s: State) -> jax.Array:
        """As the cell."""
        return self.cell.read(s)

    def gate(self, s: State, u: Any, v: tuple[jax.Array, ...]) -> State:
        """As the cell."""
        return self.cell.gate(s, u, v)

    def local(self, params: Params) -> Any:
        """As the cell."""
        return self.cell.local(params)

    def transition(self, local: Any, s: State, u: Any, v: tuple[jax.Array, ...]) -> State:
        """As the cell."""
        return self.cell.transition(local, s, u, v)

    def project(self, params: Params, x: Any) -> Any:
        """As the cell."""
        return self.cell.project(params, x)

    def recur(self, params: Params, s: State) -> tuple[jax.Array, ...]:
        """As the cell."""
        return self.cell.recur(params, s)

    def output(self, params: Params, s: State, x: Any) -> Output:
        """As the cell."""
        return self.cell.output(params, s, x)
