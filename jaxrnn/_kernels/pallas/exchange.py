"""The memory of a thread block of the kernel for GPUs, and the exchange with other thread blocks, in Pallas Mosaic.

The data that thread blocks exchange is its own signal. The arrays for it are filled with a NaN that has all bits set,
which is never published, and a thread block loads an element until it finds something else. No barrier and no memory
order is needed between thread blocks in a step.
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

LOAD_OPTIONS: Any = (
    {"idx": ()} if jax.__version_info__ < (0, 11) else {}
)  # an argument that older versions of `load` need
COPY_FRAGMENTS = 8  # fragments of the weights that a thread copies at once


@dataclasses.dataclass(frozen=True)
class Exchange:
    """The registers and shared memory of a thread block, and its loads and stores in global memory.

    Attributes:
        tiling: the division of the work.
        weights: fragments of the weights in shared memory.
        products: the sums of its warps, of shape `tiling.products`.
        in_registers: the other fragments.
    """

    tiling: Tiling
    weights: Any
    products: Any
    in_registers: Any

    @classmethod
    def begin(cls, tiling: Tiling, fragments: Any, refs: Any, weights: Any, products: Any) -> Exchange:
        """Load the weights, fill the exchanged arrays with the absent value, and wait until all blocks have."""
        mine = fragments.at[lax.axis_index("block"), lax.axis_index("member")]

        def take(first: int, count: int) -> Any:
            return plgpu.load(mine.at[pl.ds(512 * first, 512 * count)], layout=_vectors(count), **LOAD_OPTIONS)

        streamed = tiling.fragments - tiling.in_registers
        exchange = cls(tiling, weights, products, take(streamed, tiling.in_registers))
        for first in range(0, streamed, COPY_FRAGMENTS):
            count = min(COPY_FRAGMENTS, streamed - first)
            weights[pl.ds(512 * first, 512 * count)] = take(first, count)
        bits = jnp.full((tiling.rows, tiling.units), -1, {2: jnp.int16, 4: jnp.int32}[tiling.dtype.itemsize])
        absent = lax.bitcast_convert_type(plgpu.layout_cast(bits, exchange.layout), tiling.dtype)
        lax.fori_loop(0, len(refs[0]), lambda t, _: exchange.store(refs, [absent] * len(refs), t), None)
        _synchronize()
        if tiling.members > 1:
            counts = pl.get_global(plgpu.SemaphoreType.REGULAR((tiling.batch // tiling.rows, tiling.blocks)))
            arrivals = counts.at[lax.axis_index("rows"), lax.axis_index("block")]
            plgpu.semaphore_signal(arrivals, 1, memory_scope="gpu")
            plgpu.semaphore_wait(arrivals, tiling.members, decrement=False, memory_scope="gpu")
        return exchange

    @property
    def layout(self) -> Any:
        """Return the layout of a tile (b, n) in registers."""
        shape = (self.tiling.rows, self.tiling.units)
        return plgpu.Layout.WG_STRIDED(shape, vec_size=min(2, shape[0] * shape[1] // 128))

    @property
    def mine(self) -> Any:
        """Return the rows of this thread block."""
        return pl.ds(lax.axis_index("rows") * self.tiling.rows, self.tiling.rows)

    def at(self, ref: Any, t: Any = None) -> Any:
        """Return a reference to the tile of this thread block in (T, B, H), at t, or in (B, H)."""
        first = lax.axis_index("block") * self.tiling.width + lax.axis_index("member") * self.tiling.units
        place = (self.mine, pl.ds(first, self.tiling.units))
        return ref.at[place if t is None else (t, *place)]

    def load(self, refs: Any, t: Any = None) -> Any:
        """Load tiles; None stays."""
        one = lambda ref: None if ref is None else plgpu.layout_cast(self.at(ref, t)[...], self.layout)
        return [one(ref) for ref in refs]

    def load_mask(self, ref: Any, t: Any) -> Any:
        """Load a mask."""
        return None if ref is None else plgpu.layout_cast(ref.at[t, self.mine][...], self.layout)

    def store(self, refs: Any, tiles: Tiles, t: Any = None) -> None:
        """Store tiles."""
        for ref, tile in zip(refs, tiles, strict=True):
            self._for_each_address(ptx.publish, self.at(ref, t), plgpu.layout_cast(tile.astype(ref.dtype), self.layout))

    def publish(self, refs: Any, tiles: Tiles, t: Any) -> None:
        """Store tiles for other thread blocks: no NaN is the absent value, and padded units are zero."""
        tiles = [jnp.where(tile == tile, tile, jnp.nan) for tile in tiles]
        if self.tiling.real < self.tiling.width:
            first = lax.axis_index("member") * self.tiling.units
            unit = plgpu.broadcasted_iota(jnp.int32, tiles[0].shape, 1, layout=self.layout) + first
            tiles = [jnp.where(unit < self.tiling.real, tile, jnp.zeros_like(tile)) for tile in tiles]
        self.store(refs, tiles, t)

    def prefetch(self, refs: Any, t: Any) -> None:
        """Prefetch tiles into L2."""
        for ref in refs:
            if ref is not None:
                self._for_each_address(ptx.prefetch, self.at(ref, t))

    def zeros(self) -> jax.Array:
        """Return a tile of zeros."""
        return plgpu.layout_cast(jnp.zeros((self.tiling.rows, self.tiling.units), jnp.float32), self.layout)

    def fetch(self, refs: Any, t: Any) -> Any:
        """Wait for what all thread blocks publish at t; return the arguments of `multiply`."""
        section = self.tiling.sections()[-1]
        vectors, chains = len(section.loads[-1]), self.tiling.chains(section)
        types = [
            plgpu.ShapeDtypeStruct((512 * count,), dtype, layout=_vectors(count))
            for count, dtype in ((vectors, jnp.int32), (chains, jnp.float32))
        ]

        @plgpu.inline_mgpu(arg_types=(*self._operand_types, *[plgpu.RefType()] * len(refs)), return_type=tuple(types))  # type: ignore[untyped-decorator]
        def fetch(context: Any, in_registers: Any, weights: Any, products: Any, *refs: Any) -> Any:
            mosaic.warpgroup_barrier()  # all threads have read the products of the step before
            words, sums = Warp(self.tiling, in_registers.registers, weights, products).fetch(refs)
            return _array(words, True), _array(sums, None)

        columns = pl.ds(lax.axis_index("block") * self.tiling.width, self.tiling.width)
        return fetch(self.in_registers, self.weights, self.products, *(ref.at[t, self.mine, columns] for ref in refs))

    def multiply(self, words: Any, sums: Any) -> None:
        """Complete the product with the result of `fetch`."""
        layouts = [_vectors(array.size // 512) for array in (words, sums)]

        @plgpu.inline_mgpu(arg_types=(*self._operand_types, *layouts))  # type: ignore[untyped-decorator]
        def multiply(context: Any, in_registers: Any, weights: Any, products: Any, words: Any, sums: Any) -> None:
            warp = Warp(self.tiling, in_registers.registers, weights, products)
            warp.multiply(unpacked(words.registers), unpacked(sums.registers))
            mosaic.warpgroup_barrier()

        multiply(self.in_registers, self.weights, self.products, words, sums)

    def product(self, gate: int) -> jax.Array:
        """Return the tile of a gate in the product."""
        rows, units = self.tiling.rows, self.tiling.units
        columns = pl.ds(gate * units, units)
        parts = [self.products.at[pl.ds(warp * rows, rows), columns][...] for warp in range(WARPS)]
        product: jax.Array = functools.reduce(jnp.add, [plgpu.layout_cast(part, self.layout) for part in parts])
        return product

    @property
    def _operand_types(self) -> tuple[Any, ...]:
        return _vectors(self.tiling.in_registers), plgpu.RefType(), plgpu.RefType()

    def _for_each_address(self, emit: Callable[..., None], ref: Any, *tiles: jax.Array) -> None:
        """Call `emit` with each address of a thread in a reference, and with its registers of the tiles."""

        @plgpu.inline_mgpu(arg_types=(plgpu.RefType(), *[self.layout] * len(tiles)))  # type: ignore[untyped-decorator]
        def each(context: Any, ref: Any, *tiles: Any) -> None:
            kind = ir.MemRefType(ref.type)
            stride = mosaic.c(kind.get_strides_and_offset()[0][0], ir.IndexType.get())
            places = self.layout.to_mgpu().thread_idxs((self.tiling.rows, self.tiling.units))
            for k, (row, column) in enumerate(places):
                number = arith.index_cast(ptx.word(), arith.addi(arith.muli(row, stride), column))
                emit(
                    ptx.offset(ptx.address(ref), number, mosaic.bitwidth(kind.element_type) // 8),
                    *(tile.registers[k] for tile in tiles),
                )

        each(ref, *tiles)


def _vectors(count: int) -> Any:
    """Return the layout of `count` vectors of 16 bytes in each thread."""
    return plgpu.Layout.WG_STRIDED((512 * count,), vec_size=4)


def _array(numbers: list[Any], signed: bool | None) -> Any:
    """Return an array of the registers of each thread."""
    layout = mosaic.WGStridedFragLayout((128 * len(numbers),), 4)
    return mosaic.FragmentedArray(_registers=packed(numbers), _layout=layout, _is_signed=signed)


@plgpu.inline_mgpu()  # type: ignore[untyped-decorator]
def _synchronize(context: Any) -> None:
    """Synchronize the threads of a thread block."""
    mosaic.warpgroup_barrier()
