"""Two tools for derivatives that JAX's own rules do not cover.

`reverse_only` names the fix where a function with a `custom_vjp` meets forward mode; `linear_map` is a linear function
whose transpose is given, under any nesting of `jit`, `vmap`, `scan` and derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Tree = TypeVar("Tree")


def reverse_only(tree: Tree, driver: Any) -> Tree:
    """Return `tree` as it is; under forward mode, raise TypeError that names `Scan()`.

    For the arguments of a function with a `custom_vjp`, whose own message does not say what to do instead. Reverse mode
    passes, and so does forward mode over reverse mode (`jax.hessian`), as far as the function itself allows it.
    """
    guard = lambda a: _guard_p.bind(a, driver=str(driver)) if jnp.issubdtype(a.dtype, jnp.inexact) else a
    return jax.tree.map(guard, tree)


def _refuse(*_: Any, driver: str, **__: Any) -> Any:
    raise TypeError(
        f"forward-mode derivatives (jax.jvp, jax.jacfwd, jax.linearize, jax.hessian) need driver=jaxrnn.Scan(): "
        f"{driver} has reverse mode alone. Or take reverse mode twice: jax.jacrev(jax.grad(f)) for jax.hessian(f)."
    )


def _guard_jvp(primals: tuple[Any], tangents: tuple[Any], *, driver: str) -> tuple[Any, Any]:
    """Drop the guard from the primal: outer derivatives see what the function's own rule makes of it."""
    (primal,), (tangent,) = primals, tangents
    return primal, tangent if isinstance(tangent, ad.Zero) else _tangent_p.bind(tangent, driver=driver)


def _identity(x: Any, **_: Any) -> Any:
    return x


_guard_p = Primitive("jaxrnn_reverse_only")
_guard_p.def_impl(_identity)
_guard_p.def_abstract_eval(_identity)
ad.primitive_jvps[_guard_p] = _guard_jvp
batching.defvectorized(_guard_p)
mlir.register_lowering(_guard_p, lambda ctx, x, **_: [x])

_tangent_p = Primitive("jaxrnn_reverse_only_tangent")  # transposed, an identity; computed, an error
_tangent_p.def_impl(_refuse)
_tangent_p.def_abstract_eval(_identity)
ad.deflinear2(_tangent_p, lambda cotangent, *_, **__: [cotangent])
batching.primitive_batchers[_tangent_p] = _refuse
mlir.register_lowering(_tangent_p, _refuse)


Flat = Callable[..., list[jax.Array]]


def linear_map(
    forward: Callable[[Any, Any], Any], transpose: Callable[[Any, Any], Any], residuals: Any, tangents: Any, out: Any
) -> Any:
    """Return forward(residuals, tangents), linear in the tangents, with `transpose` as its transpose.

    Args:
        forward: the function, for forward mode.
        transpose: from (residuals, cotangents) to cotangents of the form of `tangents`, for reverse mode.
        residuals: a tree of arrays.
        tangents: a tree of arrays.
        out: a tree of arrays with the shapes, dtypes and layout of what `forward` returns.
    """
    held, held_form = jax.tree.flatten(residuals)
    given, form = jax.tree.flatten(tangents)
    like, out_form = jax.tree.flatten(out)
    count = len(held)

    def flat_forward(*arrays: jax.Array) -> list[jax.Array]:
        return jax.tree.leaves(
            forward(jax.tree.unflatten(held_form, arrays[:count]), jax.tree.unflatten(form, arrays[count:]))
        )

    def flat_transpose(*arrays: jax.Array) -> list[jax.Array]:
        cotangents = jax.tree.unflatten(out_form, arrays[count:])
        return jax.tree.leaves(transpose(jax.tree.unflatten(held_form, arrays[:count]), cotangents))

    avals = tuple(jax.typeof(a) for a in like)
    made = _linear_p.bind(*held, *given, forward=flat_forward, transpose=flat_transpose, count=count, avals=avals)
    return jax.tree.unflatten(out_form, made)


def _linear_jvp(primals: Any, tangents: Any, *, forward: Flat, **_: Any) -> Any:
    return jax.jvp(forward, tuple(primals), tuple(map(ad.instantiate_zeros, tangents)))


def _linear_transpose(cotangents: Any, *arrays: Any, transpose: Flat, count: int, **_: Any) -> list[Any]:
    made = transpose(*arrays[:count], *map(ad.instantiate_zeros, cotangents))
    wanted = map(ad.is_undefined_primal, arrays[count:])
    return [None] * count + [ct if want else None for ct, want in zip(made, wanted, strict=True)]


def _linear_batched(arrays: Any, axes: Any, *, forward: Flat, transpose: Flat, count: int, avals: Any) -> Any:
    """Map over a new leading axis; tangents that lack it are repeated along it, so that their cotangents are summed."""
    size = next(a.shape[i] for a, i in zip(arrays, axes, strict=True) if i is not None)
    repeated = lambda a: jnp.broadcast_to(a, (size, *a.shape))
    moved = [a if i is None else jnp.moveaxis(a, i, 0) for a, i in zip(arrays, axes, strict=True)]
    held = [None if i is None else 0 for i in axes[:count]]
    given = [repeated(a) if i is None else a for a, i in zip(moved[count:], axes[count:], strict=True)]
    many = jax.vmap(forward, in_axes=(*held, *[0] * len(given)))
    back = jax.vmap(transpose, in_axes=(*held, *[0] * len(avals)))
    arrays = (*moved[:count], *given)
    avals = tuple(jax.make_jaxpr(many)(*arrays).out_avals)
    out = _linear_p.bind(*arrays, forward=many, transpose=back, count=count, avals=avals)
    return out, [0] * len(out)


_linear_p = Primitive("jaxrnn_linear_map")
_linear_p.multiple_results = True
_linear_p.def_impl(lambda *arrays, forward, **_: forward(*arrays))
_linear_p.def_abstract_eval(lambda *_, avals, **__: list(avals))
ad.primitive_jvps[_linear_p] = _linear_jvp
ad.primitive_transposes[_linear_p] = _linear_transpose
batching.primitive_batchers[_linear_p] = _linear_batched
mlir.register_lowering(_linear_p, mlir.lower_fun(lambda *arrays, forward, **_: forward(*arrays), multiple_results=True))
