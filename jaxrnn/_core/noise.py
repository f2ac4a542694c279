"""Cells whose inputs carry what is drawn at every step, so that drivers know nothing of randomness."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from .affine_cell import AffineCell
from .cell import Cell, GatedCell
from .randomness import Noise, draw_all, draws, no_noise, takes_key
from .sharding import rows_like
from .types import Inputs, Key, Output, Params, Projected, State
from .wrapped_cell import WrappedGatedCell


def with_noise(cell: Cell, xs: Inputs, keys: Key | None, batch: tuple[int, ...]) -> tuple[Cell, Inputs]:
    """Return a cell and inputs that hold the noise of every step, or the step's key for a plain cell that takes one.

    Args:
        cell: a cell, not a composite. One that draws nothing is returned as it is.
        xs: inputs (T, *batch, D).
        keys: (T,); None stands for no noise.
        batch: the batch axes.
    """
    if isinstance(cell, GatedCell | AffineCell):
        if not draws(cell):
            return cell, xs
        first = jax.tree.leaves(xs)[0]
        noise = tuple(rows_like(a, first) for a in draw_all(cell, keys, first.shape[0], batch))
        return (_NoisyGated(cell) if isinstance(cell, GatedCell) else _NoisyAffine(cell)), (xs, noise)
    return (_Keyed(cell), (xs, keys)) if keys is not None and takes_key(cell) else (cell, xs)


class _NoisyGated(WrappedGatedCell):
    """A gated cell with inputs (x, noise): the noise follows the arrays of u."""

    noise = no_noise  # the inputs hold it

    def project(self, params: Params, x: tuple[Inputs, Noise]) -> Projected:
        """Return u and the noise."""
        inputs, noise = x
        return (*self.cell.project(params, inputs), *noise)

    def output(self, params: Params, s: State, x: tuple[Inputs, Noise]) -> Output:
        """Return the cell's output."""
        return self.cell.output(params, s, x[0])


@dataclasses.dataclass(frozen=True)
class _NoisyAffine(AffineCell):
    """An affine cell with inputs (x, noise)."""

    cell: AffineCell

    def init(self, key: Key, in_dim: int) -> Params:
        """Draw the cell's params."""
        return self.cell.init(key, in_dim)

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """Return the cell's initial state."""
        return self.cell.initial_state(params, batch)

    def affine(self, params: Params, x: tuple[Inputs, Noise]) -> tuple[State, State]:
        """Return the cell's a and b."""
        return self.cell.affine(params, (x[0], *x[1]))

    def output(self, params: Params, s: State, x: tuple[Inputs, Noise]) -> Output:
        """Return the cell's output."""
        return self.cell.output(params, s, (x[0], *x[1]))


@dataclasses.dataclass(frozen=True)
class _Keyed:
    """A plain cell with inputs (x, key)."""

    cell: Any

    def init(self, key: Key, in_dim: int) -> Params:
        """Draw the cell's params."""
        return self.cell.init(key, in_dim)

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """Return the cell's initial state."""
        return self.cell.initial_state(params, batch)

    def step(self, params: Params, state: State, x: tuple[Inputs, Key]) -> tuple[State, Output]:
        """Apply one step of the cell with its key."""
        inputs, key = x
        return self.cell.step(params, state, inputs, key=key)
