"""A cell that runs backward in time."""

from __future__ import annotations

import dataclasses

from .._core.composite import Runner, Wrapper
from .._core.types import Inputs, Output, Params, State


@dataclasses.dataclass(frozen=True)
class Reversed(Wrapper):
    """A cell that runs from the last step to the first, outputs staying at their steps.

    Its initial state is the one before the last step. It has no causal step and so is no cell; `unroll` takes it all
    the same, within a `Stack` too.

    >>> Stack((GRU(4), Reversed(GRU(4)))).out_dim(3)
    4
    """

    def unroll(
        self, runner: Runner, params: Params, state: State, reset_state: State, xs: Inputs
    ) -> tuple[State, Output]:
        """Run the cell over time in the other direction."""
        return runner.reversed()(self.cell, params, state, reset_state, xs)
