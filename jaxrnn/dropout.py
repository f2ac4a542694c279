"""Noise for training. It is drawn from the `key` of `unroll`; with `key=None` everything here is deterministic."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from .cell import GatedCell, Output, Params, State
from .compose import Composite, Run, out_dim
from .delegate import Delegate
from .fields import convert, number, show
from .mesh import laid_as
from .trees import number_rank


def rate(given: Any, what: str) -> float:
    """Return a rate as a float; raise ValueError unless it is a number 0 <= rate < 1."""
    converted = number(given, what)
    if not 0 <= converted < 1:
        raise ValueError(f"{what} is a probability, 0 <= rate < 1; got {given}")
    return converted


def rates(given: Any, what: str) -> Any:
    """Return a rate, or a tree of rates, as floats."""
    if not jax.tree.leaves(given):
        raise ValueError(f"{what} must be a rate, or a state of rates; got {given}")
    return jax.tree.map(lambda leaf: rate(leaf, what), given)


def drop(key: jax.Array, rate: float, xs: jax.Array, mask_shape: tuple[int, ...]) -> jax.Array:
    """Zero entries with probability `rate` and scale the others by 1 / (1 - rate)."""
    keep = laid_as(jax.random.bernoulli(key, 1 - rate, mask_shape), xs)
    scaled = xs / (1 - rate)
    return jnp.where(keep, scaled, jnp.zeros_like(scaled))


@dataclasses.dataclass(frozen=True)
class _Layer(Composite):
    """A layer without params or state, that changes its inputs while a key is given."""

    rate: float

    def __check_init__(self) -> None:
        """Check the rate."""
        convert(self, rate=rate)

    def init(self, key: jax.Array, in_dim: int) -> tuple[()]:
        """No params."""
        return ()

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> tuple[()]:
        """No state."""
        return ()

    def out_dim(self, in_dim: int) -> int:
        """As many as come in."""
        return in_dim

    def step(self, params: Params, state: State, x: Any) -> tuple[State, Any]:
        """Pass x through: streaming is deterministic."""
        return state, x


class Dropout(_Layer):
    """Dropout with a mask of its own for every step: a layer for a `Stack`.

    Args:
        rate: the probability to drop a feature; what is kept is scaled by 1 / (1 - rate).

    >>> Stack((LSTM(8), Dropout(0.2), LSTM(8))).out_dim(3)
    8

    Reference: Zaremba, Sutskever and Vinyals, "Recurrent neural network regularization", 2014, eq. 7
    (https://arxiv.org/abs/1409.2329).
    """

    def cross(
        self, run: Run, params: Params, state: State, initial: State, xs: Any, key: jax.Array | None
    ) -> tuple[State, Output]:
        """Draw a mask (T, *batch, D)."""
        return state, xs if key is None else drop(key, self.rate, xs, xs.shape)


class VariationalDropout(_Layer):
    """Dropout with one mask for all steps of a sequence: a layer for a `Stack`.

    Args:
        rate: the probability to drop a feature; what is kept is scaled by 1 / (1 - rate).

    Reference: Gal and Ghahramani, "A theoretically grounded application of dropout in recurrent neural networks",
    2016, section 4 (https://arxiv.org/abs/1512.05287): here on inputs and outputs; for the recurrent path see
    `RecurrentDropout`.
    """

    def cross(
        self, run: Run, params: Params, state: State, initial: State, xs: Any, key: jax.Array | None
    ) -> tuple[State, Output]:
        """Draw a mask (*batch, D)."""
        return state, xs if key is None else drop(key, self.rate, xs, xs.shape[1:])


@dataclasses.dataclass(frozen=True)
class Zoneout(Composite):
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
    rate: Any = 0.1

    def __check_init__(self) -> None:
        """Check the cell and the rates."""
        if not isinstance(self.cell, GatedCell):
            raise ValueError(f"Zoneout needs a GatedCell; got {show(self.cell)}")
        convert(self, rate=rates)

    def init(self, key: jax.Array, in_dim: int) -> Params:
        """Draw the cell's params."""
        return self.cell.init(key, in_dim)

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """Give the cell's initial state."""
        return self.cell.initial_state(params, batch)

    def out_dim(self, in_dim: int) -> int:
        """Give what the cell puts out."""
        return out_dim(self.cell, in_dim)

    def step(self, params: Params, state: State, x: Any) -> tuple[State, Output]:
        """Take one step with the expected k."""
        return _Zoned(self.cell, self.rate).step(params, state, (x, None))

    def cross(
        self, run: Run, params: Params, state: State, initial: State, xs: Any, key: jax.Array | None
    ) -> tuple[State, Output]:
        """Draw k for every step, and cross time with the cell."""
        keep = None if key is None else self._draw(key, state, jax.tree.leaves(xs)[0].shape[0])
        return run(_Zoned(self.cell, self.rate), params, state, initial, (xs, keep), None)

    def _draw(self, key: jax.Array, state: State, length: int) -> State:
        leaves, form = jax.tree.flatten(state)
        keys = jax.tree.unflatten(form, list(jax.random.split(key, len(leaves))))
        return jax.tree.map(
            lambda k, rate, s: jax.random.bernoulli(k, rate, (length, *s.shape)).astype(s.dtype),
            keys,
            _rates(self.rate, state),
            state,
        )


@dataclasses.dataclass(frozen=True)
class _Zoned(Delegate):
    """A gated cell with zoneout, whose inputs carry k_t: (x_t, k_t), or (x_t, None)."""

    rate: Any

    def project(self, params: Params, x: Any) -> Any:
        """Project x, and pass k on."""
        x, keep = x
        return self.cell.project(params, x), keep

    def transition(self, local: Any, s: State, u: Any, v: tuple[jax.Array, ...]) -> State:
        """Mix the old state into the new one."""
        u, keep = u
        new = self.cell.transition(local, s, u, v)
        keep = _rates(self.rate, s) if keep is None else keep
        mix = lambda k, old, new: k * old + (1 - k) * new if number_rank(old.dtype) else new  # counters go on
        return jax.tree.map(mix, keep, s, new)

    def output(self, params: Params, s: State, x: Any) -> Output:
        """As the cell."""
        return self.cell.output(params, s, x[0])


def _rates(rate: Any, state: State) -> Any:
    """Return a rate for every leaf of the state."""
    if isinstance(rate, float):
        return jax.tree.map(lambda _: rate, state)
    if jax.tree.structure(rate) != jax.tree.structure(state):  # type: ignore[operator]
        raise ValueError(
            f"Zoneout takes one rate, or a rate for every leaf of the cell's state, {jax.tree.structure(state)}; got "
            f"rate={rate}"
        )
    return rate
