"""Chunks of a matrix memory as matmuls.

G steps, M chunks of C steps, B batch, N heads, K key features, V value features. Inside a chunk that starts from S,

    u_t = v_t - β_t (e_t k_tᵀ S + Σ_{s<t} D_ts (k_tᵀ k_s) u_s),    o_t = e_t q_tᵀ S + Σ_{s<=t} D_ts (q_tᵀ k_s) u_s,

where D_ts is the product of the decays after s and up to t, and e_t that from the start: differences of sums of
logarithms, so none overflows. Without β, u = v. With it, u solves a triangular system (the WY form).

Reference: Yang et al., "Parallelizing linear transformers with the delta rule over sequence length", NeurIPS 2024,
section 3 (https://arxiv.org/abs/2406.06484); "Gated delta networks", ICLR 2025, section 3.3
(https://arxiv.org/abs/2412.06464); for a decay a key feature "Gated linear attention transformers", ICML 2024, section 4
(https://arxiv.org/abs/2312.06635).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._core.matrix_cell import MemoryUpdate
from .._core.types import State

BLOCK = 16
"""The steps whose products with a decay a key feature are computed pair by pair."""
SMALL = 8
"""The largest triangle that is inverted row by row."""


class Chunks(NamedTuple):
    """The parts of M chunks that do not depend on the states between them, each (M, *batch, N, C, ...).

    Attributes:
        within: what a query reads of each u of its chunk (C, C).
        query: e_t q_t, zero after a reset.
        erase_key: T β e k, zero after a reset: u = value - erase_key S; None without β.
        value: u for S = 0.
        key: the keys decayed to the end of the chunk.
        keep: the decay of S to the end of the chunk (1 or K, last two axes (., 1)).
        read: what queries read of the reset state, (C, V); None without resets.
        enter: the reset state at the end of the chunk (K, V); None without resets.
    """

    within: jax.Array
    query: jax.Array
    erase_key: jax.Array | None
    value: jax.Array
    key: jax.Array
    keep: jax.Array
    read: jax.Array | None
    enter: jax.Array | None


def prepare(update: MemoryUpdate, reset: jax.Array | None, reset_memory: jax.Array | None) -> Chunks:
    """Return the parts of chunks, whose updates are (M, *batch, N, C, ...).

    Args:
        update: without a `log_strength`; `erase` and decays have a last axis, so that all have the same number of axes.
        reset: (M, *batch, 1, C) bool, true where the memory is reset before a step.
        reset_memory: the memory after a reset (*batch, N, K, V).
    """
    total = jnp.cumsum(update.log_decay, axis=-2)
    steps = total.shape[-2]
    causal = np.tri(steps, dtype=bool)
    since, first = total, None
    if reset is not None:
        part = jnp.cumsum(reset.astype(jnp.int32), axis=-1)
        causal = causal & (part[..., :, None] == part[..., None, :])
        first = (part == 0)[..., None]
        since = total - _at_reset(total - update.log_decay, reset)
    decay, end = jnp.exp(since), total[..., -1:, :]
    last = jnp.ones((), bool) if reset is None else part[..., -1:, None] == part[..., :, None]
    to_end = jnp.where(last, jnp.exp(jnp.minimum(end - total, 0)), 0)
    key, query = update.key * decay, update.query * decay
    erased, value, solve = None, update.value, None
    if update.erase is not None:
        between = update.erase * _decayed_products(update.key, update.key, total, causal)
        solve = unit_triangular_inverse(between)
        erased = update.erase * key
    keep, read, enter = jnp.swapaxes(decay[..., -1:, :], -1, -2), None, None
    if first is not None:
        read = jnp.where(first, 0, query) @ reset_memory
        enter = jnp.where(first[..., -1:, :], 0, keep) * reset_memory
        keep, query = jnp.where(first[..., -1:, :], keep, 0), jnp.where(first, query, 0)
        if erased is not None:
            value = value - jnp.where(first, 0, erased) @ reset_memory
            erased = jnp.where(first, erased, 0)
    if solve is not None:
        value, erased = solve @ value, solve @ erased
    within = _decayed_products(update.query, update.key, total, causal)
    return Chunks(within, query, erased, value, update.key * to_end, keep, read, enter)


def run_chunks(chunks: Chunks, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the memory (*batch, N, K, V) after the last chunk, and what queries read (M, *batch, N, C, V)."""

    def one(memory: jax.Array, chunk: tuple[jax.Array | None, ...]) -> tuple[jax.Array, State]:
        erased, value, key, keep, enter, written = chunk
        if erased is not None:
            value = value - erased @ memory
            written = _transpose(key) @ value
        new = keep * memory + written
        return new if enter is None else new + enter, (memory, value)

    written = _transpose(chunks.key) @ chunks.value if chunks.erase_key is None else None
    key = None if chunks.erase_key is None else chunks.key
    value = None if chunks.erase_key is None else chunks.value
    memory, (before, solved) = lax.scan(one, memory, (chunks.erase_key, value, key, chunks.keep, chunks.enter, written))
    value = chunks.value if solved is None else solved
    read = chunks.within @ value + chunks.query @ before
    return memory, read if chunks.read is None else read + chunks.read


