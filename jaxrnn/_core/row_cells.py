"""Cells over one more batch axis: what `jax.vmap` over the rows of a batch makes of a cell."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from .affine_cell import AffineCell
from .cell import Cell, GatedCell
from .matrix_cell import MatrixCell
from .randomness import inner_noise
from .types import Inputs, Key, Output, Params, Projected, State
from .wrapped_cell import WrappedGatedCell


def over_rows(cell: Cell) -> Cell:
    """Return the cell for one more batch axis, in front of the others; it computes each row as `cell` does.

    The parts of a cell that take any leading axes take this one too. Those that take the batch axes alone, `transition`
    and the `step` of a plain cell, are mapped over it. The equation of a kernel is elementwise, and stays as it is.
    """
    if isinstance(cell, AffineCell | MatrixCell) or (isinstance(cell, GatedCell) and cell.native() is not None):
        return cell
    if isinstance(cell, GatedCell):
        return _GatedRows(cell, recurrence=cell.recurrence, initializer=cell.initializer)
    return _Rows(cell)


class _GatedRows(WrappedGatedCell):
    """A gated cell whose transition is mapped over the leading axis."""

    noise = inner_noise

    def transition(self, local: Params, s: State, u: Projected, v: tuple[jax.Array, ...]) -> State:
        """Apply the cell's transition to each row."""
        state: State = jax.vmap(self.cell.transition, in_axes=(None, 0, 0, 0))(local, s, u, v)
        return state


@dataclasses.dataclass(frozen=True)
class _Rows:
    """A plain cell whose step is mapped over the leading axis."""

    cell: Any

    def init(self, key: Key, in_dim: int) -> Params:
        """Draw the cell's params."""
        return self.cell.init(key, in_dim)

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """Return the cell's initial state."""
        return self.cell.initial_state(params, batch)

    def step(self, params: Params, state: State, x: Inputs) -> tuple[State, Output]:
        """Apply one step of the cell to each row."""
        out: tuple[State, Output] = jax.vmap(self.cell.step, in_axes=(None, 0, 0))(params, state, x)
        return out
