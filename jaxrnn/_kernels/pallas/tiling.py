"""The division of a time loop over the thread blocks of a GPU."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

SHARED = 227 * 1024  # bytes of shared memory of a thread block
PROCESSORS = 132  # of an H100 or H200, if no device is present
WARPS = 4  # of a thread block; K is divided among them
REGISTER_FRAGMENTS = 20  # fragments of the weights in the registers of a thread; the others are in shared memory
LOADS_IN_FLIGHT = 12  # vectors of 16 bytes that a thread loads at once
ACCUMULATORS = 16  # tiles (16, 8) of the product that a warp computes at once
PAD_FLOATS = 4  # floats between rows of the products in shared memory, against bank conflicts of stores


class Vector(NamedTuple):
    """The 16 bytes that each lane of a warp loads of a published array, in rows 8 row + lane / 4."""

    time: int  # which published array
    turn: int  # which of the spans of K of the warp
    row: int


class Section(NamedTuple):
    """A part of the product whose sums a thread holds at once: 8 rows of the batch for each in `rows`."""

    rows: range
    loads: list[list[Vector]]  # the vectors that it sums over, in groups that are loaded at once


@dataclasses.dataclass(frozen=True)
class Tiling:
    """The division of the work.

    Attributes:
        blocks: N blocks of weights.
        real: K, the units of one.
        width: those padded to a multiple of `units` and of `span`.
        gates: G.
        dtype: of weights.
        units: n, the units of one thread block.
        rows: b, the rows of the batch of one thread block.
        batch: B, padded to a multiple of them.
        times: the number of arrays (K,) that are published in a step: 1 forward, G backward.
    """

    blocks: int
    real: int
    width: int
    gates: int
    dtype: Any
    units: int
    rows: int
    batch: int
    times: int

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: Any, batch: int, times: int) -> Tiling:
        """Divide weights (N, K, G, K) and a batch into the fewest rows and the most units that fit on the chip at once.

        Raises:
            ValueError: if none fit.
        """
        (blocks, real, gates, _), dtype = shape, jnp.dtype(dtype)
        least = max(16, 64 // dtype.itemsize)
        candidates = [
            cls(
                blocks,
                real,
                _round_up(real, max(units, least)),
                gates,
                dtype,
                units,
                rows,
                _round_up(batch, rows),
                times,
            )
            for rows, units in itertools.product((8, 16, 32, 64, 128), (64, 32, 16))
            if units == 16 or (gates * units <= 64 and _round_up(real, units) == _round_up(real, least))
        ]
        cores = getattr(jax.devices()[0], "core_count", PROCESSORS)
        for tiling in candidates:
            if tiling.shared <= SHARED and tiling.concurrent <= cores:
                return tiling
        best = min(candidates, key=lambda t: (t.concurrent > cores, t.shared))
        raise ValueError(
            f"keeps the recurrent weights on the chip: {gates} gates of {blocks * real} units in {best.dtype.name} "
            f"for a batch of {batch} take {best.shared / 1024:.0f} KiB of shared memory on each of {best.concurrent} "
            f"processors, and there are {SHARED // 1024} KiB on each of {cores}"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Return the padded shape (B, N K)."""
        return self.batch, self.blocks * self.width

    @property
    def members(self) -> int:
        """Return the number of thread blocks that share rows and weights."""
        return self.width // self.units

    @property
    def concurrent(self) -> int:
        """Return the number of thread blocks that must run at once, since they wait for each other."""
        return self.batch // self.rows * self.blocks * self.members if self.members > 1 else 1

    @property
    def height(self) -> int:
        """Return the columns of weights of a thread block: n for each gate; backward, with a sum over gates, n."""
        return self.units * (self.gates if self.times == 1 else 1)

    @property
    def span(self) -> int:
        """Return the part of K that a warp loads at once: 16 bytes for each of four lanes, two steps of `mma`."""
        return 64 // int(self.dtype.itemsize)

    @property
    def spans(self) -> int:
        """Return the number of spans of K."""
        return self.width // self.span

    @property
    def turns(self) -> int:
        """Return the most spans of a warp; spans are assigned to warps in turn."""
        return -(-self.spans // WARPS)

    @property
    def fragments(self) -> int:
        """Return the number of parts (16, k) of the weights of a warp, 16 bytes for each of its threads."""
        return self.times * self.turns * self.height // 16 * 2

    @property
    def in_registers(self) -> int:
        """Return the number of fragments in registers; wide tiles need the registers themselves."""
        return min(self.fragments, REGISTER_FRAGMENTS if self.rows <= 16 else REGISTER_FRAGMENTS // 4)

    @property
    def streamed(self) -> int:
        """Return the words in shared memory for the others; at least one fragment, since empty arrays do not exist."""
        return max(1, self.fragments - self.in_registers) * WARPS * 128

    @property
    def products(self) -> tuple[int, int]:
        """Return the shape of the product of all warps in shared memory, transposed."""
        return WARPS * self.rows, self.height + PAD_FLOATS

    @property
    def shared(self) -> int:
        """Return the bytes of shared memory of a thread block, with a margin: arrays are aligned to 1 KiB."""
        return 4 * self.streamed + 4 * math.prod(self.products) + 2304

    def sections(self) -> list[Section]:
        """Return the work of a warp in a step."""
        size = max(1, ACCUMULATORS * 16 // self.height)
        candidates = []
        for first in range(0, self.rows // 8, size):
            rows = range(first, min(first + size, self.rows // 8))
            loads = [Vector(*v) for v in itertools.product(range(self.times), range(self.turns), rows)]
            candidates.append(
                Section(rows, [loads[i : i + LOADS_IN_FLIGHT] for i in range(0, len(loads), LOADS_IN_FLIGHT)])
            )
        return candidates

    def chains(self, section: Section) -> int:
        """Return the number of accumulators of a section: several a tile if there are few, since additions wait."""
        tiles = len(section.rows) * self.height // 16
        return tiles * max(1, 4 // tiles)

    def fragment(self, vector: Vector, tile: int, half: int) -> int:
        """Return the fragment of the weights for a tile of the product, 16 high, and half a vector."""
        return ((vector.time * self.turns + vector.turn) * (self.height // 16) + tile) * 2 + half

    def fragments_of(self, w: jax.Array) -> jax.Array:
        """Return the words (N, K/n, 512 fragments) of all threads, from w (N, K, G, K), whose second K is divided.

        Lane 4 g + c has rows g and g + 8 of a fragment, at the places in a span that lanes c load.
        """
        w = jnp.pad(w, ((0, 0), (0, self.width - w.shape[1]), (0, 0), (0, 0)))
        w = _repeat_last(w, (0, 0, 0, self.width - w.shape[3]))
        if self.dtype == jnp.float32:
            w = lax.reduce_precision(w, 8, 10)  # TF32, rounded here: the GPU would truncate
        w = w.reshape(self.blocks, self.width, self.gates, self.members, self.units).transpose(0, 3, 2, 4, 1)
        w = w.reshape(self.blocks, self.members, self.times, self.height, self.spans, self.span)
        w = jnp.pad(w, [(0, 0)] * 4 + [(0, self.turns * WARPS - self.spans), (0, 0)])
        parts = 4 // self.dtype.itemsize
        w = w.reshape(*w.shape[:3], self.height // 16, 2, 8, self.turns, WARPS, 4, 2, 2, parts)
        w = w.transpose(0, 1, 2, 6, 3, 9, 7, 5, 8, 10, 4, 11)  # time, turn, tile, half, warp, g, c, and its four words
        words = lax.bitcast_convert_type(w if parts > 1 else w[..., 0], jnp.int32)
        return words.reshape(self.blocks, self.members, self.fragments * WARPS * 128)

    def pad(self, tree: Any) -> Any:
        """Pad the units and the batch of arrays (..., B, N K) with their last entries, which the gate accepts."""

        def one(a: jax.Array) -> jax.Array:
            a = a.reshape(*a.shape[:-1], self.blocks, a.shape[-1] // self.blocks)
            a = _repeat_last(a, (*[0] * (a.ndim - 3), self.batch - a.shape[-3], 0, self.width - a.shape[-1]))
            return a.reshape(*a.shape[:-2], self.blocks * self.width)

        return jax.tree.map(one, tree)

    def unpad(self, tree: Any, like: jax.Array) -> Any:
        """Return arrays (..., B, H) with the shape of `like`, the inverse of `pad`."""
        batch, hidden = like.shape[-2:]

        def one(a: jax.Array) -> jax.Array:
            parts = a.reshape(*a.shape[:-1], self.blocks, self.width)[..., :batch, :, : hidden // self.blocks]
            return parts.reshape(*a.shape[:-2], batch, hidden)

        return jax.tree.map(one, tree)

    def spread_mask(self, mask: Any) -> Any:
        """Return a mask (T, B) as numbers (T, B, n), of which every thread block loads a tile."""
        if mask is None:
            return None
        mask = jnp.pad(mask, ((0, 0), (0, self.batch - mask.shape[1]))).astype(jnp.float32)
        return jnp.broadcast_to(mask[:, :, None], (*mask.shape, self.units))


def _repeat_last(a: jax.Array, more: tuple[int, ...]) -> jax.Array:
    """Repeat the last entry of each axis `more` times."""
    return jnp.pad(a, [(0, n) for n in more], mode="edge") if any(more) else a


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
