"""The parallel scan of an affine cell: chunks of time side by side, over devices too."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from .._core.affine_cell import AffineCell, Solver, run_affine
from .._core.cell import Cell
from .._core.fields import Checked, convert, instance, size_or_none
from .._core.masks import StepMasks
from .._core.sharding import zeros_like
from .._core.types import Output, Params, State
from .live import cut

MIN_PARALLEL_WIDTH = 1 << 20
"""Numbers that a step should have on an accelerator to be worth its loop (unmeasured)."""
MIN_PARALLEL_STEPS = 64
"""Fewer steps than these are crossed one after the other."""


@dataclasses.dataclass(frozen=True)
class Associative(metaclass=Checked):
    """The recurrence of an `AffineCell` in parallel: chunks of time are crossed side by side, each step by step.

    Each chunk is first folded to the pair (A, S) that takes the state before it to the state after it; the pairs are a
    recurrence themselves, as many times shorter, and give the state before each chunk; from there every chunk is
    crossed again. So a is only multiplied within a chunk, and products that overflow or vanish lose nothing that the
    state itself does not. That reads a and b twice and writes s once. The gradient is the same recurrence the other
    way; it keeps two arrays of (T, *batch, H).

    Args:
        chunk: the steps of a chunk; None chooses by T and the width of a step. On a CPU that is all of T: two cores
            are busy with one step as it is, and memory is read once (a trial that left no file).
        axis: the axis of a mesh that time is split over, inside a `jax.shard_map` that hands each device its part of
            xs, lengths (counted from the beginning of the part) and resets. The `state` counts where time begins; the
            state that comes back is the one at the end of each part. Each part is folded, the pairs of all devices go
            round in log2 of their number of `ppermute`s, and each part is crossed from its own beginning. NaN before a
            reset reaches the gradient then: whether a step has a cotangent is known by all devices together.

    Raises:
        ValueError: for a cell that is no `AffineCell`, or a chunk below 1; for resets with both an axis and reverse.

    Reference: Blelloch, "Prefix sums and their applications", 1990; Martin and Cundy, "Parallelizing linear recurrent
    neural nets over sequence length", ICLR 2018 (https://arxiv.org/abs/1709.04057).
    """

    chunk: int | None = None
    axis: str | None = None

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, chunk=size_or_none, axis=instance(str | None, "'time', or None"))

    def __call__(
        self, cell: Cell, params: Params, state: State, xs: jax.Array, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Cross time."""
        if not isinstance(cell, AffineCell):
            raise ValueError(f"{self} takes an AffineCell; got {cell}. Use Newton(), or Scan(), which takes any cell.")
        if self.axis is not None and reverse and masks.reset is not None:
            raise ValueError(f"{self} takes no resets with reverse: those between two parts stand on the next device.")
        chunks = Chunks(self.chunk)
        solver = chunks if self.axis is None else Parts(self.axis, chunks)
        across = functools.partial(run_affine, solver, cell, reverse=reverse)
        if self.axis is not None:  # whether a step is live is known by all devices together
            return across(params, state, xs, masks)
        return cut(across, params, state, xs, masks, reverse=reverse)


@dataclasses.dataclass(frozen=True)
class Chunks(Solver):
    """Chunks of time side by side."""

    chunk: int | None

    def __call__(self, a: jax.Array, b: jax.Array, state: jax.Array, reverse: bool) -> jax.Array:
        """Fold the chunks, solve for the states between them, and cross them."""
        time = b.shape[0]
        steps = self.chunk or chosen(time, state.size)
        if self.chunk and not isinstance(time, int):
            raise ValueError(f"chunks of {self.chunk} steps need a T that is known; got {time}. Use Associative().")
        if steps is time or steps >= time:
            return _scanned(a, b, state, reverse)
        a, b = _cut(a, steps, 1), _cut(b, steps, 0)
        products, sums = _folded(a, b, reverse)
        ends = Chunks(None)(products, sums, state, reverse)
        states = _crossed(a, b, self.shift(ends, state, reverse), reverse)
        return states.reshape(states.shape[0] * steps, *states.shape[2:])[:time]

    def fold(self, a: jax.Array, b: jax.Array, reverse: bool) -> tuple[jax.Array, jax.Array]:
        """Give the one pair (A, S), each (...), that does what all steps (T, ...) do."""
        steps = self.chunk or chosen(len(b), b[0].size)
        while len(b) > 1:
            steps = min(steps, len(b))
            a, b = _folded(_cut(a, steps, 1), _cut(b, steps, 0), reverse)
            steps = max(2, chosen(len(b), b[0].size))
        return a[0], b[0]


