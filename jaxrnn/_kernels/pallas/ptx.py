"""Instructions for which Pallas has no operation: what a thread of the GPU's kernel does, in inline PTX.

A warp must come to `settle` and `multiply_add` as one: no branch around them may depend on the thread.
"""

from __future__ import annotations

from typing import Any

from jax.experimental.mosaic import gpu as mosaic
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import arith, llvm

Words = list[Any]  # of 32 bits, as they lie in a thread's registers
Place = tuple[int, int]  # which of some pointers, and the bytes behind it


def word() -> Any:
    """The type of a word."""
    return ir.IntegerType.get_signless(32)


def address(ref: Any) -> Any:
    """Give the address at which a reference to global memory begins."""
    return llvm.ptrtoint(ir.IntegerType.get_signless(64), mosaic.utils.memref_ptr(ref))


def behind(pointer: Any, elements: Any, size: int) -> Any:
    """Give the address so many elements of a size behind another."""
    long = ir.IntegerType.get_signless(64)
    return arith.addi(pointer, arith.muli(arith.extui(long, elements), mosaic.c(size, long)))


def ask(pointers: list[Any], places: list[Place]) -> Words:
    """Load 16 bytes from each place, as they are now."""
    count = 4 * len(places)
    loads = " ".join(_loads(places, count))
    return _assembly([word()] * count, pointers, loads, ["=&r"] * count + ["l"] * len(pointers))


def settle(pointers: list[Any], places: list[Place], words: Words, size: int) -> Words:
    """Load again until no element of any thread of the warp, of a size in bytes, is absent: has all its bits set."""
    count = len(words)
    if size == 4:
        most, end = "max.u32", "setp.eq.u32 again, s0, 0xffffffff;"
    else:  # a half of x & s0 has its first bit set where that half of s0 has all set
        most = "max.u16x2"
        end = "sub.u32 x, 0xfffefffe, s0; and.b32 x, x, s0; and.b32 x, x, 0x80008000; setp.ne.u32 again, x, 0;"
    code = [
        "{ .reg .pred again; .reg .b32 x, s0, s1, s2, s3; wait${:uid}:",
        *(f"mov.b32 s{k}, ${k};" for k in range(4)),
        *(f"{most} s{k % 4}, s{k % 4}, ${k};" for k in range(4, count)),
        *(f"{most} s{k}, s{k}, s{more};" for k, more in ((0, 1), (2, 3), (0, 2))),
        f"{end} vote.sync.any.pred again, again, 0xffffffff; @!again bra.uni done${{:uid}};",
        *_loads(places, 2 * count),
        "bra.uni wait${:uid}; done${:uid}: }",
    ]
    how = ["=&r"] * count + [str(k) for k in range(count)] + ["l"] * len(pointers)
    return _assembly([word()] * count, [*words, *pointers], " ".join(code), how)


def multiply_add(sums: list[Any], a: Words, b: Words, kind: str) -> list[Any]:
    """Add the product of a (16, k) and b (k, 8), as `mma.sync` has them lie in a warp, to sums (16, 8)."""
    real = ir.F32Type.get()
    step = 8 if kind == "tf32" else 16
    code = f"mma.sync.aligned.m16n8k{step}.row.col.f32.{kind}.{kind}.f32 {{$0,$1,$2,$3}}, {{$4,$5,$6,$7}}, {{$8,$9}}, "
    how = ["=f"] * 4 + ["r"] * 6 + [str(k) for k in range(4)]
    return _assembly([real] * 4, [*a, *b, *sums], code + "{$0,$1,$2,$3};", how, lasting=False)


def publish(pointer: Any, vector: Any) -> None:
    """Store a vector of 2 to 8 bytes for other blocks of threads.

    They read words of 4. Of one that is stored in halves they may see either half first, and wait for both: that a half
    is never seen in part is more than PTX promises where sizes are mixed, but what GPUs do.
    """
    bits = mosaic.bitwidth(vector.type)
    if bits == 64:
        words = mosaic.utils.bitcast(vector, ir.VectorType.get((2,), word()))
        parts = [llvm.extractelement(words, mosaic.c(k, word())) for k in range(2)]
        _assembly([], [pointer, *parts], "st.relaxed.gpu.global.v2.b32 [$0], {$1, $2};", ["l", "r", "r"])
    else:
        one = mosaic.utils.bitcast(vector, ir.IntegerType.get_signless(bits))
        _assembly([], [pointer, one], f"st.relaxed.gpu.global.b{bits} [$0], $1;", ["l", "h" if bits == 16 else "r"])


def prefetch(pointer: Any) -> None:
    """Bring what an address holds into L2."""
    _assembly([], [pointer], "prefetch.global.L2 [$0];", ["l"])


def _loads(places: list[Place], first: int) -> list[str]:
    """Load 16 bytes from each place into operands 0, 1, ...; the pointers are those from `first` on."""
    into = lambda k: ",".join(f"${4 * k + part}" for part in range(4))
    return [
        f"ld.relaxed.gpu.global.v4.b32 {{{into(k)}}}, [${first + which}+{offset}];"
        for k, (which, offset) in enumerate(places)
    ]


def _assembly(out: list[Any], operands: list[Any], code: str, how: list[str], lasting: bool = True) -> list[Any]:
    """Inline PTX; `lasting` for what reads or writes memory."""
    constraints = ",".join([*how, "~{memory}"] if lasting else how)
    kind = llvm.StructType.get_literal(out) if out else ir.Type.parse("!llvm.void")
    got: Any = llvm.inline_asm(kind, operands, code, constraints, has_side_effects=lasting)
    return [llvm.extractvalue(one, got, [k]) for k, one in enumerate(out)]
