"""A call into the library, and the same computation in JAX for a program that is exported.

`jax.export` refuses calls into a library, which may not exist where the program is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import mlir


def portable(call: Callable[..., Any], in_jax: Callable[..., Any], *operands: Any) -> Any:
    """Return `call(*operands)`, or in an exported program `in_jax(*operands)`, a tree of the same structure."""
    leaves, treedef = jax.tree.flatten(operands)
    flat = lambda *leaves: jax.tree.leaves(in_jax(*jax.tree.unflatten(treedef, leaves)))
    traced, out = jax.make_jaxpr(call, return_shape=True)(*operands)
    return jax.tree.unflatten(jax.tree.structure(out), _portable_p.bind(*leaves, call=traced, in_jax=flat))


def _lower(ctx: Any, *arrays: Any, call: Any, in_jax: Any) -> Any:
    chosen = in_jax if ctx.module_context.lowering_parameters.for_export else jaxpr_as_fun(call)
    return mlir.lower_fun(lambda *leaves: chosen(*leaves), multiple_results=True)(ctx, *arrays)


_portable_p = Primitive("jaxrnn_portable")
_portable_p.multiple_results = True
_portable_p.def_impl(lambda *leaves, call, in_jax: jaxpr_as_fun(call)(*leaves))
_portable_p.def_abstract_eval(lambda *_, call, in_jax: call.out_avals)
mlir.register_lowering(_portable_p, _lower)
