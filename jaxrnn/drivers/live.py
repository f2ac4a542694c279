"""Which steps a gradient reaches: what a reset cuts off is padding to the backward pass, NaN and infinity included.

The state before a reset gets a cotangent of zero, and zero times NaN is NaN: so a step that no cotangent reaches is
not differentiated at all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..autodiff import linear_map
from ..broadcasting import broadcasting
from ..cell import GatedCell, Output, Params, State
from ..marks import Marks
from ..trees import where

Unroll = Callable[[Params, State, Any, Marks], tuple[State, Output]]


def live(marks: Marks, dfinal: Any, dys: Any, reverse: bool) -> Marks:
    """Return the masks with `valid` false at every step that no cotangent reaches.

    Args:
        marks: the masks of the sequence; without resets they come back as they are.
        dfinal: cotangents of the final state, a tree of (*batch, ...); None stands for zero.
        dys: cotangents of the outputs or states of all steps, a tree of (T, *batch, ...); None stands for zero.
        reverse: whether time runs from the last step to the first.
    """
    if marks.fresh is None:
        return marks
    time, *batch = marks.fresh.shape
    fresh = marks.fresh[::-1] if reverse else marks.fresh
    index = jnp.arange(time, dtype=jnp.int32).reshape(time, *[1] * len(batch))
    reached = _any_nonzero(dys, 1 + len(batch), marks.fresh)
    reached = reached[::-1] if reverse else reached
    at_end = _any_nonzero(dfinal, len(batch), marks.fresh[0] if time else jnp.zeros(batch, bool))
    end = jnp.where(at_end, time, time + 1).astype(jnp.int32)[None]
    first = jnp.minimum(lax.cummin(jnp.where(reached, index, time + 1), 0, reverse=True), end)
    following = lax.cummin(jnp.where(fresh, index, time + 1), 0, reverse=True)
    boundary = jnp.concatenate([following[1:], jnp.full_like(following[:1], time + 1)])  # the first reset after a step
    alive = first < boundary
    alive = alive[::-1] if reverse else alive
    return marks._replace(valid=alive if marks.valid is None else alive & marks.valid)


def _any_nonzero(tree: Any, axes: int, like: jax.Array) -> jax.Array:
    """Return whether any number of the leaves, whose leading `axes` are those of `like`, is not zero."""
    found = jnp.zeros_like(like)
    for leaf in jax.tree.leaves(tree):
        if leaf.dtype != jax.dtypes.float0:
            found |= (leaf != 0).any(axis=tuple(range(axes, leaf.ndim)))
    return found


def clear(marks: Marks, tree: Any) -> Any:
    """Return a tree of (T, *batch, ...) with zeros at the steps that are not valid."""
    return tree if marks.valid is None else where(marks.valid, tree, jax.tree.map(jnp.zeros_like, tree))


def outputs(cell: GatedCell, params: Params, states: State, xs: Any, marks: Marks) -> Output:
    """Return the cell's outputs (T, *batch, ...) of the states after all steps; each step is live or not by itself."""
    states = clear(marks, states)
    if marks.fresh is None:
        return cell.output(params, states, xs)
    each = Marks(None, jnp.ones_like(marks.fresh), ())
    of_steps = lambda params, state, inputs, marks: (state, cell.output(params, *inputs))
    return cut(of_steps, params, (), (states, xs), each, reverse=False)[1]


def cut(unroll: Unroll, params: Params, state: State, xs: Any, marks: Marks, *, reverse: bool) -> tuple[State, Output]:
    """Return `unroll(params, state, xs, marks)`, in whose reverse-mode gradient only live steps take part.

    With resets, the backward pass runs `unroll` again, with the steps that are not live as padding. Forward mode is
    that of `unroll`.
    """
    if marks.fresh is None:
        return unroll(params, state, xs, marks)
    return _cut(unroll, reverse, (params, state, xs, marks))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _cut(unroll: Unroll, reverse: bool, operands: Any) -> tuple[State, Output]:
    return unroll(*operands)


@_cut.defjvp
@broadcasting
def _cut_jvp(unroll: Unroll, reverse: bool, primals: Any, tangents: Any) -> tuple[Any, Any]:
    (operands,), (doperands,) = primals, tangents
    out = _cut(unroll, reverse, operands)

    shapes = jax.eval_shape(lambda: out)

    @broadcasting
    def forward(operands: Any, given: list[Any]) -> list[Any]:
        smooth, rebuild = _split(operands)
        return jax.jvp(lambda smooth: _split(unroll(*rebuild(smooth)))[0], (smooth,), (given,))[1]

    @broadcasting
    def backward(operands: Any, cotangents: list[Any]) -> list[Any]:
        params, state, xs, marks = operands
        dfinal, dys = _spread(cotangents, shapes)
        marks = live(marks, dfinal, dys, reverse)
        smooth, rebuild = _split((params, state, clear(marks, xs), marks))
        return jax.vjp(lambda smooth: _split(unroll(*rebuild(smooth)))[0], smooth)[1](cotangents)[0]

    pairs = zip(jax.tree.leaves(doperands), jax.tree.leaves(operands), strict=True)
    pushed = linear_map(forward, backward, operands, [d for d, p in pairs if _smooth(p)], _split(out)[0])
    return out, _spread(pushed, shapes)


def _smooth(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _split(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """Return the leaves that have a derivative, and a function that puts others in their place."""
    leaves, form = jax.tree.flatten(tree)

    def rebuild(smooth: list[Any]) -> Any:
        rest = iter(smooth)
        return jax.tree.unflatten(form, [next(rest) if _smooth(leaf) else leaf for leaf in leaves])

    return [leaf for leaf in leaves if _smooth(leaf)], rebuild


def _spread(smooth: list[Any], shapes: Any) -> Any:
    """Return a tree of tangents or cotangents: those given for the leaves that have a derivative, zeros for others."""
    rest = iter(smooth)
    return jax.tree.map(lambda a: next(rest) if _smooth(a) else np.zeros(a.shape, jax.dtypes.float0), shapes)
