"""A cell that runs backward in time."""

from __future__ import annotations

import dataclasses

from .._core.composite import Composite, Part, Runner, out_dim, part
from .._core.context import with_context
from .._core.fields import convert
from .._core.types import Context, Inputs, Key, Output, Params, State


@dataclasses.dataclass(frozen=True)
class Reversed(Composite):
    """A cell that runs from the last step to the first, outputs staying at their steps.

    It has no causal step and so is no cell; `unroll` takes it all the same, within a `Stack` too.

    >>> Stack((GRU(4), Reversed(GRU(4)))).out_dim(3)
    4
    """

    cell: Part

    def __check_init__(self) -> None:
        """Check the cell."""
        convert(self, cell=part)

    def init(self, key: Key, in_dim: int) -> Params:
        """Draw the cell's params."""
        return self.cell.init(key, in_dim)

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """Return the cell's initial state: the one before the last step."""
        return self.cell.initial_state(params, batch)

    def out_dim(self, in_dim: int) -> int:
        """Return the number of the cell's output features."""
        return out_dim(self.cell, in_dim)

    def with_context(self, params: Params, context: Context) -> Params:
        """Return the cell's params with the context in them."""
        return with_context(self.cell, params, context)

    def unroll(
        self, runner: Runner, params: Params, state: State, reset_state: State, xs: Inputs
    ) -> tuple[State, Output]:
        """Run the cell over time in the other direction."""
        return runner.reversed()(self.cell, params, state, reset_state, xs)
