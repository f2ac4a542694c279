"""A call into the library, and the same computation in JAX for a program that is exported.

`jax.export` refuses calls into a library: whoever loads the program may not have it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import mlir


def portable(call: Callable[..., Any], in_jax: Callable[..., Any], *operands: Any) -> Any:
    """Return `call(*operands)`, or `in_jax(*operands)` in a program that `jax.export` makes: trees of the same form."""
    leaves, form = jax.tree.flatten(operands)
    out = jax.tree.structure(jax.eval_shape(call, *operands))
    flat = lambda function: lambda *leaves: jax.tree.leaves(function(*jax.tree.unflatten(form, leaves)))
    return jax.tree.unflatten(out, _portable_p.bind(*leaves, call=flat(call), in_jax=flat(in_jax)))


def _lower(ctx: Any, *arrays: Any, call: Any, in_jax: Any) -> Any:
    chosen = in_jax if ctx.module_context.lowering_parameters.for_export else call
    return mlir.lower_fun(lambda *leaves: chosen(*leaves), multiple_results=True)(ctx, *arrays)


_portable_p = Primitive("jaxrnn_portable")
_portable_p.multiple_results = True
_portable_p.def_impl(lambda *leaves, call, in_jax: call(*leaves))
_portable_p.def_abstract_eval(lambda *avals, call, in_jax: jax.make_jaxpr(call)(*avals).out_avals)
mlir.register_lowering(_portable_p, _lower)
