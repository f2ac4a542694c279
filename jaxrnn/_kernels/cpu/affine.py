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

from ..._core.affine_cell import Solver
from ..._core.sharding import vary, varying
from .portable import portable


@dataclasses.dataclass(frozen=True)
class Kernel(Solver):
    """The solver in C++: a and b (T, ...) in float32, on a CPU.

    Args:
        portable: whether a scan takes its place in a program that is exported.
    """

    portable: bool

    def __call__(self, a: jax.Array, b: jax.Array, state: jax.Array, reverse: bool) -> jax.Array:
        """Solve."""
        return _ruled(reverse, self.portable)(a, b, state)


def _direct(reverse: bool, a: jax.Array, b: jax.Array, state: jax.Array) -> jax.Array:
    out = jax.ffi.ffi_call("jaxrnn_affine", jax.ShapeDtypeStruct(a.shape, jnp.float32))
    return out(a, b, state, reverse=reverse)


@functools.cache
def _ruled(reverse: bool, in_jax: bool) -> Callable[..., jax.Array]:
    call = custom_vmap(functools.partial(_on_devices, reverse, in_jax))

    @call.def_vmap
    def rule(size: int, mapped: Any, a: jax.Array, b: jax.Array, state: jax.Array) -> Any:
        def column(array: jax.Array, is_mapped: bool, axis: int) -> jax.Array:
            if is_mapped:
                return jnp.moveaxis(array, 0, axis)
            return jnp.repeat(jnp.expand_dims(array, axis), size, axis)

        wide = (column(array, m, axis) for array, m, axis in zip((a, b, state), mapped, (1, 1, 0), strict=True))
        return jnp.moveaxis(_ruled(reverse, in_jax)(*wide), 1, 0), True

    return call


def _on_devices(reverse: bool, in_jax: bool, a: jax.Array, b: jax.Array, state: jax.Array) -> jax.Array:
    """Keep every axis but time sharded as it is."""
    axes = varying((a, b, state))
    if axes:
        return vary(_direct(reverse, a, b, state), axes)
    split = _direct if jax.device_count() == 1 else _partitioned
    call = functools.partial(split, reverse)
    return portable(call, functools.partial(_in_jax, reverse), a, b, state) if in_jax else call(a, b, state)


def _in_jax(reverse: bool, a: jax.Array, b: jax.Array, state: jax.Array) -> jax.Array:
    """Return what the kernel does."""

    def step(state: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        state = jnp.where(row[0] == 0, 0, row[0] * state) + row[1]
        return state, state

    return jax.lax.scan(step, state, (a, b), reverse=reverse)[1]


def _partitioned(reverse: bool, a: jax.Array, b: jax.Array, state: jax.Array) -> jax.Array:
    call = custom_partitioning(functools.partial(_direct, reverse))

    def partition(mesh: Any, arguments: Any, result: Any) -> Any:
        spec = [*arguments[0].sharding.spec, *[None] * a.ndim][1 : a.ndim]
        rows, row = (NamedSharding(mesh, PartitionSpec(*s)) for s in ([None, *spec], spec))
        return mesh, functools.partial(_direct, reverse), rows, (rows, rows, row)

    row = " ".join(f"d{axis}" for axis in range(1, a.ndim))
    call.def_partition(partition, sharding_rule=f"t {row}, t {row}, {row} -> t {row}", need_replication_factors=("t",))
    return call(a, b, state)