def _transpose(matrices: jax.Array) -> jax.Array:
    return jnp.swapaxes(matrices, -1, -2)


def _at_reset(rows: jax.Array, reset: jax.Array) -> jax.Array:
    """Return the rows (..., C, F) at the last reset up to each step; zero before the first."""
    index = jnp.where(reset, np.arange(reset.shape[-1], dtype=np.int32), -1)
    index = lax.cummax(index, index.ndim - 1)[..., None]
    index = jnp.broadcast_to(index, (*rows.shape[:-1], 1))
    return jnp.where(index < 0, 0, jnp.take_along_axis(rows, jnp.maximum(index, 0), axis=-2))


def _decayed_products(x: jax.Array, key: jax.Array, total: jax.Array, causal: jax.Array) -> jax.Array:
    """Return Σ_k x_tk key_sk exp(total_tk - total_sk) where `causal`, else 0: (..., C, C)."""
    if total.shape[-1] == 1:
        decay = jnp.where(causal, total - _transpose(total), -jnp.inf)
        return jnp.exp(decay) * (x @ _transpose(key))
    steps, width = total.shape[-2:]
    count = -(-steps // BLOCK)
    pad = [(0, 0)] * (total.ndim - 2) + [(0, count * BLOCK - steps), (0, 0)]
    x, key = jnp.pad(x, pad), jnp.pad(key, pad)
    total = jnp.pad(total, pad, mode="edge")
    blocks = lambda a: a.reshape(*a.shape[:-2], count, BLOCK, width)
    x, row = blocks(x), blocks(total)
    apart = jnp.exp(jnp.minimum(row[..., :, None, :] - row[..., None, :, :], 0))
    same = (x[..., :, None, :] * blocks(key)[..., None, :, :] * apart).sum(-1)
    start = jnp.concatenate([jnp.zeros_like(row[..., :1, :1, :]), row[..., :-1, -1:, :]], axis=-3)
    before = key[..., None, :, :] * jnp.exp(jnp.minimum(start - total[..., None, :, :], 0))
    earlier = (x * jnp.exp(row - start)) @ _transpose(before)
    earlier = earlier.reshape(*earlier.shape[:-1], count, BLOCK)
    diagonal = np.eye(count, dtype=bool)[:, None, :, None]
    products = jnp.where(diagonal, same[..., None, :], earlier)
    products = products.reshape(*products.shape[:-4], count * BLOCK, count * BLOCK)[..., :steps, :steps]
    return jnp.where(causal, products, 0)


@jax.custom_jvp
def unit_triangular_inverse(lower: jax.Array) -> jax.Array:
    """Return the inverse of I + the strictly lower part of matrices (..., C, C), by halves."""
    steps = lower.shape[-1]
    size = SMALL
    while size < steps:
        size *= 2
    padded = jnp.pad(lower, [(0, 0)] * (lower.ndim - 2) + [(0, size - steps)] * 2)
    return _inverse(padded)[..., :steps, :steps]


@unit_triangular_inverse.defjvp
def _inverse_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    inverse = unit_triangular_inverse(*primals)
    strict = jnp.where(np.tri(inverse.shape[-1], k=-1, dtype=bool), tangents[0], 0)
    return inverse, -inverse @ strict @ inverse


def _inverse(lower: jax.Array) -> jax.Array:
    """Return the inverse; C is SMALL times a power of two."""
    half = lower.shape[-1] // 2
    if half < SMALL:
        return _small_inverse(lower)
    both = _inverse(jnp.stack([lower[..., :half, :half], lower[..., half:, half:]]))
    corner = -both[1] @ (lower[..., half:, :half] @ both[0])
    top = jnp.concatenate([both[0], jnp.zeros_like(corner)], axis=-1)
    return jnp.concatenate([top, jnp.concatenate([corner, both[1]], axis=-1)], axis=-2)


def _small_inverse(lower: jax.Array) -> jax.Array:
    identity = np.eye(lower.shape[-1], dtype=lower.dtype)
    rows: list[jax.Array] = []
    for i, unit in enumerate(identity):
        row = jnp.broadcast_to(unit, lower.shape[:-1])
        for j, earlier in enumerate(rows):
            row = row - lower[..., i, j, None] * earlier
        rows.append(row)
    return jnp.stack(rows, axis=-2)
