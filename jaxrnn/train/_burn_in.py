"""Stored state and burn-in: training on windows of sequences that were recorded with older params."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from .._core.cell import Cell
from .._core.checks import as_flags, as_lengths, check_inputs
from .._core.composite import Composite
from .._core.fields import count
from .._core.masks import length_mask
from .._core.randomness import split
from .._core.types import Context, Inputs, Key, Output, Params, State
from .._drivers import Driver
from .._unroll import unroll

if TYPE_CHECKING:
    from jaxtyping import Bool, Int


def unroll_after_burn_in(
    cell: Cell | Composite,
    params: Params,
    xs: Inputs,
    state: State,
    *,
    burn_in: int,
    lengths: Int[ArrayLike, "*batch"] | None = None,
    mask: Bool[ArrayLike, T * batch] | None = None,
    resets: Bool[ArrayLike, T * batch] | None = None,
    context: Context = None,
    key: Key | None = None,
    state_dtype: DTypeLike | None = None,
    driver: Driver | None = None,
) -> tuple[State, Output]:
    """Unroll a stored window whose first steps only bring the stored state up to date with the params.

    A replay buffer keeps, next to a window, the state before it, which older params computed. The first `burn_in`
    steps are run from there without a gradient; the outputs and the gradient are those of the other steps. No gradient
    reaches the stored state.

    Args:
        cell: a cell or a composite.
        params: its params.
        xs: the stored inputs (T, *batch, D), or a pytree of them.
        state: the stored state before the first of them, each leaf (*batch, ...).
        burn_in: the number of steps without a gradient, from 0 to T; about half of a window of 80 in the paper.
        lengths: integers (*batch): step t of row b is valid where t < lengths[b].
        mask: booleans (T, *batch): a step where it is false is padding.
        resets: booleans (T, *batch): true at t for a boundary between t - 1 and t. Shift what an environment returns:
            if done[t] says that the episode ended with step t, then resets[t + 1] = done[t]. A reset in the burn-in
            takes effect there.
        context: as for `unroll`; the burn-in has no gradient to it.
        key: what noise and dropout are drawn from, in both parts.
        state_dtype: as for `unroll`.
        driver: as for `unroll`, for both parts.

    Returns:
        The state after the last step, and the outputs (T - burn_in, *batch, ...).

    Raises:
        ValueError: if burn_in is no integer between 0 and T, and as `jaxrnn.unroll`.

    >>> from jaxrnn.train import unroll_after_burn_in
    >>> cell, xs, done = GRU(8), jnp.ones((20, 4, 3)), jnp.zeros((20, 4), bool)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> stored, resets = cell.initial_state(params, (4,)), jnp.roll(done, 1, axis=0).at[0].set(False)
    >>> state, ys = unroll_after_burn_in(cell, params, xs, stored, burn_in=8, resets=resets)
    >>> ys.shape
    (12, 4, 8)

    Reference: Kapturowski et al., "Recurrent experience replay in distributed reinforcement learning", 2019, section 3.
    """
    num_steps, batch = check_inputs(xs)
    if count(burn_in, "burn_in") > num_steps:
        raise ValueError(f"burn_in is a number of the T={num_steps} steps of xs; got {burn_in}")
    valid = step_mask(lengths, mask, num_steps, batch)
    resets = as_flags("resets", resets, num_steps, batch)
    run = functools.partial(unroll, cell, state_dtype=state_dtype, driver=driver)
    keys = split(key, 2)
    stopped = jax.lax.stop_gradient((params, xs, state, context))
    state = stopped[2]
    cut = lambda tree, steps: jax.tree.map(lambda a: a[steps], tree)  # None has no leaves
    first, rest = slice(burn_in), slice(burn_in, None)
    if burn_in:
        masks = {"mask": cut(valid, first), "resets": cut(resets, first)}
        state, _ = run(stopped[0], cut(stopped[1], first), state, context=stopped[3], key=keys[0], **masks)
        state = jax.lax.stop_gradient(state)
        if valid is not None and resets is not None and burn_in < num_steps:
            resets = jnp.asarray(resets)
            resets = resets.at[burn_in].set(resets[burn_in] | _pending(resets[first], valid[first]))
    masks = {"mask": cut(valid, rest), "resets": cut(resets, rest)}
    return run(params, cut(xs, rest), state, context=context, key=keys[1], **masks)


def step_mask(
    lengths: ArrayLike | None, mask: ArrayLike | None, num_steps: int, batch: tuple[int, ...]
) -> jax.Array | None:
    """Return the mask (T, *batch) of the steps that lengths and mask both have; None where neither is given."""
    ends, flags = as_lengths(lengths, num_steps, batch), as_flags("mask", mask, num_steps, batch)
    if ends is None:
        return None if flags is None else jnp.asarray(flags)
    within = length_mask(ends, num_steps)
    return within if flags is None else within & flags


def _pending(resets: jax.Array, valid: jax.Array) -> jax.Array:
    """Return (*batch): whether a reset lies after the last valid step, and takes effect at the next one."""
    later_valid = jax.lax.cummax(valid.astype(jnp.int32), 0, reverse=True) > 0
    return (resets & ~later_valid).any(axis=0)
