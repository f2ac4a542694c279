"""Randomness at every step: a key for each of them, and what a cell draws from it.

A `GatedCell` or an `AffineCell` that needs noise has a method `noise(key, batch)`; a plain cell has a `step` with an
argument `key`. `unroll(key=...)` gives step t the key `step_keys(key, T)[t]`, whatever the driver, and `step(key=...)`
takes such a key: both draw the same numbers. Without a key the noise is zero.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .types import Inputs, Key, Output, Params, State

Noise = tuple[jax.Array, ...]


def typed(key: Key) -> Key:
    """Return a raw key as a typed one."""
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)


def step_keys(key: Key, num_steps: int) -> Key:
    """Return the keys (T,) that `unroll(key=key)` gives to its steps.

    >>> keys = step_keys(jax.random.key(0), 10)
    >>> keys.shape
    (10,)
    """
    return jax.random.split(sequence_and_step_keys(key)[1], num_steps)


def sequence_and_step_keys(key: Key) -> Key:
    """Return two keys: for what is drawn once a sequence, and for what is drawn at every step."""
    return jax.random.split(typed(key))


def map_keys(draw: Callable[..., Any], keys: Key, *rows: jax.Array) -> Any:
    """Return `draw(key, *row)` of every step. Only threefry keys draw under `jax.vmap` what they draw alone."""
    if "threefry" in str(jax.random.key_impl(keys)):
        return jax.vmap(draw)(keys, *rows)
    return jax.lax.map(lambda row: draw(*row), (keys, *rows))


def split(key: Key | None, num: int) -> list[Any]:
    """Return a key, or the keys of all steps (T,), for each of `num` parts; Nones for None."""
    if key is None:
        return [None] * num
    key = typed(key)
    parts = map_keys(lambda one: jax.random.split(one, num), key) if key.ndim else jax.random.split(key, num)
    return [parts[..., i] for i in range(num)]


def no_noise(self: Any, key: Key, batch: tuple[int, ...]) -> jax.Array | Noise:
    """Draw the noise of one step, an array (*batch, H) of mean zero or a tuple of them. Empty unless overridden.

    It is drawn from the key of the step, and zero without a key. The gate of a `GatedCell` gets it at the end of u,
    `u = (u_1, ..., u_G, noise)`, and `affine` of an `AffineCell` after x, `(x, noise)`.
    """
    return ()


def inner_noise(self: Any, key: Key, batch: tuple[int, ...]) -> jax.Array | Noise:
    """Draw the noise of the wrapped cell."""
    drawn: jax.Array | Noise = self.cell.noise(key, batch)
    return drawn


def draws(cell: Any) -> bool:
    """Return whether a gated or an affine cell has noise."""
    method = type(cell).noise
    return draws(cell.cell) if method is inner_noise else method is not no_noise


def draw(cell: Any, key: Key | None, batch: tuple[int, ...]) -> Noise:
    """Return the noise of one step of a gated or an affine cell; zeros without a key, nothing for a cell without."""
    if not draws(cell):
        return ()

    def noise(key: Key) -> Noise:
        drawn = cell.noise(key, batch)
        return drawn if isinstance(drawn, tuple) else (drawn,)

    if key is not None:
        return noise(key)
    return tuple(jnp.zeros(a.shape, a.dtype) for a in jax.eval_shape(noise, jax.random.key(0)))


def draw_all(cell: Any, keys: Key | None, num_steps: int, batch: tuple[int, ...]) -> Noise:
    """Return the noise of all steps, arrays (T, *batch, H)."""
    if keys is not None:
        return map_keys(lambda key: draw(cell, key, batch), keys)
    return tuple(jnp.zeros((num_steps, *a.shape), a.dtype) for a in draw(cell, None, batch))


def step(cell: Any, params: Params, state: State, x: Inputs, key: Key | None) -> tuple[State, Output]:
    """Apply one step of a cell, with the key if its `step` takes one."""
    if key is None or not takes_key(cell):
        return cell.step(params, state, x)
    return cell.step(params, state, x, key=key)


def takes_key(cell: Any) -> bool:
    """Return whether the `step` of a cell, or of its class, has an argument `key`."""
    owner: Any = cell if isinstance(cell, type) else type(cell)
    return _has_key(owner.step)


@functools.lru_cache(maxsize=256)
def _has_key(function: Callable[..., Any]) -> bool:
    return "key" in inspect.signature(function).parameters
