"""Which steps a gradient reaches: what a reset cuts off is padding to the backward pass, if it is not finite.

The state before a reset gets a cotangent of zero, and zero times NaN is NaN. So a step that has non-finite numbers and
that no cotangent reaches is not differentiated. A step whose numbers are finite always is: so the backward pass stays
linear in the cotangents, as derivatives of second order require.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .affine_cell import shifted
from .autodiff import linear_map
from .broadcasting import broadcasting
from .cell import GatedCell
from .masks import StepMasks, zero_padding
from .sharding import zeros_like
from .trees import differentiable
from .types import Output, Params, State

Unroll = Callable[[Params, State, Any, StepMasks], tuple[State, Output]]


def live(masks: StepMasks, dfinal: Any, dys: Any, reverse: bool, state: State, over_time: Any) -> StepMasks:
    """Return the masks with `valid` false at the steps that are not to be differentiated.

    Args:
        masks: the masks of the sequence; without resets they are returned as they are.
        dfinal: cotangents of the final state, a tree of (*batch, ...); None stands for zero.
        dys: cotangents of the outputs or states of all steps, a tree of (T, *batch, ...); None stands for zero.
        reverse: whether time runs from the last step to the first.
        state: the state before the first step, a tree of (*batch, ...).
        over_time: the inputs and results of each step, a tree of (T, *batch, ...).
    """
    if masks.reset is None:
        return masks
    start = zeros_like(masks.reset.any(axis=0))  # sharded as a row is, even if there is none
    bad = _any(_not_finite, over_time, jnp.zeros_like(masks.reset))
    entered = shifted(bad, _any(_not_finite, state, start), reverse) & ~masks.reset
    of_step, at_end = _any(_not_zero, dys, jnp.zeros_like(masks.reset)), _any(_not_zero, dfinal, start)
    reached = _reached(masks.reset, of_step, at_end, reverse)
    valid = reached | ~(bad | entered)
    return masks._replace(valid=valid if masks.valid is None else valid & masks.valid)


def _reached(reset: jax.Array, of_step: jax.Array, at_end: jax.Array, reverse: bool) -> jax.Array:
    """Return (T, *batch): whether a step, or one after it and before the next reset, or the end, has a cotangent."""
    time = reset.shape[0]
    turn = lambda rows: rows[::-1] if reverse else rows
    index = jnp.arange(time, dtype=jnp.int32).reshape(time, *[1] * at_end.ndim)
    following = lambda rows: lax.cummin(jnp.where(turn(rows), index, time + 1), 0, reverse=True)
    first = jnp.minimum(following(of_step), jnp.where(at_end, time, time + 1).astype(jnp.int32)[None])
    boundary = shifted(following(reset), zeros_like(at_end, jnp.int32) + (time + 1), True)  # the first after a step
    return turn(first < boundary)


def _not_zero(leaf: jax.Array) -> jax.Array:
    return leaf != 0


def _not_finite(leaf: jax.Array) -> jax.Array:
    return ~jnp.isfinite(leaf)


def _any(test: Callable[[jax.Array], jax.Array], tree: Any, found: jax.Array) -> jax.Array:
    """Return `found`, and where any number of the leaves, whose leading axes are its own, passes the test."""
    for leaf in jax.tree.leaves(tree):
        if differentiable(leaf):
            found |= test(leaf).any(axis=tuple(range(found.ndim, leaf.ndim)))
    return found


def outputs(cell: GatedCell, params: Params, states: State, xs: Any, masks: StepMasks) -> Output:
    """Return the cell's outputs (T, *batch, ...) of the states after all steps; each step is live or not by itself."""
    states = zero_padding(states, masks.valid)
    return each_step(lambda params, inputs: cell.output(params, *inputs), params, (states, xs), masks.reset)


def each_step(function: Callable[[Params, Any], Output], params: Params, xs: Any, resets: jax.Array | None) -> Output:
    """Return function(params, xs), where row t of the result follows from row t of xs; each is live or not by itself.

    Args:
        function: maps (params, xs) to outputs (T, *batch, ...).
        params: params of the function.
        xs: a tree of (T, *batch, ...).
        resets: (T, *batch); None where there are none: then every row is differentiated.
    """
    if resets is None:
        return function(params, xs)
    each = StepMasks(None, jnp.ones_like(resets), ())
    of_steps = lambda params, state, xs, masks: (state, function(params, xs))
    return cut(of_steps, params, (), xs, each, reverse=False)[1]


def cut(
    unroll: Unroll, params: Params, state: State, xs: Any, masks: StepMasks, *, reverse: bool
) -> tuple[State, Output]:
    """Return `unroll(params, state, xs, masks)`, whose reverse-mode gradient is that of the live steps alone.

    With resets, the backward pass runs `unroll` again, with the steps that are not live as padding. Forward mode is
    that of `unroll`.
    """
    if masks.reset is None:
        return unroll(params, state, xs, masks)
    return _cut(unroll, reverse, (params, state, xs, masks))


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
        smooth, rebuild = _split(operands[0])
        return jax.jvp(lambda smooth: _split(unroll(*rebuild(smooth)))[0], (smooth,), (given,))[1]

    @broadcasting
    def backward(operands: Any, cotangents: list[Any]) -> list[Any]:
        (params, state, xs, masks), ys = operands
        dfinal, dys = _spread(cotangents, shapes)
        masks = live(masks, dfinal, dys, reverse, state, (xs, ys))
        smooth, rebuild = _split((params, state, zero_padding(xs, masks.valid), masks))
        return jax.vjp(lambda smooth: _split(unroll(*rebuild(smooth)))[0], smooth)[1](cotangents)[0]

    pairs = zip(jax.tree.leaves(doperands), jax.tree.leaves(operands), strict=True)
    given = [d for d, p in pairs if differentiable(p)]
    pushed = linear_map(forward, backward, (operands, out[1]), given, _split(out)[0])
    return out, _spread(pushed, shapes)


def _split(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """Return the leaves that have a derivative, and a function that puts others in their place."""
    leaves, form = jax.tree.flatten(tree)

    def rebuild(smooth: list[Any]) -> Any:
        rest = iter(smooth)
        return jax.tree.unflatten(form, [next(rest) if differentiable(leaf) else leaf for leaf in leaves])

    return [leaf for leaf in leaves if differentiable(leaf)], rebuild


def _spread(smooth: list[Any], shapes: Any) -> Any:
    """Return a tree of tangents or cotangents: those given for the leaves that have a derivative, zeros for others."""
    rest = iter(smooth)
    return jax.tree.map(lambda a: next(rest) if differentiable(a) else np.zeros(a.shape, jax.dtypes.float0), shapes)
