"""Derivatives that `jax.custom_vjp` does not cover.

`reverse_only` raises an error that names the fix where forward mode reaches a function with a `custom_vjp`.
`linear_map` is a linear function with a given transpose, under any nesting of `jit`, `vmap`, `scan` and derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive, unmapped_aval
from jax.interpreters import ad, batching, mlir

Tree = TypeVar("Tree")


def reverse_only(tree: Tree, driver: object) -> Tree:
    """Return `tree` unchanged; under forward mode, raise a TypeError that names `Scan()`.

    Apply it to the arguments of a function with a `custom_vjp`, whose own message names no alternative. Reverse mode
    is not affected, nor is forward mode over reverse mode (`jax.hessian`) where the function supports it.
    """
    guard = lambda a: _guard_p.bind(a, driver=str(driver)) if jnp.issubdtype(a.dtype, jnp.inexact) else a
    guarded: Tree = jax.tree.map(guard, tree)
    return guarded


def _raise(*_: Any, driver: str, **__: Any) -> NoReturn:
    raise TypeError(
        f"forward-mode derivatives (jax.jvp, jax.jacfwd, jax.linearize, jax.hessian) need driver=jaxrnn.Scan(): "
        f"{driver} supports reverse mode only. For jax.hessian(f), use reverse mode twice: jax.jacrev(jax.grad(f))."
    )


def _guard_jvp(primals: tuple[Any], tangents: tuple[Any], *, driver: str) -> tuple[Any, Any]:
    """Drop the guard from the primal, so that outer derivatives differentiate the rule of the function itself."""
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

_tangent_p = Primitive("jaxrnn_reverse_only_tangent")  # its transpose is the identity; evaluating it is an error
_tangent_p.def_impl(_raise)
_tangent_p.def_abstract_eval(_identity)
ad.deflinear2(_tangent_p, lambda cotangent, *_, **__: [cotangent])
batching.primitive_batchers[_tangent_p] = _raise
mlir.register_lowering(_tangent_p, _raise)


Flat = Callable[..., list[jax.Array]]


def linear_map(
    forward: Callable[[Any, Any], Any], transpose: Callable[[Any, Any], Any], residuals: Any, tangents: Any, out: Any
) -> Any:
    """Return forward(residuals, tangents), linear in the tangents, with `transpose` as its transpose.

    Args:
        forward: the function, for forward mode.
        transpose: maps (residuals, cotangents) to cotangents with the structure of `tangents`, for reverse mode.
        residuals: a tree of arrays.
        tangents: a tree of arrays.
        out: a tree of arrays with the shapes, dtypes and layout of what `forward` returns.
    """
    residuals, residuals_form = jax.tree.flatten(residuals)
    tangents, tangents_form = jax.tree.flatten(tangents)
    out, out_form = jax.tree.flatten(out)
    count = len(residuals)

    def flat_forward(*arrays: jax.Array) -> list[jax.Array]:
        return jax.tree.leaves(
            forward(
                jax.tree.unflatten(residuals_form, arrays[:count]), jax.tree.unflatten(tangents_form, arrays[count:])
            )
        )

    def flat_transpose(*arrays: jax.Array) -> list[jax.Array]:
        cotangents = jax.tree.unflatten(out_form, arrays[count:])
        return jax.tree.leaves(transpose(jax.tree.unflatten(residuals_form, arrays[:count]), cotangents))

    avals = tuple(jax.typeof(a) for a in out)
    results = _linear_p.bind(
        *residuals, *tangents, forward=flat_forward, transpose=flat_transpose, count=count, avals=avals
    )
    return jax.tree.unflatten(out_form, results)


def _linear_jvp(primals: Any, tangents: Any, *, forward: Flat, **_: Any) -> Any:
    return jax.jvp(forward, tuple(primals), tuple(map(ad.instantiate_zeros, tangents)))


def _linear_transpose(cotangents: Any, *arrays: Any, transpose: Flat, count: int, **_: Any) -> list[Any]:
    given = transpose(*arrays[:count], *map(ad.instantiate_zeros, cotangents))
    wanted = map(ad.is_undefined_primal, arrays[count:])
    return [None] * count + [ct if want else None for ct, want in zip(given, wanted, strict=True)]


def _linear_batched(arrays: Any, axes: Any, *, forward: Flat, transpose: Flat, count: int, avals: Any) -> Any:
    """Map over a new leading axis. Tangents without it are broadcast along it, so that their cotangents are summed."""
    mapped, axis = next((a, i) for a, i in zip(arrays, axes, strict=True) if i is not None)
    size, part = mapped.shape[axis], jax.typeof(mapped).sharding.spec[axis]
    repeated = lambda a: jnp.broadcast_to(a, (size, *a.shape))
    moved = [a if i is None else jnp.moveaxis(a, i, 0) for a, i in zip(arrays, axes, strict=True)]
    residual_axes = [None if i is None else 0 for i in axes[:count]]
    tangents = [repeated(a) if i is None else a for a, i in zip(moved[count:], axes[count:], strict=True)]
    forward = jax.vmap(forward, in_axes=(*residual_axes, *[0] * len(tangents)))
    transpose = jax.vmap(transpose, in_axes=(*residual_axes, *[0] * len(avals)))
    arrays = (*moved[:count], *tangents)
    avals = tuple(unmapped_aval(size, 0, aval, part) for aval in avals)
    out = _linear_p.bind(*arrays, forward=forward, transpose=transpose, count=count, avals=avals)
    return out, [0] * len(out)


_linear_p = Primitive("jaxrnn_linear_map")
_linear_p.multiple_results = True
_linear_p.def_impl(lambda *arrays, forward, **_: forward(*arrays))
_linear_p.def_abstract_eval(lambda *_, avals, **__: list(avals))
ad.primitive_jvps[_linear_p] = _linear_jvp
ad.primitive_transposes[_linear_p] = _linear_transpose
batching.primitive_batchers[_linear_p] = _linear_batched
mlir.register_lowering(_linear_p, mlir.lower_fun(lambda *arrays, forward, **_: forward(*arrays), multiple_results=True))
