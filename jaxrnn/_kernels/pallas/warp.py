"""The matrix product of the kernel for GPUs in one warp, with an operand loaded directly from global memory.

Each of the four warps of a thread block sums over its spans of K, with all columns of the weights of the thread block:
the M operand of `mma.sync`, in fragments, some in registers and the others in shared memory, where each thread reads
what it has stored itself. The other operand is loaded repeatedly until all of it has been published. The sums of the
four warps are added in shared memory.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import numpy as np
from jax.experimental.mosaic import gpu as mosaic
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import arith, llvm, memref

from . import ptx
from .tiling import WARPS, Section, Tiling, Vector

MMA_TYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "tf32"}

Sums = list[list[Any]]  # a thread's four numbers of each tile of a section, by row, in chains


@dataclasses.dataclass(frozen=True)
class Warp:
    """The part of the product that a warp computes; the methods emit the instructions of each thread.

    Attributes:
        tiling: the division of the work.
        in_registers: the last fragments of the weights; the operand that they are multiplied with arrives last.
        weights: the other fragments, in shared memory.
        products: the sums of all warps, in shared memory.
    """

    tiling: Tiling
    in_registers: Any
    weights: Any
    products: Any

    def fetch(self, refs: Any) -> tuple[ptx.Words, list[Any]]:
        """Load what was published and multiply all but the last loads; return these and the sums so far."""
        pointers, place = self._places(refs)
        work = [(section, group) for section in self.tiling.sections() for group in section.loads]
        load = lambda group: ptx.load(pointers, list(map(place, group)))
        complete = lambda group, words: ptx.reload_absent(
            pointers, list(map(place, group)), words, self.tiling.dtype.itemsize
        )
        section, group = work[0]
        words, sums = complete(group, load(group)), self._zeros(section)
        for (section, group), (later, after) in itertools.pairwise(work):
            ahead = load(after)
            self._add(section, group, words, sums)
            if later is not section:
                self._store(section, sums)
                sums = self._zeros(later)
            words = complete(after, ahead)
        return words, [number for four in sums for number in four]

    def multiply(self, words: ptx.Words, sums: list[Any]) -> None:
        """Multiply the last loads."""
        section = self.tiling.sections()[-1]
        fours = [sums[i : i + 4] for i in range(0, len(sums), 4)]
        self._add(section, section.loads[-1], words, fours)
        self._store(section, fours)

    @property
    def _tiles(self) -> int:
        return self.tiling.height // 16

    def _zeros(self, section: Section) -> Sums:
        zero = mosaic.c(0.0, ir.F32Type.get())
        return [[zero] * 4 for _ in range(self.tiling.chains(section))]

    def _add(self, section: Section, group: list[Vector], words: ptx.Words, sums: Sums) -> None:
        """Add products with the weights."""
        kind, tiles = MMA_TYPES[self.tiling.dtype.name], self._tiles * len(section.rows)
        for k, vector in enumerate(group):
            b = self._zero_outside(vector, words[4 * k : 4 * k + 4])
            for half, tile in itertools.product(range(2), range(self._tiles)):
                turn = 2 * (vector.time * self.tiling.turns + vector.turn) + half
                chain = turn % (len(sums) // tiles) * tiles + (vector.row - section.rows[0]) * self._tiles + tile
                a = self._fragment(self.tiling.fragment(vector, tile, half))
                sums[chain] = ptx.multiply_add(sums[chain], a, b[2 * half : 2 * half + 2], kind)

    def _store(self, section: Section, sums: Sums) -> None:
        """Store the sums of a section for the other warps."""
        at = lambda number, more: arith.index_cast(ir.IndexType.get(), arith.addi(number, mosaic.c(more, ptx.word())))
        across, first = _divmod(self._lane, 4)
        first = arith.addi(_times(first, 2), _times(self._warp, self.tiling.rows))
        tiles = list(itertools.product(section.rows, range(self._tiles)))
        for k, (row, tile) in enumerate(tiles):
            for i, parts in enumerate(zip(*sums[k :: len(tiles)], strict=True)):
                place = [at(first, 8 * row + i % 2), at(across, 16 * tile + 8 * (i // 2))]
                memref.store(functools.reduce(arith.addf, parts), self.products, place)

    @property
    def _thread(self) -> Any:
        return mosaic.utils.thread_idx()

    @property
    def _warp(self) -> Any:
        return _divmod(self._thread, 32)[0]

    @property
    def _lane(self) -> Any:
        return _divmod(self._thread, 32)[1]

    def _places(self, refs: Any) -> Any:
        """Return pointers, and a function for the place of a vector.

        A warp without a span in the last turn loads that of another and ignores it (`_zero_outside`).
        """
        tiling, size = self.tiling, self.tiling.dtype.itemsize
        [stride, _], _ = ir.MemRefType(refs[0].type).get_strides_and_offset()
        row, part = _divmod(self._lane, 4)
        lane = arith.addi(_times(row, stride), _times(part, 16 // size))
        last = arith.addi(self._warp, mosaic.c(WARPS * (tiling.turns - 1), ptx.word()))
        last = arith.minui(last, mosaic.c(tiling.spans - 1, ptx.word()))
        firsts = [arith.addi(lane, _times(span, tiling.span)) for span in (self._warp, last)]
        pointers = [ptx.offset(ptx.address(ref), first, size) for ref in refs for first in firsts]

        def place(vector: Vector) -> ptx.Place:
            is_last = vector.turn == tiling.turns - 1
            turn = 0 if is_last else vector.turn
            return 2 * vector.time + is_last, (8 * vector.row * stride + turn * WARPS * tiling.span) * size

        return pointers, place

    def _zero_outside(self, vector: Vector, words: ptx.Words) -> ptx.Words:
        """Return zeros if a turn has no span for this warp: its weights are zero there, but 0 * inf is not."""
        spans = self.tiling.spans - WARPS * vector.turn
        if spans >= WARPS:
            return words
        inside = arith.cmpi(arith.CmpIPredicate.ult, self._warp, mosaic.c(spans, ptx.word()))
        return [arith.select(inside, w, mosaic.c(0, ptx.word())) for w in words]

    def _fragment(self, which: int) -> ptx.Words:
        """Return a fragment of the weights."""
        streamed = self.tiling.fragments - self.tiling.in_registers
        if which >= streamed:
            vector = self.in_registers[which - streamed]
        else:
            first = arith.addi(_times(self._thread, 4), mosaic.c(512 * which, ptx.word()))
            pointer = mosaic.utils.getelementptr(mosaic.utils.memref_ptr(self.weights), [first], ptx.word())
            vector = llvm.load(ir.VectorType.get((4,), ptx.word()), pointer, alignment=16)
        return unpacked([vector])


def _divmod(number: Any, size: int) -> tuple[Any, Any]:
    by = mosaic.c(size, ptx.word())
    return arith.divui(number, by), arith.remui(number, by)


def _times(number: Any, size: int) -> Any:
    return arith.muli(number, mosaic.c(size, ptx.word()))


def unpacked(vectors: Any) -> list[Any]:
    """Return the elements of vectors."""
    count = lambda vector: ir.VectorType(vector.type).shape[0]
    return [llvm.extractelement(vector, mosaic.c(k, ptx.word())) for vector in vectors for k in range(count(vector))]


def packed(numbers: list[Any]) -> Any:
    """Return vectors of four elements, as the registers of an array."""
    vectors = []
    for first in range(0, len(numbers), 4):
        part = numbers[first : first + 4]
        vector = llvm.mlir_undef(ir.VectorType.get((4,), part[0].type))
        for k, number in enumerate(part):
            vector = llvm.insertelement(vector, number, position=mosaic.c(k, ptx.word()))
        vectors.append(vector)
    return np.array(vectors, dtype=object)
