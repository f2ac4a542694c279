"""Chunks of time as matmuls, for cells with a matrix memory."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._core.affine_cell import shifted
from .._core.broadcasting import broadcasting
from .._core.cell import Cell
from .._core.fields import Checked, convert, size
from .._core.masks import StepMasks, zero_padding
from .._core.matrix_cell import MatrixCell, MatrixState, MemoryUpdate, write_scaled
from .._core.trees import cast, cast_like, float_dtype, where
from .._core.types import Inputs, Output, Params, State
from .driver import num_steps, scan_chunks
from .live import cut
from .memory_chunks import prepare, run_chunks
from .rows import rows_as_batch

GROUP_ROWS = {"cpu": 1024}
"""The steps times batch rows whose chunks are prepared together on a platform; elsewhere `MOST_ROWS`. Untuned."""
MOST_ROWS = 1 << 16
LEAST_LOG_DECAY = -100.0
"""The bound of log a: exp(-100) is 0 in float32, and sums of 64 such numbers keep their differences."""


@dataclasses.dataclass(frozen=True)
class Chunkwise(metaclass=Checked):
    """The recurrence of a `MatrixCell` as matmuls: inside a chunk of time between its steps, then from chunk to chunk.

    Scan reads and writes the memory (K, V) at every step, and keeps it for the gradient: K numbers for each number of a
    value. Here the memory is touched once a chunk, and the gradient keeps it once for some chunks, and recomputes what
    is between. Decays are multiplied as sums of logarithms, so that no product overflows or vanishes.

    Args:
        chunk: C, the steps of a chunk. A step costs some 2 N C (K + V) operations in the chunk and 4 N K V between them.

    Numbers are computed in float32, or in the dtype of the state if that is wider. A NaN reaches the outputs of its
    whole chunk; where there are resets, those of its own segment alone.

    Raises:
        ValueError: for a cell that is no `MatrixCell`, a chunk below 1, and T that is not known (`jax.export`).

    >>> cell = DeltaNet(2, 4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, ys = unroll(cell, params, jnp.ones((100, 2, 3)), driver=Chunkwise(16))
    >>> ys.shape
    (100, 2, 8)

    Reference: Yang, Wang, Shen, Panda and Kim, "Gated linear attention transformers with hardware-efficient training",
    ICML 2024, section 4 (https://arxiv.org/abs/2312.06635); Yang et al., "Parallelizing linear transformers with the
    delta rule over sequence length", NeurIPS 2024 (https://arxiv.org/abs/2406.06484).
    """

    chunk: int = 64

    def __check_init__(self) -> None:
        """Check the chunk."""
        convert(self, chunk=size)

    @rows_as_batch
    def __call__(
        self, cell: Cell, params: Params, state: State, xs: Inputs, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Run the chunks."""
        if not isinstance(cell, MatrixCell):
            raise ValueError(
                f"{self} takes a MatrixCell; got {cell}. Use Scan(), which takes any cell, or name no driver: then each "
                "cell of a composite gets its own."
            )
        if not isinstance(num_steps(xs), int):
            raise ValueError(f"{self} needs a T that is known; got {num_steps(xs)}. Use Scan().")
        return cut(functools.partial(self._run, cell, reverse), params, state, xs, masks, reverse=reverse)

    def _run(
        self, cell: MatrixCell, reverse: bool, params: Params, state: State, xs: Inputs, masks: StepMasks
    ) -> tuple[State, Output]:
        """Return what `__call__` does, without the rule on gradients before a reset."""
        time, batch = num_steps(xs), jax.tree.leaves(state)[0].shape[:-3]
        rows = GROUP_ROWS.get(jax.default_backend(), MOST_ROWS)
        steps = self.chunk * max(1, min(-(-time // self.chunk), rows // (self.chunk * math.prod(batch))))

        @broadcasting
        def group(state: State, rows: Any) -> tuple[State, Output]:
            xs, valid, reset = jax.tree.map(lambda a: a[::-1], rows) if reverse else rows
            return _group(cell, self.chunk, params, state, xs, StepMasks(valid, reset, masks.reset_state))

        def in_order(state: State, rows: Any) -> tuple[State, Output]:
            state, ys = group(state, rows)
            return state, jax.tree.map(lambda y: y[::-1], ys) if reverse else ys

        kept = jax.checkpoint(in_order, prevent_cse=False)
        return scan_chunks(kept, state, (xs, masks.valid, masks.reset), steps, reverse)


def _group(
    cell: MatrixCell, chunk: int, params: Params, state: MatrixState, xs: jax.Array, masks: StepMasks
) -> tuple[MatrixState, Output]:
    """Return the state after some steps in running order, and the outputs."""
    wide = jnp.promote_types(float_dtype(state), jnp.float32)
    parts = cell.parts(params, xs)
    update = cast(cell.update(params.local, *parts), wide)
    start, masks = cast(state, wide), masks._replace(reset_state=cast(masks.reset_state, wide))
    update = _without_padding(update, masks.valid)
    update, scales, log_scale = _rescale(update, start.log_scale, masks)
    memory, read = _memory(update, start.memory, masks, chunk)
    new = cast_like(MatrixState(memory, log_scale), state)
    y = cell.output(params.local, read, scales, *parts)
    return new, y.astype(parts[0].dtype)


def _without_padding(update: MemoryUpdate, valid: jax.Array | None) -> MemoryUpdate:
    """Return updates that change nothing, and read nothing, where `valid` is false."""
    if valid is None:
        return update
    strength = update.log_strength
    rest = zero_padding(update._replace(log_strength=None), valid)
    return rest._replace(
        log_strength=None if strength is None else where(valid, strength, jnp.full_like(strength, -jnp.inf))
    )


def _rescale(update: MemoryUpdate, log_scale: Any, masks: StepMasks) -> tuple[MemoryUpdate, Any, Any]:
    """Return the updates of the scaled memory, the log_scale after each step, and that after the last: see `rescaled`."""
    if update.log_strength is None:
        return update, log_scale, log_scale
    decay, strength = update.log_decay[..., 0], update.log_strength
    between, largest = decay, strength
    if masks.reset is not None:
        again = masks.reset_state.log_scale
        largest = where(masks.reset, jnp.maximum(decay + again, strength), strength)
        between = where(masks.reset, jnp.full_like(decay, -jnp.inf), decay)

    def both(a: tuple[jax.Array, jax.Array], b: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return a[0] + b[0], jnp.maximum(a[1] + b[0], b[1])

    between, largest = lax.associative_scan(both, (between, largest))
    scales = jnp.maximum(between + log_scale, largest)
    before = shifted(scales, log_scale, False)
    if masks.reset is not None:
        before = where(masks.reset, jnp.broadcast_to(again, before.shape), before)
    return write_scaled(update, decay + before - scales, strength - scales), scales, scales[-1]


def _memory(update: MemoryUpdate, memory: jax.Array, masks: StepMasks, chunk: int) -> tuple[jax.Array, jax.Array]:
    """Return the memory after some steps, and what the queries read (G, *batch, N, V)."""
    steps = len(update.query)
    count = -(-steps // chunk)

    def split(rows: jax.Array) -> jax.Array:
        padded = jnp.pad(rows, [(0, count * chunk - steps), *[(0, 0)] * (rows.ndim - 1)])
        return jnp.moveaxis(padded.reshape(count, chunk, *rows.shape[1:]), 1, -2)

    erase = None if update.erase is None else update.erase[..., None]
    decay = jnp.maximum(update.log_decay, LEAST_LOG_DECAY)
    update = update._replace(log_decay=decay, erase=erase)
    reset = None if masks.reset is None else split(masks.reset[..., None, None])[..., 0]
    start = None if masks.reset is None else masks.reset_state.memory
    chunks = prepare(jax.tree.map(split, update), reset, start)
    memory, read = run_chunks(chunks, memory)
    read = jnp.moveaxis(read, -2, 1)
    return memory, read.reshape(count * chunk, *read.shape[2:])[:steps]
