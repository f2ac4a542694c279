"""The affine recurrence in C++ as a JAX function, with its rules for `vmap` and a sharded batch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from ..affine import Solver
from ..mesh import vary, varying


@dataclasses.dataclass(frozen=True)
class Kernel(Solver):
    """The solver in C++: a and b (T, ...) in float32, on a CPU."""

    def __call__(self, a: jax.Array, b: jax.Array, state: jax.Array, reverse: bool) -> jax.Array:
        """Solve."""
        return _ruled(reverse)(a, b, state)


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
