"""How the work of a time loop is cut for the blocks of threads of a GPU."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

SHARED = 227 * 1024  # bytes of shared memory that a block may have
PROCESSORS = 132  # of an H100 or H200, where there is none to ask
WARPS = 4  # of a block of threads, which share K
KEPT = 20  # fragments of the weights that a thread keeps in registers; the others lie in shared memory
ASKED = 12  # vectors of 16 bytes that a thread asks for at once
SUMS = 16  # tiles (16, 8) of the product that a warp makes at once
APART = 4  # floats between rows of the products in shared memory, so that no two lanes meet in a bank when they store


class Vector(NamedTuple):
    """What each lane of a warp loads of what was published, 16 bytes: of rows 8 row + lane / 4."""

    time: int  # which of what was published
    turn: int  # which of the warp's spans of K
    row: int


class Section(NamedTuple):
    """A part of the product whose sums a thread holds at once: of 8 rows of the batch for each in `rows`."""

    rows: range
    asked: list[list[Vector]]  # what it sums over, in groups that are asked for at once


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How the work is cut.

    Attributes:
        blocks: N blocks of weights.
        real: K, the units of one.
        width: those padded to a multiple of `units` and of `span`.
        gates: G.
        dtype: of weights.
        units: n, those that one block of threads owns.
        rows: b, the rows of the batch that it takes.
        batch: B, padded to a multiple of them.
        times: what the others publish in a step, arrays of K: 1 forward, G backward.
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
        """Cut weights (N, K, G, K) and a batch: into the fewest rows and the most units that are on the chip at once.

        Raises:
            ValueError: where there are none.
        """
        (blocks, real, gates, _), dtype = shape, jnp.dtype(dtype)
        least = max(16, 64 // dtype.itemsize)
        made = [
            cls(blocks, real, _up(real, max(units, least)), gates, dtype, units, rows, _up(batch, rows), times)
            for rows, units in itertools.product((8, 16, 32, 64, 128), (64, 32, 16))
            if units == 16 or (gates * units <= 64 and _up(real, units) == _up(real, least))
        ]
        cores = getattr(jax.devices()[0], "core_count", PROCESSORS)
        for tiling in made:
            if tiling.shared <= SHARED and tiling.together <= cores:
                return tiling
        best = min(made, key=lambda t: (t.together > cores, t.shared))
        raise ValueError(
            f"keeps the recurrent weights on the chip: {gates} gates of {blocks * real} units in {best.dtype.name} "
            f"for a batch of {batch} take {best.shared / 1024:.0f} KiB of shared memory on each of {best.together} "
            f"processors, and there are {SHARED // 1024} KiB on each of {cores}"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Of what there is once for every row: (B, N K)."""
        return self.batch, self.blocks * self.width

    @property
    def members(self) -> int:
        """The blocks of threads that share rows and weights."""
        return self.width // self.units

    @property
    def together(self) -> int:
        """The blocks of threads that must run at once, since they wait for each other."""
        return self.batch // self.rows * self.blocks * self.members if self.members > 1 else 1

    @property
    def height(self) -> int:
        """The columns of weights of a block of threads: n for each gate, or backward, where it sums over them, n."""
        return self.units * (self.gates if self.times == 1 else 1)

    @property
    def span(self) -> int:
        """The part of K that a warp loads at once: 16 bytes for each of four lanes, two steps of `mma`."""
        return 64 // int(self.dtype.itemsize)

    @property
    def spans(self) -> int:
        """The parts of K."""
        return self.width // self.span

    @property
    def turns(self) -> int:
        """Those that a warp takes, at most; spans lie in turn with the warps."""
        return -(-self.spans // WARPS)

    @property
    def fragments(self) -> int:
        """Parts (16, k) of the weights that a warp multiplies with, 16 bytes for each of its threads."""
        return self.times * self.turns * self.height // 16 * 2

    @property
    def kept(self) -> int:
        """Those in registers; wide tiles need these for themselves."""
        return min(self.fragments, KEPT if self.rows <= 16 else KEPT // 4)

    @property
    def streamed(self) -> int:
        """Words in shared memory for the others; one fragment at least, since it has no empty arrays."""
        return max(1, self.fragments - self.kept) * WARPS * 128

    @property
    def products(self) -> tuple[int, int]:
        """The shape of the product in shared memory, transposed, for each warp."""
        return WARPS * self.rows, self.height + APART

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block of threads, with some to spare: arrays are aligned to 1 KiB."""
        return 4 * self.streamed + 4 * math.prod(self.products) + 2304

    def sections(self) -> list[Section]:
        """Say what a warp does in a step."""
        size = max(1, SUMS * 16 // self.height)
        made = []
        for first in range(0, self.rows // 8, size):
            rows = range(first, min(first + size, self.rows // 8))
            loads = [Vector(*v) for v in itertools.product(range(self.times), range(self.turns), rows)]
            made.append(Section(rows, [loads[i : i + ASKED] for i in range(0, len(loads), ASKED)]))
        return made

    def chains(self, section: Section) -> int:
        """The fours of sums that a thread has for a section: of few tiles several, since a sum waits for the last."""
        tiles = len(section.rows) * self.height // 16
        return tiles * max(1, 4 // tiles)

    def fragment(self, vector: Vector, tile: int, half: int) -> int:
        """Say which fragment of the weights a tile of the product, 16 high, wants of half a vector."""
        return ((vector.time * self.turns + vector.turn) * (self.height // 16) + tile) * 2 + half

    def slabs(self, w: jax.Array) -> jax.Array:
        """Give the threads of each block their words (N, K/n, 512 fragments): of w (N, K, G, K) the second K is owned.

        Of a fragment lane 4 g + c has rows g and g + 8, and of what lanes c load of a span it has their parts.
        """
        w = jnp.pad(w, ((0, 0), (0, self.width - w.shape[1]), (0, 0), (0, 0)))
        w = _last(w, (0, 0, 0, self.width - w.shape[3]))
        if self.dtype == jnp.float32:
            w = lax.reduce_precision(w, 8, 10)  # TF32, rounded here: the GPU would cut it off
        w = w.reshape(self.blocks, self.width, self.gates, self.members, self.units).transpose(0, 3, 2, 4, 1)
        w = w.reshape(self.blocks, self.members, self.times, self.height, self.spans, self.span)
        w = jnp.pad(w, [(0, 0)] * 4 + [(0, self.turns * WARPS - self.spans), (0, 0)])
        parts = 4 // self.dtype.itemsize
        w = w.reshape(*w.shape[:3], self.height // 16, 2, 8, self.turns, WARPS, 4, 2, 2, parts)
        w = w.transpose(0, 1, 2, 6, 3, 9, 7, 5, 8, 10, 4, 11)  # time, turn, tile, half, warp, g, c, and its four words
        words = lax.bitcast_convert_type(w if parts > 1 else w[..., 0], jnp.int32)
        return words.reshape(self.blocks, self.members, self.fragments * WARPS * 128)

    def pad(self, tree: Any) -> Any:
        """Pad the units, and the batch, of arrays (..., B, N K) with the last: what its gate takes, they take."""

        def one(a: jax.Array) -> jax.Array:
            a = a.reshape(*a.shape[:-1], self.blocks, a.shape[-1] // self.blocks)
            a = _last(a, (*[0] * (a.ndim - 3), self.batch - a.shape[-3], 0, self.width - a.shape[-1]))
            return a.reshape(*a.shape[:-2], self.blocks * self.width)

        return jax.tree.map(one, tree)

    def cut(self, tree: Any, like: jax.Array) -> Any:
        """Undo that: give arrays (..., B, H) as `like` is."""
        batch, hidden = like.shape[-2:]

        def one(a: jax.Array) -> jax.Array:
            parts = a.reshape(*a.shape[:-1], self.blocks, self.width)[..., :batch, :, : hidden // self.blocks]
            return parts.reshape(*a.shape[:-2], batch, hidden)

        return jax.tree.map(one, tree)

    def mark(self, mark: Any) -> Any:
        """Give (T, B, n) numbers for a mark (T, B): every block of threads finds a tile of it."""
        if mark is None:
            return None
        mark = jnp.pad(mark, ((0, 0), (0, self.batch - mark.shape[1]))).astype(jnp.float32)
        return jnp.broadcast_to(mark[:, :, None], (*mark.shape, self.units))


def _last(a: jax.Array, more: tuple[int, ...]) -> jax.Array:
    """Repeat the last entry of each axis so many times."""
    return jnp.pad(a, [(0, n) for n in more], mode="edge") if any(more) else a


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
