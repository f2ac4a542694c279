"""The parallel scan of an affine cell: chunks of time side by side, over devices too."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from .._core.affine_cell import AffineCell, Solver, run_affine, shifted
from .._core.cell import Cell
from .._core.fields import Checked, convert, instance, size_or_none
from .._core.live import cut
from .._core.masks import StepMasks
from .._core.sharding import zeros_like
from .._core.types import Output, Params, State
from .rows import rows_as_batch
from .time_axis import TimeAxis

MIN_PARALLEL_WIDTH = 1 << 20
"""The numbers that one step should have on an accelerator: chunks times the width of a state. Untuned."""
MIN_PARALLEL_STEPS = 64
"""The least number of steps that are split into chunks. Untuned."""


@dataclasses.dataclass(frozen=True)
class Associative(metaclass=Checked):
    """The recurrence of an `AffineCell` in parallel over time: chunks run side by side, each of them step by step.

    Each chunk is first reduced to the pair (A, S) that maps the state before it to the state after it. The pairs are a
    shorter recurrence, whose solution is the state before each chunk; from there every chunk runs again. So a is
    multiplied within a chunk only: where products overflow or vanish, nothing is lost that the states themselves keep.
    That reads a and b twice and writes s once. The gradient is the same recurrence in the other direction; it keeps two
    arrays of (T, *batch, H).

    Args:
        chunk: the steps of a chunk; None chooses by T and the width of a state. On a CPU it chooses all of T, which
            reads memory once.
        axis: the axis of a mesh that time is split over, inside a `jax.shard_map` that hands each device its part of
            xs, lengths (counted from the start of the part) and resets. `state` is used on the device where time
            starts; the state that is returned is the one at the end of each part. Each part is reduced to a pair, the
            pairs are combined by log2(devices) `ppermute`s, and each part runs from its own first state. NaN before a
            reset reaches the gradient then, since no single device knows which steps have a cotangent.

    Raises:
        ValueError: for a cell that is no `AffineCell`, a chunk below 1, and resets with both an axis and reverse.

    Reference: Blelloch, "Prefix sums and their applications", 1990; Martin and Cundy, "Parallelizing linear recurrent
    neural nets over sequence length", ICLR 2018 (https://arxiv.org/abs/1709.04057).
    """

    chunk: int | None = None
    axis: str | None = None

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, chunk=size_or_none, axis=instance(str | None, "'time', or None"))

    @rows_as_batch
    def __call__(
        self, cell: Cell, params: Params, state: State, xs: jax.Array, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Run the recurrence in parallel."""
        if not isinstance(cell, AffineCell):
            raise ValueError(f"{self} takes an AffineCell; got {cell}. Use Newton(), or Scan(), which takes any cell.")
        if self.axis is not None and reverse and masks.reset is not None:
            raise ValueError(
                f"{self} takes no resets with reverse: the next device alone knows the boundary before its part."
            )
        chunks = Chunks(self.chunk)
        solver = chunks if self.axis is None else Parts(self.axis, chunks)
        run = functools.partial(run_affine, solver, cell, reverse=reverse)
        if self.axis is not None:  # no single device knows which steps have a cotangent
            return run(params, state, xs, masks)
        return cut(run, params, state, xs, masks, reverse=reverse)


@dataclasses.dataclass(frozen=True)
class Chunks(Solver):
    """Chunks of time side by side."""

    chunk: int | None

    def __call__(self, a: jax.Array, b: jax.Array, state: jax.Array, reverse: bool) -> jax.Array:
        """Reduce the chunks to pairs, solve for the states between chunks, and run every chunk."""
        time = b.shape[0]
        steps = self.chunk or default_chunk(time, state.size)
        if self.chunk and not isinstance(time, int):
            raise ValueError(f"chunks of {self.chunk} steps need a T that is known; got {time}. Use Associative().")
        if steps is time or steps >= time:
            return _one_by_one(a, b, state, reverse)
        a, b = _split(a, steps, 1), _split(b, steps, 0)
        products, sums = _reduced(a, b, reverse)
        ends = Chunks(None)(products, sums, state, reverse)
        states = _run_chunks(a, b, self.shift(ends, state, reverse), reverse)
        return states.reshape(states.shape[0] * steps, *states.shape[2:])[:time]

    def reduce(self, a: jax.Array, b: jax.Array, reverse: bool) -> tuple[jax.Array, jax.Array]:
        """Return the pair (A, S), each (...), that does what all steps (T, ...) do."""
        steps = self.chunk or default_chunk(len(b), b[0].size)
        while len(b) > 1:
            steps = min(steps, len(b))
            a, b = _reduced(_split(a, steps, 1), _split(b, steps, 0), reverse)
            steps = max(2, default_chunk(len(b), b[0].size))
        return a[0], b[0]


