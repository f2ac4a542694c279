"""Chunks of a matrix memory as matmuls.

G steps, M chunks of C steps, B batch, N heads, K key features, V value features. Inside a chunk that starts from S,

    u_t = v_t - β_t (e_t k_tᵀ S + Σ_{s<t} D_ts (k_tᵀ k_s) u_s),    o_t = e_t q_tᵀ S + Σ_{s<=t} D_ts (q_tᵀ k_s) u_s,

where D_ts is the product of the decays after s and up to t, and e_t that from the start: differences of sums of
logarithms, so none overflows. Without β, u = v. With it, u solves a triangular system (the WY form).

Reference: Yang et al., "Parallelizing linear transformers with the delta rule over sequence length", NeurIPS 2024,
section 3 (https://arxiv.org/abs/2406.06484); "Gated delta networks", ICLR 2025, section 3.3
(https://arxiv.org/abs/2412.06464); for a decay a key feature "Gated linear attention transformers", ICML 2024,
section 4 (https://arxiv.org/abs/2312.06635).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._core.matrix_cell import MemoryUpdate
from .._core.types import State

BLOCK = 16
"""The steps whose products with a decay a key feature are computed pair by pair."""
LEAST_LOG_DECAY = -100.0
"""The bound of log a: exp(-100) is 0 in float32, and sums of 64 such numbers keep their differences."""
SMALL = 8
"""The largest triangle that is inverted row by row."""


class Chunks(NamedTuple):
    """M chunks whose parts do not depend on the memory before them, each (M, *batch, N, C, ...).

    Attributes:
        query: e_t q_t, zero after a reset.
        key: the keys, decayed to the end of the chunk, or zero before its last reset.
        within: what a query reads of each u of its chunk, (C, C).
        value: u for a memory of zeros.
        erased: β e k under the solution of the triangular system, zero after a reset: u = value - erased S. None
            without β.
        keep: the decay of S to the end of the chunk, (1 or K, 1).
        read: what queries read of the reset memory, (C, V); None without resets.
        entered: the reset memory at the end of the chunk, (K, V); None without resets.
    """

    query: jax.Array
    key: jax.Array
    within: jax.Array
    value: jax.Array
    erased: jax.Array | None
    keep: jax.Array
    read: jax.Array | None = None
    entered: jax.Array | None = None


def solve_chunks(
    chunk: int, update: MemoryUpdate, memory: jax.Array, reset: jax.Array | None, again: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Return the memory after G steps, and what their queries read.

    Args:
        chunk: C, the steps of a chunk.
        update: updates (G, *batch, N, ...) without a `log_strength`.
        memory: the memory before the first step (*batch, N, K, V).
        reset: (G, *batch), true where the memory is reset before a step; None where it never is.
        again: the memory after a reset (*batch, N, K, V).
    """
    steps = len(update.query)
    chunk = max(1, min(chunk, steps))
    count = -(-steps // chunk)

    def split(rows: jax.Array) -> jax.Array:
        padded = jnp.pad(rows, [(0, count * chunk - steps), *[(0, 0)] * (rows.ndim - 1)])
        return jnp.moveaxis(padded.reshape(count, chunk, *rows.shape[1:]), 1, -2)

    erase = None if update.erase is None else update.erase[..., None]
    update = update._replace(log_decay=jnp.maximum(update.log_decay, LEAST_LOG_DECAY), erase=erase)
    update = jax.tree.map(split, update)
    if reset is None or again is None:
        chunks = prepare(update)
    else:
        chunks = prepare_with_resets(update, split(reset[..., None, None])[..., 0], again)
    memory, read = run_chunks(chunks, memory)
    read = jnp.moveaxis(read, -2, 1)
    return memory, read.reshape(count * chunk, *read.shape[2:])[:steps]


def prepare(update: MemoryUpdate) -> Chunks:
    """Return chunks without resets, of updates (M, *batch, N, C, ...)."""
    total = jnp.cumsum(update.log_decay, axis=-2)
    decay, end = jnp.exp(total), total[..., -1:, :]
    causal = jnp.tri(total.shape[-2], dtype=bool)
    key = update.key * jnp.exp(end - total)
    return _solved(update, decay, total, causal, key)


def prepare_with_resets(update: MemoryUpdate, reset: jax.Array, again: jax.Array) -> Chunks:
    """Return chunks with resets (M, *batch, 1, C) to the memory `again` (*batch, N, K, V)."""
    total = jnp.cumsum(update.log_decay, axis=-2)
    segment = jnp.cumsum(reset.astype(jnp.int32), axis=-1)
    same = segment[..., :, None] == segment[..., None, :]
    causal = jnp.tri(total.shape[-2], dtype=bool) & same
    first = (segment == 0)[..., None]
    decay = jnp.exp(total - _at_reset(total - update.log_decay, reset))
    key = jnp.where(same[..., -1:, :].swapaxes(-1, -2), update.key * jnp.exp(total[..., -1:, :] - total), 0)
    chunks = _solved(update, decay, total, causal, key, again, first)
    entered = jnp.where(first[..., -1:, :], 0, chunks.keep) * again
    keep = jnp.where(first[..., -1:, :], chunks.keep, 0)
    read = jnp.where(first, 0, chunks.query) @ again
    return chunks._replace(query=jnp.where(first, chunks.query, 0), keep=keep, read=read, entered=entered)


def _solved(
    update: MemoryUpdate,
    decay: jax.Array,
    total: jax.Array,
    causal: jax.Array,
    key: jax.Array,
    again: jax.Array | None = None,
    first: jax.Array | None = None,
) -> Chunks:
    """Return chunks with the triangular system of their steps solved; `first` is true before the first reset."""
    within = _decayed_products(update.query, update.key, total, causal)
    keep = _transpose(decay[..., -1:, :])
    value, erased = update.value, None
    if update.erase is not None:
        erased = update.erase * decay * update.key
        if again is not None and first is not None:
            value, erased = value - jnp.where(first, 0, erased) @ again, jnp.where(first, erased, 0)
        solve = unit_triangular_inverse(update.erase * _decayed_products(update.key, update.key, total, causal))
        value, erased = solve @ value, solve @ erased
    return Chunks(update.query * decay, key, within, value, erased, keep)


def run_chunks(chunks: Chunks, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the memory (*batch, N, K, V) after the last chunk, and what queries read (M, *batch, N, C, V)."""
    entered = 0 if chunks.entered is None else chunks.entered
    if chunks.erased is None:
        written = _transpose(chunks.key) @ chunks.value + entered
        add = lambda memory, row: (row[0] * memory + row[1], memory)
        memory, before = lax.scan(add, memory, (chunks.keep, written))
        value = chunks.value
    else:

        def correct(memory: jax.Array, row: Any) -> tuple[jax.Array, State]:
            value = row.value - row.erased @ memory
            new = row.keep * memory + _transpose(row.key) @ value
            return new if row.entered is None else new + row.entered, (memory, value)

        unused = jnp.zeros((len(chunks.key), 0), memory.dtype)
        memory, (before, value) = lax.scan(correct, memory, chunks._replace(query=unused, within=unused, read=unused))
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
