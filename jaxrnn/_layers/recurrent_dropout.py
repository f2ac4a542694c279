"""Dropout of the recurrent path: of the state that the recurrent weights see, or of those weights."""

from __future__ import annotations

import abc
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from .._core.cell import GatedCell
from .._core.composite import Runner, WrappedCell
from .._core.fields import convert, show
from .._core.types import Inputs, Key, Output, Params, Projected, State
from .._core.wrapped_cell import WrappedGatedCell
from .dropout import drop, rate, refuse_key


@dataclasses.dataclass(frozen=True)
class _Recurrent(WrappedCell):
    """A gated cell whose recurrent path changes while a key is given."""

    cell: GatedCell
    rate: float

    def __check_init__(self) -> None:
        """Check the cell and the rate."""
        if not isinstance(self.cell, GatedCell):
            raise ValueError(f"{type(self).__name__} needs a GatedCell, such as LSTM(128); got {show(self.cell)}")
        convert(self, rate=rate)

    def step(self, params: Params, state: State, x: Inputs, *, key: Key | None = None) -> tuple[State, Output]:
        """Apply one step of the cell, without dropout; raise ValueError with a key."""
        refuse_key(self, key)
        return self.cell.step(params, state, x)

    def unroll(
        self, runner: Runner, params: Params, state: State, reset_state: State, xs: Inputs
    ) -> tuple[State, Output]:
        """Run the cell over time, with dropout if there is a key."""
        if runner.key is None:
            return runner(self.cell, params, state, reset_state, xs)
        return self._dropped(runner.key, runner, params, state, reset_state, xs)

    @abc.abstractmethod
    def _dropped(
        self, key: Key, runner: Runner, params: Params, state: State, reset_state: State, xs: Inputs
    ) -> tuple[State, Output]:
        """Draw a mask from the key, and run the cell over time with it."""


class RecurrentDropout(_Recurrent):
    """Dropout of the state that the recurrent weights see, with one mask for all steps of a sequence.

    v_t = (m * read(s_{t-1})) W_h, m drawn once a sequence and unit: 0 with probability `rate`, else 1 / (1 - rate).
    The state itself and the outputs are not dropped. Without a key m = 1, and any driver takes the cell; with a key
    the mask is a part of the state, so `Native` and `Fused` do not.

    Args:
        cell: a `GatedCell` that inherits `recur`, with any recurrence.
        rate: the probability to drop a unit.

    >>> cell = RecurrentDropout(LSTM(4), 0.25)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> unroll(cell, params, jnp.ones((5, 2, 3)), key=jax.random.key(1))[1].shape
    (5, 2, 4)

    Reference: Gal and Ghahramani, "A theoretically grounded application of dropout in recurrent neural networks",
    2016, eq. 7 (https://arxiv.org/abs/1512.05287), the mask shared by all gates.
    Note: Keras calls it `recurrent_dropout`. For inputs and outputs see `VariationalDropout`.
    """

    def __check_init__(self) -> None:
        """Check that the cell reads its state by `read`."""
        if type(self.cell).recur is not GatedCell.recur:
            raise ValueError(
                f"RecurrentDropout masks what `read` returns, which the own `recur` of {show(self.cell)} ignores"
            )

    def _dropped(
        self, key: Key, runner: Runner, params: Params, state: State, reset_state: State, xs: Inputs
    ) -> tuple[State, Output]:
        """Draw the mask (*batch, H), and run the cell with the mask in its state."""
        read = self.cell.read(state)
        mask = drop(key, self.rate, jnp.ones_like(read), read.shape)
        (state, _), ys = runner(_Masked(self.cell), params, (state, mask), (reset_state, mask), xs)
        return state, ys


class _Masked(WrappedGatedCell):
    """A gated cell with a state (s, mask), whose recurrent weights see the mask times what the cell reads of s."""

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """Return the cell's initial state, and a mask of ones."""
        s = self.cell.initial_state(params, batch)
        return s, jnp.ones_like(self.cell.read(s))

    def read(self, s: State) -> jax.Array:
        """Read the masked state."""
        s, mask = s
        return self.cell.read(s) * mask

    def recur(self, params: Params, s: State) -> tuple[jax.Array, ...]:
        """Multiply the masked state with the recurrent weights."""
        return self.cell.recurrence(params.w_h, self.read(s))

    def transition(self, local: Params, s: State, u: Projected, v: tuple[jax.Array, ...]) -> State:
        """Step the cell; the mask stays."""
        s, mask = s
        return self.cell.transition(local, s, u, v), mask

    def output(self, params: Params, s: State, x: Inputs) -> Output:
        """Return the cell's output."""
        return self.cell.output(params, s[0], x)


class WeightDrop(_Recurrent):
    """Dropout of the recurrent weights: one mask for all steps and rows, so any driver of the cell takes it.

    v_t = read(s_{t-1}) (M * W_h), M drawn once a call: 0 with probability `rate`, else 1 / (1 - rate).

    Args:
        cell: a `GatedCell` whose params have a field `w_h`, as `GatedParams` do; any recurrence.
        rate: the probability to drop a weight.

    >>> cell = WeightDrop(GRU(4), 0.5)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> unroll(cell, params, jnp.ones((5, 2, 3)), key=jax.random.key(1))[1].shape
    (5, 2, 4)

    Reference: Merity, Keskar and Socher, "Regularizing and optimizing LSTM language models" (AWD-LSTM), 2018, section
    2 (https://arxiv.org/abs/1708.02182).
    """

    def init(self, key: Key, in_dim: int) -> Params:
        """Draw the cell's params; raise ValueError unless they have weights to drop."""
        params = self.cell.init(key, in_dim)
        self._check(params)
        return params

    def _check(self, params: Params) -> None:
        """Raise ValueError unless the params have weights to drop."""
        weights = getattr(params, "w_h", None)
        if not isinstance(weights, jax.Array | np.ndarray) or not hasattr(params, "_replace"):
            raise ValueError(
                f"WeightDrop drops the array w_h of the params, which those of {show(self.cell)} do not have: they are "
                f"a {type(params).__name__}. Make them a NamedTuple with a field w_h, or use RecurrentDropout."
            )

    def _dropped(
        self, key: Key, runner: Runner, params: Params, state: State, reset_state: State, xs: Inputs
    ) -> tuple[State, Output]:
        """Drop weights, and run the cell with the others."""
        self._check(params)
        params = params._replace(w_h=drop(key, self.rate, params.w_h, params.w_h.shape))
        return runner(self.cell, params, state, reset_state, xs)
