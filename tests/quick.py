"""Quick compilation, for tests of numbers: most of their time is spent in the compiler.

`jax_disable_most_optimizations` keeps XLA's fusion emitters, the larger part of that time on a CPU. XLA reads its flags
once a process, and `jax.jit` takes options for one function; `everywhere` adds them to every compilation while that
setting is on. `jit` compiles quickly in a test with the marker `optimised` too.
"""

import functools

import jax
from jax._src import compiler

QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,
}
if jax.__version_info__ < (0, 11):  # later ones have no such option
    QUICK["xla_cpu_use_fusion_emitters"] = False
jit = functools.partial(jax.jit, compiler_options=QUICK)


def everywhere():
    """Compile quickly where `jax_disable_most_optimizations` is set: in eager operations and any `jax.jit`."""
    get_options = compiler.get_compile_options

    @functools.wraps(get_options)
    def get_quick_options(*args, env_options_overrides=None, **kw):
        quick = QUICK if jax.config.read("jax_disable_most_optimizations") else {}
        return get_options(*args, env_options_overrides=quick | (env_options_overrides or {}), **kw)

    compiler.get_compile_options = get_quick_options
