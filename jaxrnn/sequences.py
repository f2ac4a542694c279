"""Sequences in and out: from lists of them to arrays, and from a cell's own outputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .cell import Cell, Output, Params, State

Feed = Callable[[Output, jax.Array | None], Any]
"""From y_t and a key for this step, or None, to x_{t+1}."""


def pad(sequences: Sequence[Any], length: int | None = None) -> tuple[jax.Array, jax.Array]:
    """Put sequences of different lengths side by side.

    Args:
        sequences: arrays (T_b, ...), equal in all but T_b; at least one.
        length: T to pad to; None takes the longest. A few fixed lengths mean few compilations.

    Returns:
        xs (T, B, ...), zero where a sequence has ended, and lengths (B,) int32: what `unroll` takes.

    Raises:
        ValueError: for no sequences, different features, or a sequence longer than `length`.

    >>> xs, lengths = pad([np.ones((2, 3)), np.ones((5, 3))])
    >>> xs.shape, lengths.tolist()
    ((5, 2, 3), [2, 5])
    """
    arrays = [np.asarray(s) for s in sequences]
    if not arrays:
        raise ValueError("pad needs at least one sequence; got none")
    kinds = {(a.shape[1:], a.dtype) for a in arrays}
    if len(kinds) > 1 or arrays[0].ndim == 0:
        raise ValueError(f"pad needs arrays (T, ...) that agree in features and dtype; got {sorted(map(str, kinds))}")
    lengths = np.array([len(a) for a in arrays], np.int32)
    longest = int(lengths.max())
    if length is not None and length < longest:
        raise ValueError(
            f"pad to length={length}, but the longest sequence has {longest} steps. Cut it, or pad further."
        )
    xs = np.zeros((length or longest, len(arrays), *arrays[0].shape[1:]), arrays[0].dtype)
    for b, a in enumerate(arrays):
        xs[: len(a), b] = a
    return jnp.asarray(xs), jnp.asarray(lengths)


def generate(
    cell: Cell,
    params: Params,
    x: Any,
    state: State = None,
    *,
    steps: int,
    feed: Feed | None = None,
    key: jax.Array | None = None,
) -> tuple[State, Output]:
    """Feed the output back: x_{t+1} = feed(y_t).

    Args:
        cell: a cell with a `step`, or a `SequenceModel`.
        params: its params.
        x: the first input (*batch, D).
        state: the state before it, as `unroll` hands it over after a prompt; None takes the cell's own. A
            `SequenceModel` needs one: `model.initial_state(params, batch)`.
        steps: how many outputs to make.
        feed: from (y_t, a key for this step, or None) to x_{t+1}; None takes y_t itself. Pass a named function: a
            new lambda each time is a new compilation.
        key: what `feed` draws from, a part for each step.

    Returns:
        The state after the last step, and the outputs (steps, *batch, ...).

    >>> cell = GRU(3)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> generate(cell, params, jnp.ones((2, 3)), steps=7)[1].shape
    (7, 2, 3)
    """
    x = jax.tree.map(jnp.asarray, x)
    state = cell.initial_state(params, jax.tree.leaves(x)[0].shape[:-1]) if state is None else state
    return _generate(cell, params, x, state, steps, feed, key)


@functools.partial(jax.jit, static_argnames=("cell", "steps", "feed"))
def _generate(
    cell: Cell, params: Params, x: Any, state: State, steps: int, feed: Feed | None, key: jax.Array | None
) -> tuple[State, Output]:
    """`generate`, compiled."""

    def one(carry: tuple[State, Any], key: jax.Array | None) -> tuple[tuple[State, Any], Output]:
        state, x = carry
        state, y = cell.step(params, state, x)
        following = y if feed is None else feed(y, key)
        return (state, jax.tree.map(lambda new, old: new.astype(old.dtype), following, x)), y

    keys = None if key is None else jax.random.split(key, steps)
    (state, _), ys = jax.lax.scan(one, (state, x), keys, length=steps)
    return state, ys