@dataclasses.dataclass(frozen=True)
class Parts(Solver):
    """Parts of time on the devices along an axis of a mesh."""

    axis: str
    chunks: Chunks

    def __call__(self, a: jax.Array, b: jax.Array, state: jax.Array, reverse: bool) -> jax.Array:
        """Fold the part, put the pairs of all parts before it together, and cross the part from there."""
        product, total = self.chunks.fold(a, b, reverse)
        reach = 1
        while reach < lax.axis_size(self.axis):  # pairs of 1, 2, 4, ... parts
            earlier, before = (self._from(x, reach, fill, reverse) for x, fill in ((product, 1), (total, 0)))
            product, total = _times(product, earlier), _times(product, before) + total
            reach *= 2
        product, total = (self._from(x, 1, fill, reverse) for x, fill in ((product, 1), (total, 0)))
        return self.chunks(a, b, _times(product, state) + total, reverse)

    def shift(self, rows: jax.Array, first: jax.Array, reverse: bool) -> jax.Array:
        """Put the last row of the part before in front; `first` where time begins."""
        neighbour = self._from(rows[0 if reverse else -1], 1, 0, reverse)
        return super().shift(rows, jnp.where(self._place(reverse) == 0, first, neighbour), reverse)

    def initial_state_grad(self, dstate: jax.Array, reverse: bool) -> jax.Array:
        """Only where time begins does the state count."""
        return jnp.where(self._place(reverse) == 0, dstate, 0)

    def _place(self, reverse: bool) -> jax.Array:
        """Give how many parts are crossed before this one."""
        index = lax.axis_index(self.axis)
        return lax.axis_size(self.axis) - 1 - index if reverse else index

    def _from(self, array: jax.Array, reach: int, fill: int, reverse: bool) -> jax.Array:
        """Give the array of the part crossed `reach` parts before; `fill` where there is none."""
        count = lax.axis_size(self.axis)
        pairs = [(i, i + reach) for i in range(count - reach)]
        moved = lax.ppermute(array, self.axis, [pair[::-1] for pair in pairs] if reverse else pairs)
        return jnp.where(self._place(reverse) >= reach, moved, fill)


def chosen(time: int, width: int) -> int:
    """Return the steps of a chunk for so many steps of so many numbers: T for no chunks, and for symbolic shapes."""
    if not isinstance(time, int) or not isinstance(width, int):
        return time
    count = min(math.isqrt(time), MIN_PARALLEL_WIDTH // max(width, 1))
    return time if jax.default_backend() == "cpu" or time < MIN_PARALLEL_STEPS or count < 2 else -(-time // count)


def _scanned(a: jax.Array, b: jax.Array, state: jax.Array, reverse: bool) -> jax.Array:
    """Cross rows (T, ...) one after the other."""

    def step(state: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        state = _times(row[0], state) + row[1]
        return state, state

    return lax.scan(step, state, (a, b), reverse=reverse)[1]


def _cut(rows: jax.Array, steps: int, fill: int) -> jax.Array:
    """Make chunks (C, steps, ...) of rows (T, ...), the last one filled up with steps that change nothing."""
    count = -(-len(rows) // steps)
    padded = jnp.pad(rows, [(0, count * steps - len(rows)), *[(0, 0)] * (rows.ndim - 1)], constant_values=fill)
    return padded.reshape(count, steps, *rows.shape[1:])


def _folded(a: jax.Array, b: jax.Array, reverse: bool) -> tuple[jax.Array, jax.Array]:
    """Fold chunks (C, L, ...) to pairs (C, ...)."""

    def step(i: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        a_t, b_t = (_row(x, i, reverse) for x in (a, b))
        product, total = pair
        return _times(a_t, product), _times(a_t, total) + b_t

    first = _row(a, 0, reverse), _row(b, 0, reverse)
    return lax.fori_loop(1, a.shape[1], step, first)


def _crossed(a: jax.Array, b: jax.Array, state: jax.Array, reverse: bool) -> jax.Array:
    """Cross chunks (C, L, ...), each from its own state (C, ...)."""

    def step(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        state, out = carry
        state = _times(_row(a, i, reverse), state) + _row(b, i, reverse)
        at = a.shape[1] - 1 - i if reverse else i
        return state, lax.dynamic_update_index_in_dim(out, state, at, 1)

    return lax.fori_loop(0, a.shape[1], step, (state, zeros_like(b)))[1]


def _row(rows: jax.Array, i: jax.Array | int, reverse: bool) -> jax.Array:
    """Give step i, as they are crossed, of every chunk."""
    return lax.dynamic_index_in_dim(rows, rows.shape[1] - 1 - i if reverse else i, 1, keepdims=False)


def _times(a: jax.Array, s: jax.Array) -> jax.Array:
    """Give a * s, zero where one of them is, whatever the other is."""
    return jnp.where((a == 0) | (s == 0), 0, a * s)
