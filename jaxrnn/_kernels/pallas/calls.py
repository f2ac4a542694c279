"""The inputs and outputs of the kernels, and their rule for `vmap`: a call over data becomes a larger batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from ..vmap_rule import fold, unfold


class SequenceInputs(NamedTuple):
    """The inputs of every step, (T, B, ...); None stands for an absent one.

    The masks follow the rule of `jaxrnn._core.masks`, which `Equation` writes again for tiles, for speed:
    `tests/core/test_fused.py::test_equals_scan_in_value_and_gradient` holds the two equal.


    Attributes:
        preactivations: those of the inputs (forward), or `Preactivations` (backward): a list of (T, B, H).
        valid: (T, B) bool, false in the padding.
        reset: (T, B) bool: whether the state is reset before this step (backward) or before the next one (forward).
        states: backward: a list of (T, B, H), the state after every step.
        dstates: backward: their cotangents; None stands for zero.
    """

    preactivations: Any
    valid: Any
    reset: Any
    states: Any = ()
    dstates: Any = ()


class RowInputs(NamedTuple):
    """The inputs of a sequence as a whole, one row for each of the batch: lists of (B, H).

    Attributes:
        state: the state before the first step (backward), after the reset of the first step (forward).
        reset_state: the state that a reset puts in its place.
        dfinal: backward: the cotangent of the final state.
    """

    state: Any
    reset_state: Any
    dfinal: Any = ()


class Weights(NamedTuple):
    """Recurrent weights w (N, K, G, K), and the params of the gate, a list of (1, H)."""

    w: Any
    local: Any


class ForwardOutputs(NamedTuple):
    """The states after every step, a list of (T, B, H), and what the recurrent weights read before it, (T, B, H)."""

    states: Any
    recurrent_reads: Any


class BackwardOutputs(NamedTuple):
    """Gradients of the preactivations, a list of (T, B, H); of state, reset state and local params, lists of (B, H)."""

    preactivations: Any
    state: Any
    reset_state: Any
    local: Any


def like(struct: jax.ShapeDtypeStruct, operands: Any) -> jax.ShapeDtypeStruct:
    """Return `struct` varying over the axes of a `shard_map` that the operands vary over."""
    axis_type = jax.typeof(jax.tree.leaves(operands)[0]).manual_axis_type
    return jax.ShapeDtypeStruct(struct.shape, struct.dtype, manual_axis_type=axis_type)


KernelCall = Callable[[SequenceInputs, RowInputs, Weights], Any]


def with_vmap_rule(call: KernelCall, fits: Callable[[int], bool]) -> KernelCall:
    """Return the call with its rule for `vmap`: over weights, or if a larger batch does not fit, it becomes a loop."""
    batched = custom_vmap(call)

    @batched.def_vmap
    def rule(size: int, mapped: Any, sequences: SequenceInputs, rows: RowInputs, weights: Weights) -> Any:
        sequences_mapped, rows_mapped, weights_mapped = mapped
        batch = rows.state[0].shape[1 if rows_mapped.state[0] else 0]
        if any(jax.tree.leaves(weights_mapped)) or not fits(size * batch):
            args = (sequences, rows, weights)
            member = lambda i: jax.tree.map(lambda a, m: a[i] if m else a, args, tuple(mapped))
            out = jax.lax.map(lambda i: batched(*member(i)), jnp.arange(size))
        else:
            folded = lambda axis, tree, flags: jax.tree.map(lambda a, m: fold(a, m, size, axis), tree, flags)
            wide = batched(folded(1, sequences, sequences_mapped), folded(0, rows, rows_mapped), weights)
            out = jax.tree.map(lambda a: unfold(a, size, 1 if a.ndim == 3 else 0), wide)
        return out, jax.tree.map(lambda _: True, out)

    return batched
