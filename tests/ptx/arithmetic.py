"""The arithmetic of the interpreter: the number types of PTX, and its operations on one lane."""

import operator
from typing import Any

import jax.numpy as jnp
import numpy as np

RAW = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
KINDS = {f"{k}{8 * size}": np.dtype(f"{f}{size}") for k, f in zip("bus", "uui", strict=True) for size in RAW}
KINDS |= {f"f{8 * size}": np.dtype(f"f{size}") for size in (2, 4, 8)} | {"bf16": np.dtype(jnp.bfloat16)}
HALVES = {"f16x2": KINDS["f16"], "bf16x2": KINDS["bf16"]}


def narrow(value: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Convert; NaN becomes that of a GPU."""
    narrow = value.astype(kind)
    if narrow.dtype.itemsize == 2 and kind.kind not in "iu":
        return np.where(value != value, np.uint16(0x7FFF), narrow.view(np.uint16))
    return narrow


def _shifted(shift: Any) -> Any:
    def by(a: np.ndarray, bits: np.ndarray) -> np.ndarray:
        size = 8 * a.dtype.itemsize
        return np.where(bits < size, shift(a, np.minimum(bits, size - 1).astype(a.dtype)), 0)

    return by


SHIFTS = {"shl": _shifted(operator.lshift), "shr": _shifted(operator.rshift)}
COMMON = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "mad": lambda a, b, c: a * b + c}
INTEGERS: dict[str, Any] = (
    COMMON
    | SHIFTS
    | {
        "and": operator.and_,
        "or": operator.or_,
        "xor": operator.xor,
        "not": operator.invert,
        "neg": lambda a: 0 - a.astype(np.int64),
        "min": np.minimum,
        "max": np.maximum,
        "div": operator.floordiv,
        "rem": operator.mod,
        "bfe": lambda a, first, count: (
            (a >> first.astype(a.dtype)) & ((1 << count.astype(a.dtype)) - 1).astype(a.dtype)
        ),
    }
)
NAN = {"max": np.maximum, "min": np.minimum}  # with .NaN
FLOATS: dict[str, Any] = COMMON | {
    "fma": lambda a, b, c: a * b + c,
    "neg": operator.neg,
    "abs": np.abs,
    "min": np.fmin,
    "max": np.fmax,
    "div": operator.truediv,
    "rcp": lambda a: 1 / a,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "ex2": np.exp2,
    "lg2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "copysign": lambda sign, a: np.copysign(a, sign),
}
