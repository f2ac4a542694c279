"""Instructions of the kernel for GPUs that Pallas has no operation for, in inline PTX.

All threads of a warp must call `reload_absent` and `multiply_add` together: no branch around them may depend on the
thread.
"""

from __future__ import annotations

from typing import Any

from jax.experimental.mosaic import gpu as mosaic
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import arith, llvm

Words = list[Any]  # of 32 bits, in the registers of a thread
Place = tuple[int, int]  # the index of a pointer, and an offset in bytes


def word() -> Any:
    """Return the type of a word."""
    return ir.IntegerType.get_signless(32)


def address(ref: Any) -> Any:
    """Return the address of a reference to global memory."""
    return llvm.ptrtoint(ir.IntegerType.get_signless(64), mosaic.utils.memref_ptr(ref))


def offset(pointer: Any, elements: Any, size: int) -> Any:
    """Return the address `elements` elements of a size after another."""
    long = ir.IntegerType.get_signless(64)
    return arith.addi(pointer, arith.muli(arith.extui(long, elements), mosaic.c(size, long)))


def load(pointers: list[Any], places: list[Place]) -> Words:
    """Load 16 bytes from each place, without waiting for them to be published."""
    count = 4 * len(places)
    loads = " ".join(_loads(places, count))
    return _assembly([word()] * count, pointers, loads, ["=&r"] * count + ["l"] * len(pointers))


def reload_absent(pointers: list[Any], places: list[Place], words: Words, size: int) -> Words:
    """Load again until no element of the warp, of a size in bytes, is absent, that is, has all bits set."""
    count = len(words)
    if size == 4:
        most, end = "max.u32", "setp.eq.u32 again, s0, 0xffffffff;"
    else:  # a half of x & s0 has its first bit set if that half of s0 has all bits set
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
    constraints = ["=&r"] * count + [str(k) for k in range(count)] + ["l"] * len(pointers)
    return _assembly([word()] * count, [*words, *pointers], " ".join(code), constraints)


def multiply_add(sums: list[Any], a: Words, b: Words, kind: str) -> list[Any]:
    """Add the product of a (16, k) and b (k, 8), in the layout of `mma.sync`, to sums (16, 8)."""
    real = ir.F32Type.get()
    step = 8 if kind == "tf32" else 16
    code = f"mma.sync.aligned.m16n8k{step}.row.col.f32.{kind}.{kind}.f32 {{$0,$1,$2,$3}}, {{$4,$5,$6,$7}}, {{$8,$9}}, "
    constraints = ["=f"] * 4 + ["r"] * 6 + [str(k) for k in range(4)]
    return _assembly([real] * 4, [*a, *b, *sums], code + "{$0,$1,$2,$3};", constraints, has_side_effects=False)


def publish(pointer: Any, vector: Any) -> None:
    """Store a vector of 2 to 8 bytes for other thread blocks.

    They read words of 4 bytes. They may see either half of a word first, and wait for both. PTX does not guarantee that
    a half is never read in part where sizes are mixed, but GPUs do.
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
    """Prefetch an address into L2."""
    _assembly([], [pointer], "prefetch.global.L2 [$0];", ["l"])


def _loads(places: list[Place], first: int) -> list[str]:
    """Return loads of 16 bytes from each place into operands 0, 1, ...; pointers are operands from `first` on."""
    into = lambda k: ",".join(f"${4 * k + part}" for part in range(4))
    return [
        f"ld.relaxed.gpu.global.v4.b32 {{{into(k)}}}, [${first + which}+{offset}];"
        for k, (which, offset) in enumerate(places)
    ]


def _assembly(
    out: list[Any], operands: list[Any], code: str, constraints: list[str], has_side_effects: bool = True
) -> list[Any]:
    """Emit inline PTX; it `has_side_effects` if it reads or writes memory."""
    joined = ",".join([*constraints, "~{memory}"] if has_side_effects else constraints)
    kind = llvm.StructType.get_literal(out) if out else ir.Type.parse("!llvm.void")
    got: Any = llvm.inline_asm(kind, operands, code, joined, has_side_effects=has_side_effects)
    return [llvm.extractvalue(one, got, [k]) for k, one in enumerate(out)]
