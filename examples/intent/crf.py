"""A linear-chain conditional random field: how likely a path of tags is, and which one is likeliest.

Lafferty et al. (2001): log p(y | e) = s(y) - log Z, s(y) = first[y_1] + sum e_t[y_t] + sum A[y_t-1, y_t].
Both recurrences over time are cells, so `jaxrnn.unroll` crosses it, padding included. T time, B batch, K tags.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxrnn
from jaxrnn.extend import length_mask

LEAST = 1e-30  # what a logarithm is taken of


class ChainParams(NamedTuple):
    """What a path scores besides its emissions.

    Attributes:
        first: (K,), for beginning with a tag.
        follow: (K, K), A: for the second tag behind the first.
    """

    first: jax.Array
    follow: jax.Array


@dataclasses.dataclass(frozen=True)
class _Chain:
    """What both cells have in common: params A (K, K), a state (*batch, K), emissions (*batch, K) for inputs."""

    def init(self, key: jax.Array, in_dim: int) -> jax.Array:
        return jnp.zeros((in_dim, in_dim))

    def initial_state(self, params: jax.Array, batch: tuple[int, ...] = ()) -> jax.Array:
        return jnp.zeros((*batch, len(params)))


@dataclasses.dataclass(frozen=True)
class Total(_Chain):
    """The forward algorithm: a_t[j] = e_t[j] + log sum_i exp(a_t-1[i] + A[i, j]), over all paths that end in j."""

    def step(self, params: jax.Array, state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Take one step; the sum over paths is a matmul."""
        highest = state.max(axis=-1, keepdims=True)
        sums = jnp.exp(state - highest) @ jnp.exp(params)
        state = x + highest + jnp.log(jnp.maximum(sums, LEAST))
        return state, state


@dataclasses.dataclass(frozen=True)
class Best(_Chain):
    """Viterbi's algorithm: a_t[j] = e_t[j] + max_i (a_t-1[i] + A[i, j]); puts out which i it was."""

    def step(self, params: jax.Array, state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Take one step."""
        ways = state[..., :, None] + params
        return x + ways.max(axis=-2), ways.argmax(axis=-2)


def losses(params: ChainParams, emissions: jax.Array, tags: jax.Array, lengths: Any) -> jax.Array:
    """Give -log p of the tags (T, B) for emissions (T, B, K) and lengths (B,), 1 or more: (B,)."""
    state, _ = jaxrnn.unroll(
        Total(), params.follow, emissions[1:], params.first + emissions[0], lengths=jnp.maximum(lengths - 1, 0)
    )
    each = jnp.take_along_axis(emissions, tags[..., None], axis=-1)[..., 0]
    each = each.at[1:].add(params.follow[tags[:-1], tags[1:]])
    score = params.first[tags[0]] + jnp.where(length_mask(lengths, len(tags)), each, 0).sum(axis=0)
    return jax.nn.logsumexp(state, axis=-1) - score


def likeliest(params: ChainParams, emissions: jax.Array, lengths: Any) -> jax.Array:
    """Give the path (T, B) of the highest score; in the padding it repeats the last tag."""
    lengths = jnp.maximum(lengths - 1, 0)
    state, came_from = jaxrnn.unroll(Best(), params.follow, emissions[1:], params.first + emissions[0], lengths=lengths)
    valid = length_mask(lengths, len(came_from))

    def back(tag: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        pointers, valid = step
        earlier = jnp.where(valid, jnp.take_along_axis(pointers, tag[..., None], axis=-1)[..., 0], tag)
        return earlier, tag

    first, rest = jax.lax.scan(back, state.argmax(axis=-1), (came_from, valid), reverse=True)
    return jnp.concatenate([first[None], rest])
