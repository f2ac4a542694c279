"""`jax.jit` that compiles quickly, for tests of numbers: most of their time is spent in the compiler.

Fusion emitters take most of it on CPU, and `jax_disable_most_optimizations` does not disable them.
"""

import functools

import jax

QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,
}
if jax.__version_info__ < (0, 11):  # later ones have no such option
    QUICK["xla_cpu_use_fusion_emitters"] = False
jit = functools.partial(jax.jit, compiler_options=QUICK)
