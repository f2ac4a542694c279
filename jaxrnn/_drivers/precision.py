"""The precision of matmuls in JAX's own terms, as what a kernel can do."""

from __future__ import annotations

import jax
from jax.lax import DotAlgorithmPreset, Precision

PASSES = {Precision.HIGHEST: "float32", Precision.HIGH: "bfloat16_x3", Precision.DEFAULT: "bfloat16"}
"""What the kernels name the products of each precision: of float32, of three pairs of bfloat16, or of one."""

ALGORITHMS = {
    DotAlgorithmPreset.F32_F32_F32: Precision.HIGHEST,
    DotAlgorithmPreset.BF16_BF16_F32_X3: Precision.HIGH,
    DotAlgorithmPreset.BF16_BF16_F32: Precision.DEFAULT,
}
"""The algorithms of dots that the kernels have."""

DEFAULTS = {"bfloat16": "bfloat16", "BF16_BF16_F32": "bfloat16", "BF16_BF16_F32_X3": "bfloat16_x3"}
"""What is followed of `jax.default_matmul_precision`: the names of bfloat16. Under others, as "default" and "high",
JAX's own dots on a CPU are in float32."""

MatmulPrecision = Precision | None
"""The field of a driver; None follows `jax.default_matmul_precision`, and is float32 where that names no bfloat16."""


def matmul_precision(given: object, name: str) -> MatmulPrecision:
    """Return a precision given as JAX takes it, an enum or its name; raise ValueError for one that no kernel has."""
    if given is None:
        return None
    found = DotAlgorithmPreset.__members__.get(given) if isinstance(given, str) else given
    if isinstance(found, DotAlgorithmPreset) and found in ALGORITHMS:
        return ALGORITHMS[found]
    if isinstance(given, str | Precision):
        try:
            return Precision(given)
        except ValueError:
            pass
    known = '"float32", "bfloat16_3x" or "bfloat16", jax.lax.Precision, or the jax.lax.DotAlgorithmPreset of one'
    raise ValueError(f"{name} is {known}, or None; got {given!r}")


def passes(precision: MatmulPrecision | str) -> str:
    """Return what the kernels name a precision."""
    found = matmul_precision(precision, "precision")
    if found is not None:
        return PASSES[found]
    return DEFAULTS.get(str(jax.config.jax_default_matmul_precision), "float32")  # type: ignore[attr-defined]
