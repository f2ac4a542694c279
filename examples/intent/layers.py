"""Layers of the model: an embedding of tokens, a layer that also returns its inputs, and the pooling of both."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn.extend import WrappedCell, out_dim, step
from jaxrnn.model import BagEmbedding, maximum, mean

MEAN_SCALE = 4.0
"""Factor of the mean of token vectors, which makes them as large as the states."""


@dataclasses.dataclass(frozen=True)
class TokenEmbedding(BagEmbedding):
    """A vector for every token: the vector of its word plus the mean of the vectors of its n-grams.

    ids (T, *batch, N) to (T, *batch, F). The first of the N ids is the word, 0 if it is unknown. A single mean over
    all ids would give the word too little weight.
    """

    def weights(self, ids: jax.Array) -> jax.Array:
        """Return the weight of each id: 1 for the word, and 1 divided among its n-grams."""
        return super().weights(ids.at[..., 0].set(0)).at[..., 0].set(1)


@dataclasses.dataclass(frozen=True)
class ConcatInputs(WrappedCell):
    """Layers whose outputs are concatenated with their inputs: (T, *batch, D) to (T, *batch, H + D)."""

    def out_dim(self, in_dim: int) -> int:
        """Return H + D."""
        return out_dim(self.cell, in_dim) + in_dim

    def unroll(self, runner: Any, params: Any, state: Any, reset_state: Any, xs: Any) -> tuple[Any, jax.Array]:
        """Unroll the layers over xs (T, *batch, D)."""
        state, ys = runner(self.cell, params, state, reset_state, xs)
        return state, jnp.concatenate([ys, xs], axis=-1)

    def step(self, params: Any, state: Any, x: jax.Array, *, key: Any = None) -> tuple[Any, jax.Array]:
        """Apply one step to x (*batch, D)."""
        state, y = step(self.cell, params, state, x, key)
        return state, jnp.concatenate([y, x], axis=-1)


@dataclasses.dataclass(frozen=True)
class MaxAndMeanPooling:
    """The maximum over time of the first H features, and the scaled mean over time of the last D.

    Args:
        inputs: D.
    """

    inputs: int

    def __call__(self, ys: jax.Array, lengths: Any = None) -> jax.Array:
        """Pool (T, *batch, H + D) to (*batch, H + D)."""
        states, inputs = ys[..., : -self.inputs], ys[..., -self.inputs :]
        return jnp.concatenate([maximum(states, lengths), MEAN_SCALE * mean(inputs, lengths)], axis=-1)
