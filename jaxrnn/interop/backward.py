"""A cell turned around in time, for formats that have a layer of the backward direction alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from ..cell import Output, Params, State
from ..compose import Composite, Run, out_dim


@dataclasses.dataclass(frozen=True)
class Backward(Composite):
    """A cell that runs backward in time, outputs staying at their steps: ONNX's `direction="reverse"`.

    >>> Backward(GRU(4)).out_dim(3)
    4
    """

    cell: Any

    def init(self, key: jax.Array, in_dim: int) -> Params:
        """Draw the cell's params."""
        return self.cell.init(key, in_dim)

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """Give the cell's initial state: the one before the last step."""
        return self.cell.initial_state(params, batch)

    def out_dim(self, in_dim: int) -> int:
        """Give what the cell puts out."""
        return out_dim(self.cell, in_dim)

    def cross(
        self, run: Run, params: Params, state: State, initial: State, xs: Any, key: jax.Array | None
    ) -> tuple[State, Output]:
        """Cross time backward."""
        return run(self.cell, params, state, initial, xs, key, flip=True)
