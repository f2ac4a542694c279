"""The affine recurrence in C++ as a JAX function, with rules for `vmap` and for a sharded batch."""

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
class AffineKernel(Solver):
    """The solver in C++: a and b (T, ...) in the dtype of the state, float32, bfloat16 or float16, on a CPU.

    Args:
        portable: whether a scan replaces the call in a program that is exported.
    """

    portable: bool

    def __call__(self, a: jax.Array, b: jax.Array, state: jax.Array, reverse: bool) -> jax.Array:
        """Return s_t for every t, (T, ...)."""
        return _with_vmap_rule(reverse, self.portable)(a, b, state)


def _ffi_call(reverse: bool, a: jax.Array, b: jax.Array, state: jax.Array) -> jax.Array:
    call = jax.ffi.ffi_call("jaxrnn_affine", jax.ShapeDtypeStruct(a.shape, a.dtype))
    out: jax.Array = call(a, b, state, reverse=reverse)
    return out


@functools.cache
def _with_vmap_rule(reverse: bool, in_jax: bool) -> Callable[..., jax.Array]:
    call = custom_vmap(functools.partial(_on_devices, reverse, in_jax))

    @call.def_vmap
    def rule(size: int, mapped: Any, a: jax.Array, b: jax.Array, state: jax.Array) -> Any:
        def column(array: jax.Array, is_mapped: bool, axis: int) -> jax.Array:
            if is_mapped:
                return jnp.moveaxis(array, 0, axis)
            return jnp.repeat(jnp.expand_dims(array, axis), size, axis)

        wide = (column(array, m, axis) for array, m, axis in zip((a, b, state), mapped, (1, 1, 0), strict=True))
        return jnp.moveaxis(_with_vmap_rule(reverse, in_jax)(*wide), 1, 0), True

    return call


def _on_devices(reverse: bool, in_jax: bool, a: jax.Array, b: jax.Array, state: jax.Array) -> jax.Array:
    """Call the library on each device; every axis but time stays sharded."""
    axes = varying((a, b, state))
    if axes:
        return vary(_ffi_call(reverse, a, b, state), axes)
    split = _ffi_call if jax.device_count() == 1 else _partitioned
    call = functools.partial(split, reverse)
    return portable(call, functools.partial(_in_jax, reverse), a, b, state) if in_jax else call(a, b, state)


def _in_jax(reverse: bool, a: jax.Array, b: jax.Array, state: jax.Array) -> jax.Array:
    """Return the same as the kernel, in JAX."""

    def step(state: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        state = jnp.where(row[0] == 0, 0, row[0] * state) + row[1]
        return state, state

    _, states = jax.lax.scan(step, state, (a, b), reverse=reverse)
    return states


def _partitioned(reverse: bool, a: jax.Array, b: jax.Array, state: jax.Array) -> jax.Array:
    call = custom_partitioning(functools.partial(_ffi_call, reverse))

    def partition(mesh: Any, arguments: Any, result: Any) -> Any:
        spec = [*arguments[0].sharding.spec, *[None] * a.ndim][1 : a.ndim]
        rows, row = (NamedSharding(mesh, PartitionSpec(*s)) for s in ([None, *spec], spec))
        return mesh, functools.partial(_ffi_call, reverse), rows, (rows, rows, row)

    row = " ".join(f"d{axis}" for axis in range(1, a.ndim))
    call.def_partition(partition, sharding_rule=f"t {row}, t {row}, {row} -> t {row}", need_replication_factors=("t",))
    states: jax.Array = call(a, b, state)
    return states
