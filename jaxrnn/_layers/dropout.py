"""Dropout of inputs. It is drawn from the `key` of `unroll` or `step`; without a key it passes its inputs through."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from .._core.composite import Composite, Runner
from .._core.fields import convert, number
from .._core.randomness import map_keys
from .._core.sharding import laid_as
from .._core.types import Key, Output, Params, State


def rate(given: Any, what: str) -> float:
    """Return a rate as a float; raise ValueError unless it is a number 0 <= rate < 1."""
    converted = number(given, what)
    if not 0 <= converted < 1:
        raise ValueError(f"{what} is a probability, 0 <= rate < 1; got {given}")
    return converted


def drop(key: jax.Array, rate: float, xs: jax.Array, mask_shape: tuple[int, ...]) -> jax.Array:
    """Zero entries with probability `rate` and scale the others by 1 / (1 - rate)."""
    keep = laid_as(jax.random.bernoulli(key, 1 - rate, mask_shape), xs)
    scaled = xs / (1 - rate)
    return jnp.where(keep, scaled, jnp.zeros_like(scaled))


@dataclasses.dataclass(frozen=True)
class _Dropout(Composite):
    """A layer without params or state that drops inputs."""

    rate: float

    def __check_init__(self) -> None:
        """Check the rate."""
        convert(self, rate=rate)

    def init(self, key: Key, in_dim: int) -> tuple[()]:
        """Return no params."""
        return ()

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> tuple[()]:
        """Return no state."""
        return ()

    def out_dim(self, in_dim: int) -> int:
        """Return `in_dim`."""
        return in_dim


class Dropout(_Dropout):
    """Dropout with a separate mask for every step: a layer for a `Stack`.

    Args:
        rate: the probability to drop a feature; the others are scaled by 1 / (1 - rate).

    >>> Stack((LSTM(8), Dropout(0.2), LSTM(8))).out_dim(3)
    8

    Reference: Zaremba, Sutskever and Vinyals, "Recurrent neural network regularization", 2014, eq. 7
    (https://arxiv.org/abs/1409.2329).
    """

    def step(self, params: Params, state: State, x: jax.Array, *, key: Key | None = None) -> tuple[State, jax.Array]:
        """Draw a mask (*batch, D), and apply it."""
        return state, x if key is None else drop(key, self.rate, x, x.shape)

    def unroll(
        self, runner: Runner, params: Params, state: State, reset_state: State, xs: jax.Array
    ) -> tuple[State, Output]:
        """Draw a mask (*batch, D) for every step, and apply it."""
        if runner.step_keys is None:
            return state, xs
        return state, map_keys(lambda key, x: drop(key, self.rate, x, x.shape), runner.step_keys, xs)


class VariationalDropout(_Dropout):
    """Dropout with one mask for all steps of a sequence: a layer for a `Stack`.

    Args:
        rate: the probability to drop a feature; the others are scaled by 1 / (1 - rate).

    Reference: Gal and Ghahramani, "A theoretically grounded application of dropout in recurrent neural networks",
    2016, section 4 (https://arxiv.org/abs/1512.05287): here of inputs and outputs; for the recurrent path see
    `RecurrentDropout`.
    """

    def step(self, params: Params, state: State, x: jax.Array, *, key: Key | None = None) -> tuple[State, jax.Array]:
        """Return x; raise ValueError with a key, since one step does not know the mask of its sequence."""
        refuse_key(self, key)
        return state, x

    def unroll(
        self, runner: Runner, params: Params, state: State, reset_state: State, xs: jax.Array
    ) -> tuple[State, Output]:
        """Draw a mask (*batch, D), and apply it to every step."""
        return state, xs if runner.key is None else drop(runner.key, self.rate, xs, xs.shape[1:])


def refuse_key(layer: Composite, key: Key | None) -> None:
    """Raise ValueError if a step of a layer with one mask for a whole sequence is given a key."""
    if key is not None:
        raise ValueError(
            f"{type(layer).__name__} draws one mask for a whole sequence, which a single step does not know. Use "
            "unroll(..., key=key), or step without a key."
        )
