"""What a block of threads of the GPU's kernel has, and how it meets the others: in Pallas' Mosaic backend."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.mosaic import gpu as mosaic
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxlib.mlir.dialects import memref

from .equation import Tiles
from .tiling import Tiling

OLDER: Any = {"idx": ()} if jax.__version_info__ < (0, 11) else {}  # what `load` had to be told


@dataclasses.dataclass(frozen=True)
class Exchange:
    """What a block of threads has: its place, its shared memory, and how it meets the others.

    Attributes:
        tiling: how the work is cut.
        weights: its operand (M, K), in shared memory.
        fetched: the other one, (times b, K).
        products: of both, transposed: `tiling.products`.
        copied: the barrier for the copy of the weights.
        arrivals: how often the blocks that share its work have published, all together; None where there is one.
    """

    tiling: Tiling
    weights: Any
    fetched: Any
    products: Any
    copied: Any
    arrivals: Any

    @classmethod
    def of(cls, tiling: Tiling, weights: Any, fetched: Any, products: Any, copied: Any) -> Exchange:
        """Make it in the kernel."""
        arrivals = None
        if tiling.members > 1:
            counts = pl.get_global(plgpu.SemaphoreType.REGULAR((tiling.batch // tiling.rows, tiling.blocks)))
            arrivals = counts.at[lax.axis_index("rows"), lax.axis_index("block")]
        return cls(tiling, weights, fetched, products, copied, arrivals)

    def begin(self, slabs: Any) -> None:
        """Fetch the weights."""
        plgpu.copy_gmem_to_smem(slabs.at[lax.axis_index("block"), lax.axis_index("member")], self.weights, self.copied)
        plgpu.barrier_wait(self.copied)

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
            self.at(ref, t)[...] = tile.astype(ref.dtype)

    def zeros(self) -> jax.Array:
        """A tile of zeros."""
        return plgpu.layout_cast(jnp.zeros((self.tiling.rows, self.tiling.units), jnp.float32), self.layout)

    def publish(self, refs: Any, tiles: Tiles, t: Any) -> None:
        """Store tiles for the others, and say so."""
        self.store(refs, tiles, t)
        if self.arrivals is not None:
            plgpu.semaphore_signal(self.arrivals, 1, memory_scope="gpu")

    def fetch(self, refs: Any, t: Any, count: Any) -> None:
        """Wait until all have published `count` times, and fetch what they have for t."""
        tiling = self.tiling
        if self.arrivals is not None:
            plgpu.semaphore_wait(self.arrivals, count * tiling.members, decrement=False, memory_scope="gpu")
        layout = plgpu.Layout.SMEM_GMEM_COPY((tiling.rows, tiling.width), tiling.dtype, tiling.swizzle)
        columns = pl.ds(lax.axis_index("block") * tiling.width, tiling.width)
        for k, ref in enumerate(refs):
            part = ref.at[t, self.mine, columns]
            self.fetched[pl.ds(k * tiling.rows, tiling.rows)] = plgpu.load(
                part, layout=layout, optimized=False, **OLDER
            )
        plgpu.commit_smem()

    def multiply(self) -> None:
        """Multiply what was fetched with the weights."""

        def product(sums: Any) -> None:
            plgpu.wgmma(sums, self.weights, self.fetched.T)
            _store_transposed(sums[...], self.products)

        pl.run_scoped(product, plgpu.ACC((self.tiling.height, self.tiling.columns), jnp.float32))

    def product(self, gate: int) -> jax.Array:
        """Give a gate's tile of the product."""
        tiling = self.tiling
        first = gate * tiling.rows if tiling.times > 1 else 0
        place = (pl.ds(first, tiling.rows), pl.ds(gate * tiling.units, tiling.units))
        return plgpu.layout_cast(self.products.at[place][...], self.layout)


@plgpu.inline_mgpu(arg_types=(plgpu.Layout.WGMMA, plgpu.RefType()))
def _store_transposed(context: Any, sums: Any, ref: Any) -> None:
    """Store sums (M, N) as (N, M), so that a tile lies side by side; between barriers, which Pallas puts elsewhere."""
    mosaic.warpgroup_barrier()
    sums.foreach(lambda value, place: memref.store(value, ref, [place[1], place[0]]))
    mosaic.warpgroup_barrier()
