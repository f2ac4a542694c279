"""What a block of threads of the GPU's kernel has, and how it meets the others: in Pallas' Mosaic backend."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax._src.lib.mlir import ir
from jax._src.lib.mlir.dialects import llvm, memref
from jax.experimental import pallas as pl
from jax.experimental.mosaic import gpu as mosaic
from jax.experimental.pallas import mosaic_gpu as plgpu

from .equation import Tiles
from .tiling import Tiling

AT_ONCE = 16  # vectors of 16 bytes that a thread asks for at once


@dataclasses.dataclass(frozen=True)
class Exchange:
    """What a block of threads has: its place, its shared memory, and how it meets the others.

    Attributes:
        tiling: how the work is cut.
        weights: its operand (M, K), in shared memory.
        fetched: the other one, (times b, K).
        products: of both, transposed: `tiling.products`.
        copied: the barrier for the copy of the weights.
        arrivals: the count of the blocks that share its work and have begun.
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
        counts = pl.get_global(plgpu.SemaphoreType.REGULAR((tiling.batch // tiling.rows, tiling.blocks)))
        return cls(
            tiling, weights, fetched, products, copied, counts.at[lax.axis_index("rows"), lax.axis_index("block")]
        )

    def begin(self, slabs: Any, refs: Any, steps: int) -> None:
        """Fetch the weights, and mark all that will be exchanged as absent; wait until all have done so."""
        plgpu.copy_gmem_to_smem(slabs.at[lax.axis_index("block"), lax.axis_index("member")], self.weights, self.copied)
        bits = jnp.full(
            (self.tiling.rows, self.tiling.units), -1, {2: jnp.int16, 4: jnp.int32}[self.tiling.dtype.itemsize]
        )
        absent = lax.bitcast_convert_type(plgpu.layout_cast(bits, self.layout), self.tiling.dtype)
        lax.fori_loop(0, steps, lambda t, _: self.store(refs, [absent] * len(refs), t), None)
        _meet()
        plgpu.semaphore_signal(self.arrivals, 1, memory_scope="gpu")
        plgpu.semaphore_wait(self.arrivals, self.tiling.members, decrement=False, memory_scope="gpu")
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
        """Store tiles for the others: a NaN as the one that is not taken for absent."""
        self.store(refs, [jnp.where(tile == tile, tile, jnp.nan) for tile in tiles], t)

    def multiply(self, refs: Any, t: Any) -> None:
        """Wait until all have published what they have for t, fetch it, and multiply it with the weights."""
        tiling = self.tiling
        shape = (tiling.rows, tiling.width)
        layout = plgpu.Layout.SMEM_GMEM_COPY(shape, tiling.dtype, tiling.swizzle)
        columns = pl.ds(lax.axis_index("block") * tiling.width, tiling.width)
        whole = awaited([ref.at[t, self.mine, columns] for ref in refs], shape, tiling.dtype, layout)
        for k, part in enumerate(whole):
            self.fetched[pl.ds(k * tiling.rows, tiling.rows)] = part
        plgpu.commit_smem()

        def product(sums: Any) -> None:
            plgpu.wgmma(sums, self.weights, self.fetched.T)
            _store_transposed(sums[...], self.products)

        pl.run_scoped(product, plgpu.ACC((tiling.height, tiling.columns), jnp.float32))

    def product(self, gate: int) -> jax.Array:
        """Give a gate's tile of the product."""
        tiling = self.tiling
        first = gate * tiling.rows if tiling.times > 1 else 0
        place = (pl.ds(first, tiling.rows), pl.ds(gate * tiling.units, tiling.units))
        return plgpu.layout_cast(self.products.at[place][...], self.layout)


@plgpu.inline_mgpu()
def _meet(context: Any) -> None:
    """Let the threads of a block see what each has stored."""
    mosaic.warpgroup_barrier()


@plgpu.inline_mgpu(arg_types=(plgpu.Layout.WGMMA, plgpu.RefType()))
def _store_transposed(context: Any, sums: Any, ref: Any) -> None:
    """Store sums (M, N) as (N, M), so that what a tile is made of lies side by side."""
    mosaic.warpgroup_barrier()
    sums.foreach(lambda value, place: memref.store(value, ref, [place[1], place[0]]))
    mosaic.warpgroup_barrier()


def awaited(refs: list[Any], shape: tuple[int, int], dtype: Any, layout: Any) -> list[jax.Array]:
    """Load arrays from global memory, again and again until no element of any is absent: has all its bits set."""
    kind = plgpu.ShapeDtypeStruct(shape, dtype, layout=layout)

    @plgpu.inline_mgpu(arg_types=(plgpu.RefType(),) * len(refs), return_type=(kind,) * len(refs))
    def load(context: Any, *refs: Any) -> Any:
        asked: list[tuple[Any, Any]] = []

        def ask(kind: Any, pointer: Any) -> Any:
            asked.append((kind, pointer))
            return llvm.mlir_undef(kind)

        def walk(one: Any) -> Any:
            tiles = (mosaic.utils.memref_reshape(ref, (1, 1, *shape)) for ref in refs)
            how = {"swizzle": 16, "layout": layout.to_mgpu(), "optimized": False, "_load_fun": one}
            return tuple(mosaic.FragmentedArray.load_tiled(tile, **how) for tile in tiles)

        walk(ask)
        groups = (asked[first : first + AT_ONCE] for first in range(0, len(asked), AT_ONCE))
        answers = iter([vector for group in groups for vector in _poll(group, jnp.dtype(dtype).itemsize)])
        return walk(lambda kind, pointer: next(answers))

    return load(*refs)


def _poll(asked: list[tuple[Any, Any]], itemsize: int) -> list[Any]:
    """Load vectors, again and again until none of their elements has all bits set."""
    word, long = ir.IntegerType.get_signless(32), ir.IntegerType.get_signless(64)
    counts = [mosaic.utils.bitwidth(kind) // 32 for kind, _ in asked]
    words = sum(counts)
    names = iter(range(words))
    into = [",".join(f"${next(names)}" for _ in range(count)) for count in counts]
    loads = [
        f"ld.relaxed.gpu.global.v{count}.b32 {{{names}}}, [${words + k}];"
        for k, (count, names) in enumerate(zip(counts, into, strict=True))
    ]
    if itemsize == 4:
        check, end = "max.u32 seen, seen, ${};", "setp.eq.u32 again, seen, 0xffffffff;"
    else:  # a half of x & w has its first bit set where that half of w has all set
        check = "sub.u32 x, 0xfffefffe, ${0}; and.b32 x, x, ${0}; or.b32 seen, seen, x;"
        end = "and.b32 seen, seen, 0x80008000; setp.ne.u32 again, seen, 0;"
    body = [*loads, "mov.b32 seen, 0;", *(check.format(k) for k in range(words)), end]
    code = "{ .reg .pred again; .reg .b32 seen, x; wait${:uid}: " + " ".join(body) + " @again bra wait${:uid}; }"
    constraints = ",".join(["=r"] * words + ["l"] * len(asked) + ["~{memory}"])
    pointers = [llvm.ptrtoint(long, pointer) for _, pointer in asked]
    got: Any = llvm.inline_asm(
        llvm.StructType.get_literal([word] * words), pointers, code, constraints, has_side_effects=True
    )
    values = iter([llvm.extractvalue(word, got, [k]) for k in range(words)])

    def vector(kind: Any, count: int) -> Any:
        made = llvm.mlir_undef(ir.VectorType.get((count,), word))
        for k in range(count):
            made = llvm.insertelement(made, next(values), position=mosaic.utils.c(k, word))
        return mosaic.utils.bitcast(made, kind)

    return [vector(kind, count) for (kind, _), count in zip(asked, counts, strict=True)]
