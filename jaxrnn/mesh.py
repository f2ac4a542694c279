"""Meshes: a scan's carry must be laid out as what it becomes, so states and params are lifted to the layout of xs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec


def lift(trees: tuple[Any, Any, Any], xs: Any, batch_axes: int) -> tuple[Any, Any, Any]:
    """Lay out (params, state, initial) as the inputs (T, *batch, D) are.

    Under `shard_map` all three are marked as varying over the axes that any of them or xs varies over, so that the
    gradient of params is summed over devices once, not once a step. With explicit axes a state is sharded as the batch
    of xs is. With automatic axes, and without a mesh, nothing is to be done.
    """
    params, state, initial = trees
    aval = jax.typeof(jax.tree.leaves(xs)[0])
    spec = PartitionSpec(*aval.sharding.spec[1 : 1 + batch_axes])
    if any(part is not None for part in spec):
        lay = lambda s: jax.sharding.reshard(s, PartitionSpec(*spec, *[None] * (s.ndim - len(spec))))
        state, initial = jax.tree.map(lay, (state, initial))
    leaves = jax.tree.leaves((trees, xs))
    axes = frozenset().union(*(jax.typeof(a).manual_axis_type.varying for a in leaves))
    vary = lambda a: _vary(a, axes)
    return jax.tree.map(vary, (params, state, initial)) if axes else (params, state, initial)


def laid_as(array: jax.Array, like: jax.Array) -> jax.Array:
    """Shard the trailing axes of `array` as those of `like` are; nothing is to be done without explicit axes."""
    spec = jax.typeof(like).sharding.spec
    if all(part is None for part in spec):
        return array
    return jax.sharding.reshard(array, PartitionSpec(*spec[like.ndim - array.ndim :]))


def zeros_like(array: Any, dtype: Any = None) -> jax.Array:
    """Zeros laid out as `array` is: sharded, and varying over the same axes."""
    return _vary(jnp.zeros_like(array, dtype), jax.typeof(array).manual_axis_type.varying)


def _vary(array: Any, axes: frozenset[str]) -> Any:
    missing = tuple(axes - jax.typeof(array).manual_axis_type.varying)
    return jax.lax.pcast(array, missing, to="varying") if missing else array


def rows_of(array: jax.Array) -> jax.Array:
    """Make one axis of all but the last, where that costs nothing: on one device.

    XLA:CPU runs a contraction over one axis as a plain GEMM, one over two behind a transposing copy, at half the speed.
    Over several devices the batch may be sharded, and to merge it with time would gather it.
    """
    return array.reshape(-1, array.shape[-1]) if jax.device_count() == 1 else array
