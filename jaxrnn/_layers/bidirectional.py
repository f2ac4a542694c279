"""Both directions of time."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._core.composite import Composite, Part, Runner, out_dim, part
from .._core.context import with_context
from .._core.exportable import exportable
from .._core.fields import check_init, convert
from .._core.types import Context, Inputs, Output, Params, State


@exportable
class Both(NamedTuple):
    """The params, or the state, of the two directions."""

    forward: Params
    backward: Params


@dataclasses.dataclass(frozen=True)
class Bidirectional(Composite):
    """One cell forward and one backward in time, their outputs concatenated: y = [y_forward, y_backward].

    Args:
        forward: the cell that runs forward in time.
        backward: the cell that runs backward; None takes an equal one, with separate params.

    It has no causal step and so is no cell; `unroll` takes it all the same, within a `Stack` too.

    >>> both = Bidirectional(GRU(4))
    >>> params = both.init(jax.random.key(0), in_dim=3)
    >>> isinstance(both, Cell), both.out_dim(3)
    (False, 8)

    Reference: Schuster and Paliwal, "Bidirectional recurrent neural networks", 1997.
    """

    forward: Part
    backward: Part | None = None

    def __check_init__(self) -> None:
        """Check the cells."""
        convert(self, forward=part)
        if self.backward is not None:
            convert(self, backward=part)

    @property
    def cells(self) -> tuple[Part, Part]:
        """The cells of both directions."""
        return self.forward, self.forward if self.backward is None else self.backward

    def init(self, key: jax.Array, in_dim: int) -> Both:
        """Draw the params of both directions."""
        self.out_dim(check_init(self, key, in_dim))
        return Both(*(cell.init(k, in_dim) for cell, k in zip(self.cells, jax.random.split(key), strict=True)))

    def initial_state(self, params: Both, batch: tuple[int, ...] = ()) -> Both:
        """Return both initial states: the backward cell's is the one before the last step."""
        params = Both(None, None) if params is None else params
        return Both(*(cell.initial_state(p, batch) for cell, p in zip(self.cells, params, strict=True)))

    def out_dim(self, in_dim: int) -> int:
        """Return the sum of the output features of both."""
        return sum(out_dim(cell, in_dim) for cell in self.cells)

    def with_context(self, params: Both, context: Context) -> Both:
        """Return the params with the context in those of the directions that take one."""
        return Both(*(with_context(cell, p, context) for cell, p in zip(self.cells, params, strict=True)))

    def unroll(self, runner: Runner, params: Both, state: Both, reset_state: Both, xs: Inputs) -> tuple[State, Output]:
        """Run one cell forward over time, and the other backward."""
        forward, backward = runner.split(2)
        cell_f, cell_b = self.cells
        state_f, ys_f = forward(cell_f, params.forward, state.forward, reset_state.forward, xs)
        state_b, ys_b = backward.reversed()(cell_b, params.backward, state.backward, reset_state.backward, xs)
        return Both(state_f, state_b), jnp.concatenate([ys_f, ys_b], axis=-1)
