"""A linear-chain conditional random field: the likelihood of a sequence of tags, and the most probable sequence.

Lafferty et al. (2001): log p(y | e) = s(y) - log Z, s(y) = initial[y_1] + sum e_t[y_t] + sum A[y_t-1, y_t].
Both recurrences over time are cells that `jaxrnn.unroll` runs, padding included. T time, B batch, K tags.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxrnn
from jaxrnn.extend import length_mask

MIN_SUM = 1e-30  # avoids log 0


class ChainParams(NamedTuple):
    """The scores of tags and of pairs of tags.

    Attributes:
        initial: (K,), the score of each tag at the first step.
        transitions: (K, K), A: the score of the second tag after the first.
    """

    initial: jax.Array
    transitions: jax.Array


@dataclasses.dataclass(frozen=True)
class _Chain:
    """The shared part of both cells: params A (K, K), state (*batch, K), inputs are emissions (*batch, K)."""

    def init(self, key: jax.Array, in_dim: int) -> jax.Array:
        return jnp.zeros((in_dim, in_dim))

    def initial_state(self, params: jax.Array, batch: tuple[int, ...] = ()) -> jax.Array:
        return jnp.zeros((*batch, len(params)))


@dataclasses.dataclass(frozen=True)
class ForwardAlgorithm(_Chain):
    """The forward algorithm: a_t[j] = e_t[j] + log sum_i exp(a_t-1[i] + A[i, j]), over all paths that end in j."""

    def step(self, params: jax.Array, state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Apply one step. The sum over paths is a matmul."""
        maximum = state.max(axis=-1, keepdims=True)
        sums = jnp.exp(state - maximum) @ jnp.exp(params)
        state = x + maximum + jnp.log(jnp.maximum(sums, MIN_SUM))
        return state, state


@dataclasses.dataclass(frozen=True)
class Viterbi(_Chain):
    """The Viterbi algorithm: a_t[j] = e_t[j] + max_i (a_t-1[i] + A[i, j]). The output is the argmax i."""

    def step(self, params: jax.Array, state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Apply one step."""
        scores = state[..., :, None] + params
        return x + scores.max(axis=-2), scores.argmax(axis=-2)


def negative_log_likelihood(params: ChainParams, emissions: jax.Array, tags: jax.Array, lengths: Any) -> jax.Array:
    """Return -log p (B,) of tags (T, B) for emissions (T, B, K) and lengths (B,), each at least 1."""
    state, _ = jaxrnn.unroll(
        ForwardAlgorithm(),
        params.transitions,
        emissions[1:],
        params.initial + emissions[0],
        lengths=jnp.maximum(lengths - 1, 0),
    )
    scores = jnp.take_along_axis(emissions, tags[..., None], axis=-1)[..., 0]
    scores = scores.at[1:].add(params.transitions[tags[:-1], tags[1:]])
    score = params.initial[tags[0]] + jnp.where(length_mask(lengths, len(tags)), scores, 0).sum(axis=0)
    return jax.nn.logsumexp(state, axis=-1) - score


def most_probable_tags(params: ChainParams, emissions: jax.Array, lengths: Any) -> jax.Array:
    """Return the tags (T, B) of the highest score. The padding repeats the last tag."""
    lengths = jnp.maximum(lengths - 1, 0)
    initial = params.initial + emissions[0]
    state, pointers = jaxrnn.unroll(Viterbi(), params.transitions, emissions[1:], initial, lengths=lengths)
    valid = length_mask(lengths, len(pointers))

    def previous(tag: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        pointers, valid = step
        earlier = jnp.where(valid, jnp.take_along_axis(pointers, tag[..., None], axis=-1)[..., 0], tag)
        return earlier, tag

    first, rest = jax.lax.scan(previous, state.argmax(axis=-1), (pointers, valid), reverse=True)
    return jnp.concatenate([first[None], rest])