@dataclasses.dataclass(frozen=True)
class Parts(Solver):
    """Parts of time on the devices along an axis of a mesh."""

    axis: str
    chunks: Chunks

    def __call__(self, a: jax.Array, b: jax.Array, state: jax.Array, reverse: bool) -> jax.Array:
        """Reduce the part to a pair, combine those of all parts before it, and run the part from there."""
        both = lambda a, b: (_times(b[0], a[0]), _times(b[0], a[1]) + b[1])
        neutral = jnp.ones_like(state), jnp.zeros_like(state)
        product, total = TimeAxis(self.axis, reverse).before(self.chunks.reduce(a, b, reverse), both, neutral)
        return self.chunks(a, b, _times(product, state) + total, reverse)

    def shift(self, rows: jax.Array, first: jax.Array, reverse: bool) -> jax.Array:
        """Return the rows one step later, with the last row of the part before in front; `first` where time starts."""
        last = rows[0 if reverse else -1]
        return shifted(rows, TimeAxis(self.axis, reverse).earlier(last, 1, first), reverse)

    def initial_state_grad(self, dstate: jax.Array, reverse: bool) -> jax.Array:
        """Return the gradient where time starts, zeros elsewhere."""
        return jnp.where(TimeAxis(self.axis, reverse).is_first(), dstate, 0)


def default_chunk(time: int, width: int) -> int:
    """Return the steps of a chunk, for T steps with a state of `width` numbers: T for one chunk and symbolic shapes."""
    if not isinstance(time, int) or not isinstance(width, int):
        return time
    count = min(math.isqrt(time), MIN_PARALLEL_WIDTH // max(width, 1))
    return time if jax.default_backend() == "cpu" or time < MIN_PARALLEL_STEPS or count < 2 else -(-time // count)


def _one_by_one(a: jax.Array, b: jax.Array, state: jax.Array, reverse: bool) -> jax.Array:
    """Return the states (T, ...), computed one after the other."""

    def step(state: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        state = _times(row[0], state) + row[1]
        return state, state

    return lax.scan(step, state, (a, b), reverse=reverse)[1]


def _split(rows: jax.Array, steps: int, fill: int) -> jax.Array:
    """Split rows (T, ...) into chunks (C, steps, ...), the last one padded with steps that change nothing."""
    count = -(-len(rows) // steps)
    padded = jnp.pad(rows, [(0, count * steps - len(rows)), *[(0, 0)] * (rows.ndim - 1)], constant_values=fill)
    return padded.reshape(count, steps, *rows.shape[1:])


def _reduced(a: jax.Array, b: jax.Array, reverse: bool) -> tuple[jax.Array, jax.Array]:
    """Reduce chunks (C, L, ...) to pairs (C, ...)."""

    def step(i: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        a_t, b_t = (_row(x, i, reverse) for x in (a, b))
        product, total = pair
        return _times(a_t, product), _times(a_t, total) + b_t

    first = _row(a, 0, reverse), _row(b, 0, reverse)
    return lax.fori_loop(1, a.shape[1], step, first)


def _run_chunks(a: jax.Array, b: jax.Array, state: jax.Array, reverse: bool) -> jax.Array:
    """Return the states of chunks (C, L, ...), each of which starts from its own state (C, ...)."""

    def step(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        state, out = carry
        state = _times(_row(a, i, reverse), state) + _row(b, i, reverse)
        at = a.shape[1] - 1 - i if reverse else i
        return state, lax.dynamic_update_index_in_dim(out, state, at, 1)

    return lax.fori_loop(0, a.shape[1], step, (state, zeros_like(b)))[1]


def _row(rows: jax.Array, i: jax.Array | int, reverse: bool) -> jax.Array:
    """Return the i-th step, in running order, of every chunk."""
    return lax.dynamic_index_in_dim(rows, rows.shape[1] - 1 - i if reverse else i, 1, keepdims=False)


def _times(a: jax.Array, s: jax.Array) -> jax.Array:
    """Return a * s, zero where a or s is, even if the other is not finite."""
    return jnp.where((a == 0) | (s == 0), 0, a * s)
