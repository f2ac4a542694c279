"""Meshes: a scan's carry must be laid out as what it becomes, so states and params are lifted to the layout of xs."""

from __future__ import annotations

import math
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
    return vary((params, state, initial), varying((trees, xs)))


def on_each_device(cross: Any, params: Any, state: Any, xs: Any, masks: Any) -> Any:
    """Call `cross` on each device with the rows that it holds, where the batch is sharded over explicit axes.

    For what the compiler cannot look into. The result is a state and outputs (T, *batch, ...).
    """
    batch = PartitionSpec(*jax.typeof(jax.tree.leaves(xs)[0]).sharding.spec[1:-1])
    if all(axis is None for axis in batch):
        return cross(params, state, xs, masks)
    rows, steps = batch, PartitionSpec(None, *batch)
    of_masks = masks._replace(valid=steps, reset=steps, reset_state=rows)
    of_masks = type(masks)(*(None if m is None else s for m, s in zip(masks, of_masks, strict=True)))
    specs = (PartitionSpec(), rows, steps, of_masks)
    return jax.shard_map(cross, in_specs=specs, out_specs=(rows, steps))(params, state, xs, masks)


def laid_as(array: jax.Array, like: jax.Array) -> jax.Array:
    """Shard the trailing axes of `array` as those of `like` are; nothing is to be done without explicit axes."""
    spec = jax.typeof(like).sharding.spec
    if all(part is None for part in spec):
        return array
    return jax.sharding.reshard(array, PartitionSpec(*spec[like.ndim - array.ndim :]))


def zeros_like(array: Any, dtype: Any = None) -> jax.Array:
    """Zeros laid out as `array` is: sharded, and varying over the same axes."""
    return vary(jnp.zeros_like(array, dtype), varying(array))


def varying(tree: Any) -> frozenset[str]:
    """Give the axes of a `shard_map` that any leaf varies over."""
    return frozenset().union(*(jax.typeof(a).manual_axis_type.varying for a in jax.tree.leaves(tree)))


def vary(tree: Any, axes: frozenset[str]) -> Any:
    """Mark every leaf as varying over these axes."""

    def one(array: Any) -> Any:
        missing = tuple(axes - jax.typeof(array).manual_axis_type.varying)
        return jax.lax.pcast(array, missing, to="varying") if missing else array

    return jax.tree.map(one, tree) if axes else tree


def merge_rows(array: jax.Array) -> jax.Array:
    """Merge all axes but the last into one on a single device, so that a contraction over them is a plain GEMM.

    XLA:CPU runs a contraction over two axes behind a transposing copy, at half the speed. Over several devices the
    batch may be sharded, and merging it with time would gather it.
    """
    if array.ndim <= 2 or jax.device_count() > 1:
        return array
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


rows_of = merge_rows
