"""The precision of matmuls in JAX's own terms, as what a kernel can do."""

from __future__ import annotations

import jax
from jax.lax import DotAlgorithmPreset, Precision

PASSES = {
    Precision.HIGHEST: "float32",
    DotAlgorithmPreset.F32_F32_F32: "float32",
    Precision.HIGH: "bfloat16_x3",
    DotAlgorithmPreset.BF16_BF16_F32_X3: "bfloat16_x3",
    Precision.DEFAULT: "bfloat16",
    DotAlgorithmPreset.BF16_BF16_F32: "bfloat16",
}
"""What the kernels name the products of each precision: of float32, of three pairs of bfloat16, or of one."""

MatmulPrecision = Precision | DotAlgorithmPreset | None
"""The field of a driver; None follows `jax.default_matmul_precision`, and is float32 where that is not set."""


def matmul_precision(given: object, name: str) -> MatmulPrecision:
    """Return a precision given as JAX takes it, an enum or its name; raise ValueError for one that no kernel has."""
    if given is None:
        return None
    found: object = given
    if isinstance(given, str):
        found = DotAlgorithmPreset.__members__.get(given)
        if found is None:
            try:
                found = Precision(given)
            except ValueError:
                found = None
    if isinstance(found, Precision | DotAlgorithmPreset) and found in PASSES:
        return found
    known = '"float32", "bfloat16_3x" or "bfloat16", jax.lax.Precision, or the jax.lax.DotAlgorithmPreset of one'
    raise ValueError(f"{name} is {known}, or None; got {given!r}")


def passes(precision: MatmulPrecision | str) -> str:
    """Return what the kernels name a precision. A default that no kernel has is float32, which is more precise."""
    found = matmul_precision(precision, "precision")
    if found is not None:
        return PASSES[found]
    try:
        found = matmul_precision(jax.config.jax_default_matmul_precision, "default")  # type: ignore[attr-defined]
    except ValueError:
        found = None
    return "float32" if found is None else PASSES[found]
