"""The affine recurrence in C++ as a JAX function, with its gradient and its rules for `vmap` and a sharded batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from ..mesh import vary, varying


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def affine(a: jax.Array, b: jax.Array, state: jax.Array, reverse: bool) -> jax.Array:
    """Give s_t = a_t s_{t-1} + b_t, elementwise, for every t.

    Where a_t is zero, s_t is b_t, even if s_{t-1} is not finite. The gradient is the same recurrence the other way, so
    that it has one of its own. Reverse mode only.

    Args:
        a: (T, ...), float32.
        b: as a.
        state: (...), before the first step.
        reverse: whether from the last step to the first.

    Returns:
        (T, ...).
    """
    return _ruled(reverse)(a, b, state)


def _forward(a: jax.Array, b: jax.Array, state: jax.Array, reverse: bool) -> tuple[jax.Array, Any]:
    states = affine(a, b, state, reverse)
    return states, (a, state, states)


def _backward(reverse: bool, residuals: Any, dstates: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    a, state, states = residuals
    first = -1 if reverse else 0
    before = _shifted(states, state, reverse)
    db = affine(_shifted(a, jnp.zeros_like(state), not reverse), dstates, jnp.zeros_like(state), not reverse)
    dstate = a[first] * db[first] if len(a) else jnp.zeros_like(state)
    return db * before, db, dstate


affine.defvjp(_forward, _backward)


def _shifted(rows: jax.Array, first: jax.Array, reverse: bool) -> jax.Array:
    """Put `first` before the rows (T, ...) as they are crossed, and leave the last one out."""
    parts = [rows[1:], first[None]] if reverse else [first[None], rows[:-1]]
    return jnp.concatenate(parts)[: len(rows)]


def _direct(reverse: bool, a: jax.Array, b: jax.Array, state: jax.Array) -> jax.Array:
    out = jax.ffi.ffi_call("jaxrnn_affine", jax.ShapeDtypeStruct(a.shape, jnp.float32))
    return out(a, b, state, reverse=reverse)


@functools.cache
def _ruled(reverse: bool) -> Callable[..., jax.Array]:
    call = custom_vmap(functools.partial(_on_devices, reverse))

    @call.def_vmap
    def rule(size: int, mapped: Any, a: jax.Array, b: jax.Array, state: jax.Array) -> Any:
        def column(array: jax.Array, is_mapped: bool, axis: int) -> jax.Array:
            if is_mapped:
                return jnp.moveaxis(array, 0, axis)
            return jnp.repeat(jnp.expand_dims(array, axis), size, axis)

        wide = (column(array, m, axis) for array, m, axis in zip((a, b, state), mapped, (1, 1, 0), strict=True))
        return jnp.moveaxis(_ruled(reverse)(*wide), 1, 0), True

    return call


def _on_devices(reverse: bool, a: jax.Array, b: jax.Array, state: jax.Array) -> jax.Array:
    """Keep every axis but time sharded as it is."""
    axes = varying((a, b, state))
    if jax.device_count() == 1 or axes:
        return vary(_direct(reverse, a, b, state), axes)
    call = custom_partitioning(functools.partial(_direct, reverse))

    def partition(mesh: Any, arguments: Any, result: Any) -> Any:
        spec = [*arguments[0].sharding.spec, *[None] * a.ndim][1 : a.ndim]
        rows, row = (NamedSharding(mesh, PartitionSpec(*s)) for s in ([None, *spec], spec))
        return mesh, functools.partial(_direct, reverse), rows, (rows, rows, row)

    row = " ".join(f"d{axis}" for axis in range(1, a.ndim))
    call.def_partition(partition, sharding_rule=f"t {row}, t {row}, {row} -> t {row}", need_replication_factors=("t",))
    return call(a, b, state)
