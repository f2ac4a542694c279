"""How the work of a time loop is cut for the blocks of threads of a GPU."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

SHARED = 227 * 1024  # bytes of shared memory that a block may have
PROCESSORS = 132  # of an H100 or H200, where there is none to ask
APART = 4  # floats between rows of the products in shared memory, so that no two lanes meet in a bank


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How the work is cut.

    Attributes:
        blocks: N blocks of weights.
        width: K, the units of one, padded to a multiple of `units`.
        gates: G.
        dtype: of weights.
        units: n, those that one block of threads owns.
        rows: b, the rows of the batch that it takes.
        batch: B, padded to a multiple of them.
        times: the operands side by side: 1 forward, G backward.
    """

    blocks: int
    width: int
    gates: int
    dtype: Any
    units: int
    rows: int
    batch: int
    times: int

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: Any, batch: int, times: int) -> Tiling:
        """Cut weights (N, K, G, K) and a batch: take the fewest rows with which all is on the chip at once.

        Raises:
            ValueError: where there are none.
        """
        blocks, width, gates, _ = shape
        units = next((n for n in (64, 32) if gates * n <= 64 and _up(width, n) == _up(width, 16)), 16)
        cut = lambda b: cls(blocks, _up(width, units), gates, jnp.dtype(dtype), units, b, _up(batch, b), times)
        made = [cut(rows) for rows in (8, 16, 32, 64, 128)]
        cores = getattr(jax.devices()[0], "core_count", PROCESSORS)
        for tiling in made:
            if tiling.swizzle and tiling.shared <= SHARED and tiling.columns <= 256 and tiling.together <= cores:
                return tiling
        least = min(made, key=lambda t: (t.together > cores, t.shared))
        raise ValueError(
            f"keeps the recurrent weights on the chip: {gates} gates of {blocks * width} units in {least.dtype.name} "
            f"for a batch of {batch} take {least.shared / 1024:.0f} KiB of shared memory on each of {least.together} "
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
        """M, the rows of the weights' operand."""
        return _up(self.gates * self.units, 64)

    @property
    def columns(self) -> int:
        """The columns of the other operand, and of the product."""
        return self.times * self.rows

    @property
    def products(self) -> tuple[int, int]:
        """The shape of the product in shared memory, transposed."""
        return self.columns, self.height + APART

    @property
    def swizzle(self) -> int:
        """Bytes of a row of a tile (8 rows high) in shared memory, 0 where none lets four warps share a copy."""
        line = self.width * self.dtype.itemsize
        return next((s for s in (128, 64, 32) if line % s == 0 and self.rows // 8 * (line // s) % 4 == 0), 0)

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block of threads, with 2 KiB that the compiler takes."""
        operands = (self.height + self.columns) * self.width * self.dtype.itemsize
        return operands + 4 * math.prod(self.products) + 2304

    def slabs(self, w: jax.Array) -> jax.Array:
        """Give each block of threads its operand (N, K/n, M, K): of w (N, K, G, K) the second K is what it owns."""
        w = jnp.pad(w, ((0, 0), (0, self.width - w.shape[1]), (0, 0), (0, 0)))
        w = _last(w, (0, 0, 0, self.width - w.shape[3]))
        w = w.reshape(self.blocks, self.width, self.gates, self.members, self.units).transpose(0, 3, 2, 4, 1)
        w = w.reshape(self.blocks, self.members, self.gates * self.units, self.width)
        return jnp.pad(w, ((0, 0), (0, 0), (0, self.height - w.shape[2]), (0, 0)))

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
