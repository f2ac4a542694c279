"""What a block of threads of the GPU's kernel has, and how it meets the others: in Pallas' Mosaic backend.

What is exchanged is its own signal: the arrays for it are filled with a NaN that has all bits set, which is never
published, and a block takes what another has published as soon as it finds something else there. No barrier, and no
order of memory, is needed between blocks in a step.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.mosaic import gpu as mosaic
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import arith

from . import ptx
from .equation import Tiles
from .tiling import WARPS, Tiling
from .warp import Warp, packed, unpacked

OLDER: Any = {"idx": ()} if jax.__version_info__ < (0, 11) else {}  # what `load` had to be told
COPIED = 8  # fragments of the weights that a thread copies at once


@dataclasses.dataclass(frozen=True)
class Exchange:
    """What a block of threads has: its place, its shared memory, and how it meets the others.

    Attributes:
        tiling: how the work is cut.
        weights: fragments of its weights, in shared memory.
        products: sums of its warps: `tiling.products`.
        kept: the other fragments, in registers.
    """

    tiling: Tiling
    weights: Any
    products: Any
    kept: Any

    @classmethod
    def begin(cls, tiling: Tiling, slabs: Any, refs: Any, weights: Any, products: Any) -> Exchange:
        """Fetch the weights, and mark all that will be exchanged as absent; wait until all blocks have done so."""
        mine = slabs.at[lax.axis_index("block"), lax.axis_index("member")]

        def take(first: int, count: int) -> Any:
            return plgpu.load(mine.at[pl.ds(512 * first, 512 * count)], layout=_vectors(count), **OLDER)

        streamed = tiling.fragments - tiling.kept
        made = cls(tiling, weights, products, take(streamed, tiling.kept))
        for first in range(0, streamed, COPIED):
            count = min(COPIED, streamed - first)
            weights[pl.ds(512 * first, 512 * count)] = take(first, count)
        bits = jnp.full((tiling.rows, tiling.units), -1, {2: jnp.int16, 4: jnp.int32}[tiling.dtype.itemsize])
        absent = lax.bitcast_convert_type(plgpu.layout_cast(bits, made.layout), tiling.dtype)
        lax.fori_loop(0, len(refs[0]), lambda t, _: made.store(refs, [absent] * len(refs), t), None)
        _meet()
        if tiling.members > 1:
            counts = pl.get_global(plgpu.SemaphoreType.REGULAR((tiling.batch // tiling.rows, tiling.blocks)))
            arrivals = counts.at[lax.axis_index("rows"), lax.axis_index("block")]
            plgpu.semaphore_signal(arrivals, 1, memory_scope="gpu")
            plgpu.semaphore_wait(arrivals, tiling.members, decrement=False, memory_scope="gpu")
        return made

    @property
    def layout(self) -> Any:
        """How a tile (b, n) lies in registers."""
        shape = (self.tiling.rows, self.tiling.units)
        return plgpu.Layout.WG_STRIDED(shape, vec_size=min(2, shape[0] * shape[1] // 128))

    @property
    def mine(self) -> Any:
        """The rows that are this block's."""
        return pl.ds(lax.axis_index("rows") * self.tiling.rows, self.tiling.rows)

    def at(self, ref: Any, t: Any = None) -> Any:
        """Cut this block's tile out of (T, B, H), at t, or of (B, H)."""
        first = lax.axis_index("block") * self.tiling.width + lax.axis_index("member") * self.tiling.units
        place = (self.mine, pl.ds(first, self.tiling.units))
        return ref.at[place if t is None else (t, *place)]

    def load(self, refs: Any, t: Any = None) -> Any:
        """Load tiles; None stays."""
        one = lambda ref: None if ref is None else plgpu.layout_cast(self.at(ref, t)[...], self.layout)
        return [one(ref) for ref in refs]

    def mark(self, ref: Any, t: Any) -> Any:
        """Load a mark."""
        return None if ref is None else plgpu.layout_cast(ref.at[t, self.mine][...], self.layout)

    def store(self, refs: Any, tiles: Tiles, t: Any = None) -> None:
        """Store tiles."""
        for ref, tile in zip(refs, tiles, strict=True):
            self._own(ptx.publish, self.at(ref, t), plgpu.layout_cast(tile.astype(ref.dtype), self.layout))

    def publish(self, refs: Any, tiles: Tiles, t: Any) -> None:
        """Store tiles for the others: a NaN as one that is not taken for absent, zero for units that only pad."""
        tiles = [jnp.where(tile == tile, tile, jnp.nan) for tile in tiles]
        if self.tiling.real < self.tiling.width:
            first = lax.axis_index("member") * self.tiling.units
            unit = plgpu.broadcasted_iota(jnp.int32, tiles[0].shape, 1, layout=self.layout) + first
            tiles = [jnp.where(unit < self.tiling.real, tile, jnp.zeros_like(tile)) for tile in tiles]
        self.store(refs, tiles, t)

    def expect(self, refs: Any, t: Any) -> None:
        """Say that tiles are going to be loaded: they are brought nearer."""
        for ref in refs:
            if ref is not None:
                self._own(ptx.prefetch, self.at(ref, t))

    def zeros(self) -> jax.Array:
        """A tile of zeros."""
        return plgpu.layout_cast(jnp.zeros((self.tiling.rows, self.tiling.units), jnp.float32), self.layout)

    def fetch(self, refs: Any, t: Any) -> Any:
        """Wait for what all have published for t, and give what the last part of the product takes."""
        section = self.tiling.sections()[-1]
        vectors, chains = len(section.asked[-1]), self.tiling.chains(section)
        kinds = [
            plgpu.ShapeDtypeStruct((512 * count,), dtype, layout=_vectors(count))
            for count, dtype in ((vectors, jnp.int32), (chains, jnp.float32))
        ]

        @plgpu.inline_mgpu(arg_types=(*self._has, *[plgpu.RefType()] * len(refs)), return_type=tuple(kinds))
        def fetch(context: Any, kept: Any, weights: Any, products: Any, *refs: Any) -> Any:
            mosaic.warpgroup_barrier()  # all have seen the products of the step before
            words, sums = Warp(self.tiling, kept.registers, weights, products).fetch(refs)
            return _array(words, True), _array(sums, None)

        columns = pl.ds(lax.axis_index("block") * self.tiling.width, self.tiling.width)
        return fetch(self.kept, self.weights, self.products, *(ref.at[t, self.mine, columns] for ref in refs))

    def multiply(self, words: Any, sums: Any) -> None:
        """End the product with what `fetch` gave."""
        given = [_vectors(array.size // 512) for array in (words, sums)]

        @plgpu.inline_mgpu(arg_types=(*self._has, *given))
        def multiply(context: Any, kept: Any, weights: Any, products: Any, words: Any, sums: Any) -> None:
            warp = Warp(self.tiling, kept.registers, weights, products)
            warp.multiply(unpacked(words.registers), unpacked(sums.registers))
            mosaic.warpgroup_barrier()

        multiply(self.kept, self.weights, self.products, words, sums)

    def product(self, gate: int) -> jax.Array:
        """Give a gate's tile of the product."""
        rows, units = self.tiling.rows, self.tiling.units
        columns = pl.ds(gate * units, units)
        parts = [self.products.at[pl.ds(warp * rows, rows), columns][...] for warp in range(WARPS)]
        return functools.reduce(jnp.add, [plgpu.layout_cast(part, self.layout) for part in parts])

    @property
    def _has(self) -> tuple[Any, ...]:
        return _vectors(self.tiling.kept), plgpu.RefType(), plgpu.RefType()

    def _own(self, do: Callable[..., None], ref: Any, *tiles: jax.Array) -> None:
        """Do something with each address that a thread has in a reference, and with its numbers of tiles for it."""

        @plgpu.inline_mgpu(arg_types=(plgpu.RefType(), *[self.layout] * len(tiles)))
        def each(context: Any, ref: Any, *tiles: Any) -> None:
            kind = ir.MemRefType(ref.type)
            stride = mosaic.c(kind.get_strides_and_offset()[0][0], ir.IndexType.get())
            places = self.layout.to_mgpu().thread_idxs((self.tiling.rows, self.tiling.units))
            for k, (row, column) in enumerate(places):
                number = arith.index_cast(ptx.word(), arith.addi(arith.muli(row, stride), column))
                do(
                    ptx.behind(ptx.address(ref), number, mosaic.bitwidth(kind.element_type) // 8),
                    *(tile.registers[k] for tile in tiles),
                )

        each(ref, *tiles)


def _vectors(count: int) -> Any:
    """The layout of so many vectors of 16 bytes in each thread."""
    return plgpu.Layout.WG_STRIDED((512 * count,), vec_size=4)


def _array(numbers: list[Any], signed: bool | None) -> Any:
    """Make an array of a thread's numbers."""
    layout = mosaic.WGStridedFragLayout((128 * len(numbers),), 4)
    return mosaic.FragmentedArray(_registers=packed(numbers), _layout=layout, _is_signed=signed)


@plgpu.inline_mgpu()
def _meet(context: Any) -> None:
    """Let the threads of a block see what each has stored."""
    mosaic.warpgroup_barrier()
