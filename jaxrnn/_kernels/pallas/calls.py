"""What the kernels are handed and give, and the rule for `vmap`: over data a call becomes one with a larger batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from ..vmap_rule import fold, unfold


class SequenceInputs(NamedTuple):
    """What a crossing looks at in every step, (T, B, ...); None is what there is nothing of.

    Attributes:
        terms: input terms forward, merged terms backward: a list of (T, B, H).
        valid: (T, B) bool, false in the padding.
        reset: (T, B) bool: the state begins anew before this step (backward), before the one after it (forward).
        states: backward: a list of (T, B, H), the state after every step.
        dstates: backward: their gradients; None for one that is zero.
    """

    terms: Any
    valid: Any
    reset: Any
    states: Any = ()
    dstates: Any = ()


class RowInputs(NamedTuple):
    """What there is once for every row, lists of (B, H).

    Attributes:
        state: that was handed in; forward as the first step enters with it.
        initial: what a reset step begins anew from.
        dfinal: backward: the gradient for the state after the last step.
    """

    state: Any
    initial: Any
    dfinal: Any = ()


class Weights(NamedTuple):
    """Recurrent weights w (N, K, G, K), and the gate's own params, a list of (1, H)."""

    w: Any
    local: Any


class ForwardOutputs(NamedTuple):
    """Forward: the states after every step, a list of (T, B, H), and what the weights saw before it, (T, B, H)."""

    states: Any
    reads: Any


class BackwardOutputs(NamedTuple):
    """Backward: gradients for the terms, lists of (T, B, H), and sums (B, H) for a row's state, initial and local."""

    terms: Any
    state: Any
    initial: Any
    local: Any


def like(struct: jax.ShapeDtypeStruct, operands: Any) -> jax.ShapeDtypeStruct:
    """Give what a kernel makes the type of its operands, which vary alike over the axes of a `shard_map`."""
    how = jax.typeof(jax.tree.leaves(operands)[0]).manual_axis_type
    return jax.ShapeDtypeStruct(struct.shape, struct.dtype, manual_axis_type=how)


Call = Callable[[SequenceInputs, RowInputs, Weights], Any]


def with_vmap_rule(call: Call, fits: Callable[[int], bool]) -> Call:
    """Give a call its rule for `vmap`: over weights, or where a larger batch does not fit, it is a loop."""
    one = custom_vmap(call)

    @one.def_vmap
    def rule(size: int, mapped: Any, rows: SequenceInputs, ones: RowInputs, weights: Weights) -> Any:
        of_rows, of_ones, of_weights = mapped
        batch = ones.state[0].shape[1 if of_ones.state[0] else 0]
        if any(jax.tree.leaves(of_weights)) or not fits(size * batch):
            args = (rows, ones, weights)
            member = lambda i: jax.tree.map(lambda a, m: a[i] if m else a, args, tuple(mapped))
            out = jax.lax.map(lambda i: one(*member(i)), jnp.arange(size))
        else:
            folded = lambda axis, tree, flags: jax.tree.map(lambda a, m: fold(a, m, size, axis), tree, flags)
            wide = one(folded(1, rows, of_rows), folded(0, ones, of_ones), weights)
            out = jax.tree.map(lambda a: unfold(a, size, 1 if a.ndim == 3 else 0), wide)
        return out, jax.tree.map(lambda _: True, out)

    return one
