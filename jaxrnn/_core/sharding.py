"""Layouts on meshes: the carry of a scan has the same layout before and after a step, so states are laid out first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from .masks import StepMasks
from .trees import DType, Tree
from .types import Inputs, Output, Params, State

Part: TypeAlias = str | tuple[str, ...] | None
"""The axes of a mesh that one axis of an array is sharded over."""

Run: TypeAlias = Callable[[Params, State, Inputs, StepMasks], tuple[State, Output]]
"""A driver with its cell and direction bound."""


def lift(trees: tuple[Params, State, State], xs: Inputs, batch_axes: int) -> tuple[Params, State, State]:
    """Lay out (params, state, reset_state) for a scan over the inputs (T, *batch, D).

    With explicit axes a state is sharded as the batch of xs is, and its features as the last axis of the params of the
    same size are. Under `shard_map` all three are marked as varying over the axes that any of them or xs varies over,
    so that the gradient of params is summed over devices once, not once a step. With automatic axes, and without a
    mesh, the trees are returned as they are.
    """
    params, state, reset_state = trees
    batch = jax.typeof(jax.tree.leaves(xs)[0]).sharding.spec[1 : 1 + batch_axes]
    features = _feature_axes(params, batch)
    if features or any(part is not None for part in batch):

        def lay_out(s: jax.Array) -> jax.Array:
            inner: list[Part] = [None] * (s.ndim - batch_axes)
            if inner:
                inner[-1] = features.get(s.shape[-1])
            return jax.sharding.reshard(s, PartitionSpec(*batch, *inner))

        state, reset_state = jax.tree.map(lay_out, (state, reset_state))
    return vary((params, state, reset_state), varying((trees, xs)))


def _feature_axes(params: Params, batch: Sequence[Part]) -> dict[int, Part]:
    """Return the mesh axes that the last axis of a leaf is sharded over, by the size of that axis."""
    leaves = [leaf for leaf in jax.tree.leaves(params) if sharded(leaf)]
    parts = [_unless_in(batch, jax.typeof(leaf).sharding.spec[-1]) for leaf in leaves]
    return {leaf.shape[-1]: part for leaf, part in zip(leaves, parts, strict=True) if part is not None}


def on_each_device(run: Run, params: Params, state: State, xs: Inputs, masks: StepMasks) -> tuple[State, Output]:
    """Call `run` on each device with the rows that it holds, where the batch is sharded over explicit axes.

    For programs that the compiler cannot partition. The result is a state and outputs (T, *batch, ...).

    Raises:
        ValueError: for params that are sharded over explicit axes.
    """
    for leaf in jax.tree.leaves(params):
        if sharded(leaf):
            raise ValueError(
                f"this driver needs whole weights on every device; got {jax.typeof(leaf)}. Use Scan(), BPTT() or, for "
                "an affine cell, Associative(); or replicate the params: jax.sharding.reshard(params, PartitionSpec())."
            )
    batch = PartitionSpec(*jax.typeof(jax.tree.leaves(xs)[0]).sharding.spec[1:-1])
    if all(axis is None for axis in batch):
        return run(params, state, xs, masks)
    rows, steps = batch, PartitionSpec(None, *batch)
    given = zip(masks, (steps, steps, rows), strict=True)
    of_masks = StepMasks._make(None if mask is None else spec for mask, spec in given)
    specs = (PartitionSpec(), rows, steps, of_masks)
    return jax.shard_map(run, in_specs=specs, out_specs=(rows, steps))(params, state, xs, masks)


def rows_like(array: jax.Array, like: jax.Array) -> jax.Array:
    """Shard all axes of `array` but the last as those of `like`, and the last over none."""
    spec = jax.typeof(like).sharding.spec[:-1]
    return array if all(part is None for part in spec) else jax.sharding.reshard(array, PartitionSpec(*spec, None))


def laid_as(array: jax.Array, like: jax.Array) -> jax.Array:
    """Shard the trailing axes of `array` as those of `like`; without explicit axes, return it unchanged."""
    spec = jax.typeof(like).sharding.spec
    if all(part is None for part in spec):
        return array
    return jax.sharding.reshard(array, PartitionSpec(*spec[like.ndim - array.ndim :]))


def zeros_like(array: jax.Array, dtype: DType | None = None) -> jax.Array:
    """Return zeros with the layout of `array`: sharded, and varying over the same axes."""
    return vary(jnp.zeros_like(array, dtype), varying(array))


def varying(tree: object) -> frozenset[str]:
    """Return the axes of a `shard_map` that any leaf varies over."""
    return frozenset().union(*(jax.typeof(a).manual_axis_type.varying for a in jax.tree.leaves(tree)))


def vary(tree: Tree, axes: frozenset[str]) -> Tree:
    """Cast every leaf to vary over these axes."""

    def one(array: jax.Array) -> jax.Array:
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


def sharded(array: jax.Array) -> bool:
    """Return whether an axis of the array is sharded over an explicit axis of a mesh."""
    return any(part is not None for part in jax.typeof(array).sharding.spec)


def contract_sharded(x: jax.Array, w: jax.Array) -> tuple[jax.Array, ...]:
    """Multiply x (..., D) by sharded weights w (D, G, H): G arrays (..., H), sharded as H is.

    The features of x are sharded as D is: an all-gather, where only H is sharded. Weights are gathered over the axes of
    the mesh that shard the batch.
    """
    batch = jax.typeof(x).sharding.spec[:-1]
    features, _, units = (_unless_in(batch, part) for part in jax.typeof(w).sharding.spec)
    x = jax.sharding.reshard(x, PartitionSpec(*batch, features))
    w = jax.sharding.reshard(w, PartitionSpec(features, None, units))
    packed = jnp.einsum("...d,dgh->...gh", x, w, out_sharding=PartitionSpec(*batch, None, units))
    return tuple(packed[..., g, :] for g in range(w.shape[1]))


def _unless_in(batch: Sequence[Part], part: Part) -> Part:
    """Return the mesh axes `part`, or None where one of them shards the batch."""
    names = {name for other in batch for name in _names(other)}
    return None if names.intersection(_names(part)) else part


def _names(part: Part) -> tuple[str, ...]:
    """Return the mesh axes that one axis of an array is sharded over."""
    if part is None:
        return ()
    return (part,) if isinstance(part, str) else tuple(part)
