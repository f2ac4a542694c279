"""A `jit` for what does not depend on how hard the compiler tries: most of the time of these tests is the compiler's.

The emitters of fusions take most of it on CPU, and `jax_disable_most_optimizations` leaves them on.
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
