"""A sequence of a matrix cell in groups of chunks: a group is prepared at once, and kept as its first state.

G steps of a group, B batch, N heads, K key features, V value features.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from .._core.broadcasting import broadcasting
from .._core.masks import StepMasks, zero_padding
from .._core.matrix_cell import MatrixCell, MatrixState, MemoryUpdate
from .._core.sharding import zeros_like
from .._core.trees import at_least_float32, cast, cast_like, float_dtype, where
from .._core.types import Output, Params, State
from .driver import num_steps, scan_chunks
from .memory_updates import both_scales, quarantine, rescale, scale_pairs, spoil, without_padding
from .time_axis import TimeAxis

GROUP_ROWS = {"cpu": 512}
"""The steps times batch rows whose chunks are prepared together on a platform; elsewhere `MOST_ROWS`. Untuned."""
MOST_ROWS = 1 << 16

Solve: TypeAlias = Callable[[MemoryUpdate, jax.Array, jax.Array | None, Any], tuple[jax.Array, jax.Array]]
"""From updates (G, *batch, N, ...) without padding and `log_strength`, the memory before them, resets (G, *batch) and
the memory after a reset, to the memory after them and what queries read (G, *batch, N, V)."""


@dataclasses.dataclass(frozen=True)
class Groups:
    """The arguments of a driver, with what computes the steps of a group."""

    cell: MatrixCell
    chunk: int
    reverse: bool
    solve: Solve
    params: Params
    state: MatrixState
    xs: jax.Array
    masks: StepMasks
    rows: int | None = None  # the steps times batch rows of a group; None for those of the platform
    saved: tuple[str, ...] = ()  # the names of what the gradient keeps of a group

    def run(self) -> tuple[State, Output]:
        """Return the state after the last step, and the outputs."""
        return self._scan(self._outputs, self.state)

    def starting_on(self, axis: TimeAxis) -> Groups:
        """Return the part of a sequence on this device, with the state that the parts before it lead to."""
        wide = self._wide()
        start: MatrixState = cast(self.state, wide)
        log_scale = start.log_scale
        if not isinstance(log_scale, tuple):
            neutral = zeros_like(log_scale), zeros_like(log_scale) - jnp.inf
            between, largest = self._scan(self._scale_pair, neutral)[0]
            largest = jnp.where(axis.is_first(), jnp.maximum(between + log_scale, largest), largest)
            between = jnp.where(axis.is_first(), -jnp.inf, between)
            before = axis.before((between, largest), both_scales, neutral)
            log_scale = jnp.where(axis.is_first(), log_scale, before[1])
        keys = start.memory.shape[-2]
        one = zeros_like(start.memory[..., :1]) + jnp.eye(keys, dtype=wide)
        zero = zeros_like(start.memory)
        reduced = self._scan(self._transition, MatrixState(jnp.concatenate([zero, one], -1), log_scale))[0].memory
        factor, total = reduced[..., -keys:], reduced[..., :-keys]
        total = jnp.where(axis.is_first(), factor @ start.memory + total, total)
        factor = jnp.where(axis.is_first(), 0, factor)
        memory = axis.before((factor, total), lambda a, b: (b[0] @ a[0], b[0] @ a[1] + b[1]), (one, zero))[1]
        memory = jnp.where(axis.is_first(), start.memory, memory)
        return dataclasses.replace(self, state=cast_like(MatrixState(memory, log_scale), self.state))

    def _scan(self, body: Callable[..., tuple[Any, Any]], carry: Any) -> tuple[Any, Any]:
        """Return the carry after `body(carry, xs, masks)` of all groups in running order, and what they return."""
        time, batch = num_steps(self.xs), self.state.memory.shape[:-3]
        rows = self.rows or GROUP_ROWS.get(jax.default_backend(), MOST_ROWS)
        steps = self.chunk * max(1, min(-(-time // self.chunk), rows // (self.chunk * max(1, math.prod(batch)))))
        turn = lambda tree: jax.tree.map(lambda a: a[::-1], tree) if self.reverse else tree

        @broadcasting
        def group(carry: Any, rows: Any) -> tuple[Any, Any]:
            xs, valid, reset = turn(rows)
            carry, results = body(carry, xs, StepMasks(valid, reset, self.masks.reset_state))
            return carry, turn(results)

        inputs = self.xs, self.masks.valid, self.masks.reset
        policy = jax.checkpoint_policies.save_only_these_names(*self.saved)
        return scan_chunks(jax.checkpoint(group, prevent_cse=False, policy=policy), carry, inputs, steps, self.reverse)

    def _outputs(self, state: MatrixState, xs: jax.Array, masks: StepMasks) -> tuple[MatrixState, Output]:
        """Return the state after a group, and its outputs."""
        parts = self.cell.parts(self.params, xs)
        start = cast(state, self._wide())
        if masks.valid is not None:  # what a row without a valid step holds reaches nothing
            start = zero_padding(start, masks.valid.any(axis=0))
        new, read, scales = self._advance(self._updates(parts, masks), start, self._widened(masks))
        y = self.cell.output(self.params.local, read, scales, *parts)
        new = cast_like(new, state)
        if masks.valid is not None:
            new = where(masks.valid.any(axis=0), new, state)
        return new, y.astype(parts[0].dtype)

    def _transition(self, state: MatrixState, xs: jax.Array, masks: StepMasks) -> tuple[MatrixState, None]:
        """Return the state after a group for a memory (K, V + K), of which the last K columns are not written."""
        update = self._updates(self.cell.parts(self.params, xs), masks)
        masks = self._widened(masks)
        keys = update.key.shape[-1]
        blank = jnp.zeros((*update.value.shape[:-1], keys), update.value.dtype)
        update = update._replace(value=jnp.concatenate([update.value, blank], axis=-1))
        if masks.reset is not None:
            again = masks.reset_state.memory
            again = jnp.concatenate([again, jnp.zeros((*again.shape[:-1], keys), again.dtype)], axis=-1)
            masks = masks._replace(reset_state=masks.reset_state._replace(memory=again))
        return self._advance(update, state, masks)[0], None

    def _scale_pair(self, pair: Any, xs: jax.Array, masks: StepMasks) -> tuple[Any, None]:
        """Return (g, m) after a group: log_scale is max(g + log_scale before all groups, m)."""
        update = self._updates(self.cell.parts(self.params, xs), masks)
        if update.log_strength is None:
            raise ValueError(f"{self.cell} has a state with a log_scale, and updates without a log_strength")
        pairs = scale_pairs(update.log_decay[..., 0], update.log_strength, self._widened(masks))
        between, largest = (rows[-1] for rows in pairs)
        return both_scales(pair, (between, largest)), None

    def _advance(
        self, update: MemoryUpdate, state: MatrixState, masks: StepMasks
    ) -> tuple[MatrixState, jax.Array, Any]:
        """Return the state after a group, what its queries read, and the log_scale after each step."""
        bad = None
        if masks.reset is not None:
            update, state, bad = quarantine(update, state, masks)
        update, scales = rescale(update, state.log_scale, masks)
        again = None if masks.reset is None else masks.reset_state.memory
        memory, read = self.solve(update, state.memory, masks.reset, again)
        new = MatrixState(memory, scales if isinstance(scales, tuple) else scales[-1])
        return (new, read, scales) if bad is None else (spoil(new, bad.state), spoil(read, bad.steps), scales)

    def _updates(self, parts: list[jax.Array], masks: StepMasks) -> MemoryUpdate:
        update: MemoryUpdate = cast(self.cell.update(self.params.local, *parts), self._wide())
        return without_padding(update, masks.valid)

    def _widened(self, masks: StepMasks) -> StepMasks:
        return masks._replace(reset_state=cast(masks.reset_state, self._wide()))

    def _wide(self) -> Any:
        return at_least_float32(float_dtype(self.state))
