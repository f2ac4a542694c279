"""States as points: vectors of real numbers, and the map of a step between them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from .._core.cell import Cell
from .._core.checks import check_cell, check_step, shown
from .._core.composite import Composite, need_step
from .._core.fields import show
from .._core.types import Inputs, Params, State

if TYPE_CHECKING:
    from jaxtyping import Array, Float


def to_vector(cell: Cell, params: Params, state: State) -> Float[Array, "*batch n"]:
    """Return states as vectors: the leaves one after the other, complex ones as real and imaginary parts.

    Args:
        cell: a cell or composite with a `step`.
        params: its params.
        state: states, each leaf (*batch, ...), of floating or complex numbers.

    >>> cell = LSTM(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> to_vector(cell, params, cell.initial_state(params, (7,))).shape
    (7, 8)

    Raises:
        ValueError: for a state of another structure or shape than the cell's, and for integers.
    """
    one, (given, tree) = _one_state(cell, params), jax.tree.flatten(state)
    wanted: Any = jax.tree.structure(one)
    if tree != wanted:
        raise ValueError(f"a state of {show(cell)} is {one}; got {shown(state)}")
    batch = given[0].shape[: given[0].ndim - jax.tree.leaves(one)[0].ndim]
    parts = []
    for leaf, like in zip(given, jax.tree.leaves(one), strict=True):
        if leaf.shape != (*batch, *like.shape):
            raise ValueError(f"a leaf of the state of {show(cell)} is (*batch, *{like.shape}); got {leaf.shape}")
        flat = leaf.reshape(*batch, math.prod(like.shape))
        parts += [flat.real, flat.imag] if jnp.iscomplexobj(flat) else [flat]
    return jnp.concatenate(parts, axis=-1)


def from_vector(cell: Cell, params: Params, vectors: Float[Array, "*batch n"]) -> State:
    """Return the states of vectors: the inverse of `to_vector`.

    >>> cell = LSTM(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> from_vector(cell, params, jnp.zeros((7, 8))).c.shape
    (7, 4)

    Raises:
        ValueError: for vectors of another length than the state has numbers.
    """
    leaves, tree = jax.tree.flatten(_one_state(cell, params))
    sizes = [math.prod(leaf.shape) * (2 if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else 1) for leaf in leaves]
    if vectors.shape[-1] != sum(sizes):
        raise ValueError(f"a state of {show(cell)} has {sum(sizes)} numbers; got vectors {vectors.shape}")
    states, start = [], 0
    for leaf, size in zip(leaves, sizes, strict=True):
        flat = vectors[..., start : start + size]
        start += size
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            flat = jax.lax.complex(*jnp.split(flat, 2, axis=-1))
        states.append(flat.reshape(*vectors.shape[:-1], *leaf.shape).astype(leaf.dtype))
    return jax.tree.unflatten(tree, states)


def step_map(cell: Cell, params: Params) -> Callable[[jax.Array, Inputs], jax.Array]:
    """Return F, the map of one step without a batch: F(h, x), from the vector of s_{t-1} and x_t to that of s_t."""

    def step(h: jax.Array, x: Inputs) -> jax.Array:
        state = from_vector(cell, params, h)
        check_step(cell, params, state, x)
        return to_vector(cell, params, cell.step(params, state, x)[0])

    return step


@functools.partial(jax.jit, static_argnames="cell")
def velocities(cell: Cell, params: Params, x: Inputs, points: jax.Array) -> jax.Array:
    """Return F(h) - h of the vectors (P, n) for an input."""
    step = step_map(cell, params)
    return jax.vmap(lambda h: step(h, x) - h)(points)


def trajectory(cell: Cell, params: Params, xs: Inputs, state: State = None) -> Float[Array, "T *batch n"]:
    """Return the states after every step as vectors.

    Args:
        cell: a cell or composite with a `step`.
        params: its params.
        xs: inputs, (T, *batch, D) or a pytree of them.
        state: the state before the first step, (*batch, ...); None for the cell's own.

    >>> cell = LSTM(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> trajectory(cell, params, jnp.ones((9, 2, 3))).shape
    (9, 2, 8)
    """
    _one_state(cell, params)
    if state is None:
        state = cell.initial_state(params, jax.tree.leaves(xs)[0].shape[1:-1])
    return _trajectory(cell, params, xs, state)


@functools.partial(jax.jit, static_argnames="cell")
def _trajectory(cell: Cell, params: Params, xs: Inputs, state: State) -> jax.Array:
    """Return what `trajectory` does."""

    def step(state: State, x: Inputs) -> tuple[State, jax.Array]:
        state = cell.step(params, state, x)[0]
        return state, to_vector(cell, params, state)

    vectors: jax.Array = jax.lax.scan(step, state, xs)[1]
    return vectors


def start_vector(cell: Cell, params: Params, state: State) -> jax.Array:
    """Return the vector of a state without a batch, the cell's own for None."""
    vector = to_vector(cell, params, _initial(cell, params) if state is None else state)
    if vector.ndim != 1:
        raise ValueError(f"the state must have no batch axis; got vectors {vector.shape}. Use jax.vmap for many.")
    return vector


def _initial(cell: Cell, params: Params) -> State:
    return cell.initial_state(params, ())


def _one_state(cell: Any, params: Params) -> State:
    """Return the shapes of a state without a batch; raise ValueError for a cell that has none of real numbers."""
    if isinstance(cell, Composite):
        need_step(cell, cell)
    check_cell(cell, Cell, "jaxrnn.dynamics")
    one = jax.eval_shape(lambda p: _initial(cell, p), params)
    if not all(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(one)) or not jax.tree.leaves(one):
        raise ValueError(f"jaxrnn.dynamics needs a state of floating numbers; that of {show(cell)} is {one}")
    return one
