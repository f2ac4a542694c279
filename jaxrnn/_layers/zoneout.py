"""Zoneout: units that keep their old state at random."""

from __future__ import annotations

import dataclasses

import jax

from .._core.cell import GatedCell
from .._core.composite import Runner, WrappedCell
from .._core.fields import convert, show
from .._core.randomness import map_keys, split
from .._core.sharding import laid_as
from .._core.trees import number_rank
from .._core.types import Inputs, Key, Output, Params, Projected, State
from .._core.wrapped_cell import WrappedGatedCell
from .dropout import rate


def rates(given: object, what: str) -> float | State:
    """Return a rate, or a tree of rates, as floats."""
    if not jax.tree.leaves(given):
        raise ValueError(f"{what} must be a rate, or a state of rates; got {given}")
    return jax.tree.map(lambda leaf: rate(leaf, what), given)


@dataclasses.dataclass(frozen=True)
class Zoneout(WrappedCell):
    """A gated cell, each unit of whose state keeps its old value with probability `rate`, step by step.

    s_t = k_t * s_{t-1} + (1 - k_t) * transition(s_{t-1}), k_t drawn from Bernoulli(rate); without a key k_t = rate.

    Args:
        cell: a `GatedCell`.
        rate: the probability to keep; one for all, or a state of rates: `LSTMState(h=0.05, c=0.5)`.

    >>> cell = Zoneout(LSTM(4), LSTMState(h=0.05, c=0.5))
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> cell.step(params, cell.initial_state(params), jnp.ones(3))[1].shape
    (4,)

    Reference: Krueger et al., "Zoneout: regularizing RNNs by randomly preserving hidden activations", 2017, eq. 3 to
    5 (https://arxiv.org/abs/1606.01305).
    """

    cell: GatedCell
    rate: float | State = 0.1

    def __check_init__(self) -> None:
        """Check the cell and the rates."""
        if not isinstance(self.cell, GatedCell):
            raise ValueError(f"Zoneout needs a GatedCell; got {show(self.cell)}")
        convert(self, rate=rates)

    def step(self, params: Params, state: State, x: Inputs, *, key: Key | None = None) -> tuple[State, Output]:
        """Apply one step; without a key k is its mean, the rate."""
        own, key = split(key, 2)
        keep = None if own is None else self._draw(own, state)
        return _Zoned(self.cell, self.rate).step(params, state, (x, keep), key=key)

    def unroll(
        self, runner: Runner, params: Params, state: State, reset_state: State, xs: Inputs
    ) -> tuple[State, Output]:
        """Draw k for every step, and run the cell over time."""
        own, run = runner.split(2)
        keep = None
        if own.step_keys is not None:
            keep = map_keys(lambda key: self._draw(key, state), own.step_keys)
        return run(_Zoned(self.cell, self.rate), params, state, reset_state, (xs, keep))

    def _draw(self, key: Key, state: State) -> State:
        """Draw k for one step."""
        draw = lambda k, rate, s: laid_as(jax.random.bernoulli(k, rate, s.shape).astype(s.dtype), s)
        keys = jax.tree.unflatten(jax.tree.structure(state), split(key, len(jax.tree.leaves(state))))
        return jax.tree.map(draw, keys, _rates(self.rate, state), state)


@dataclasses.dataclass(frozen=True)
class _Zoned(WrappedGatedCell):
    """A gated cell with zoneout, whose inputs carry k_t: (x_t, k_t), or (x_t, None)."""

    rate: float | State

    def project(self, params: Params, x: tuple[Inputs, State]) -> Projected:
        """Return the cell's u, and k."""
        x, keep = x
        return self.cell.project(params, x), keep

    def transition(self, local: Params, s: State, u: Projected, v: tuple[jax.Array, ...]) -> State:
        """Mix the old state with the new one."""
        u, keep, *noise = u
        new = self.cell.transition(local, s, (*u, *noise) if noise else u, v)
        keep = _rates(self.rate, s) if keep is None else keep
        mix = lambda k, old, new: k * old + (1 - k) * new if number_rank(old.dtype) else new  # not of counters
        return jax.tree.map(mix, keep, s, new)

    def output(self, params: Params, s: State, x: tuple[Inputs, State]) -> Output:
        """Return the cell's output."""
        return self.cell.output(params, s, x[0])


def _rates(rate: float | State, state: State) -> State:
    """Return a rate for every leaf of the state."""
    if isinstance(rate, float):
        return jax.tree.map(lambda _: rate, state)
    if jax.tree.structure(rate) != jax.tree.structure(state):  # type: ignore[operator]
        raise ValueError(
            f"Zoneout takes one rate, or a rate for every leaf of the cell's state, {jax.tree.structure(state)}; got "
            f"rate={rate}"
        )
    return rate
