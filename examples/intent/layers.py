"""The layers of the model: a vector for every token, inputs beside states, and what is read of both."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn.extend import WrappedCell, out_dim, step
from jaxrnn.model import BagEmbedding, maximum, mean

LOUDER = 4.0
"""What the mean of token vectors is multiplied by, to be as large as states are."""


@dataclasses.dataclass(frozen=True)
class TokenEmbedding(BagEmbedding):
    """A vector for every token: its word's own, plus the mean of its n-grams'.

    ids (T, *batch, N) to (T, *batch, F); the first of the N is the word's, 0 where it is unknown. In one mean with its
    n-grams a word would hardly be heard.
    """

    def weights(self, ids: jax.Array) -> jax.Array:
        """A word counts 1, its n-grams count 1 together."""
        return super().weights(ids.at[..., 0].set(0)).at[..., 0].set(1)


@dataclasses.dataclass(frozen=True)
class Beside(WrappedCell):
    """Layers that return their inputs too, behind their outputs: (T, *batch, D) to (T, *batch, H + D)."""

    def out_dim(self, in_dim: int) -> int:
        """H + D."""
        return out_dim(self.cell, in_dim) + in_dim

    def unroll(self, runner: Any, params: Any, state: Any, reset_state: Any, xs: Any) -> tuple[Any, jax.Array]:
        """Unroll the layers."""
        state, ys = runner(self.cell, params, state, reset_state, xs)
        return state, jnp.concatenate([ys, xs], axis=-1)

    def step(self, params: Any, state: Any, x: jax.Array, *, key: Any = None) -> tuple[Any, jax.Array]:
        """Take one step."""
        state, y = step(self.cell, params, state, x, key)
        return state, jnp.concatenate([y, x], axis=-1)


@dataclasses.dataclass(frozen=True)
class HighestAndMean:
    """Read the maximum over time of all features but the last D, and the mean of these, made louder.

    Args:
        inputs: D.
    """

    inputs: int

    def __call__(self, ys: jax.Array, lengths: Any = None) -> jax.Array:
        """(T, *batch, H + D) to (*batch, H + D)."""
        states, inputs = ys[..., : -self.inputs], ys[..., -self.inputs :]
        return jnp.concatenate([maximum(states, lengths), LOUDER * mean(inputs, lengths)], axis=-1)
