"""The derivatives of a step, their eigenvalues, and their products over time."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._core.cell import Cell
from .._core.types import Inputs, Params, State
from ._state_space import start_vector, step_map, to_vector

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Complex, Float


class Jacobians(NamedTuple):
    """The derivatives of the next state.

    Attributes:
        state: ∂h_t / ∂h_{t-1}.
        input: ∂h_t / ∂x_t, with the structure of x.
    """

    state: Float[Array, "*batch n n"]
    input: Any


def jacobian(cell: Cell, params: Params, state: State, x: Inputs) -> Jacobians:
    """Return the Jacobians of one step, by the state and by the input.

    Args:
        cell: a cell or composite with a `step`.
        params: its params.
        state: s_{t-1}, each leaf (*batch, ...).
        x: x_t without batch axes (D,), or a pytree: the same for all states.

    >>> cell = GRU(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> at = jacobian(cell, params, jnp.zeros((7, 4)), jnp.ones(3))
    >>> at.state.shape, at.input.shape
    ((7, 4, 4), (7, 4, 3))
    """
    vectors = to_vector(cell, params, state)
    flat = jacobians(cell, params, vectors.reshape(math.prod(vectors.shape[:-1]), vectors.shape[-1]), x)
    return jax.tree.map(lambda a: a.reshape(*vectors.shape[:-1], *a.shape[1:]), flat)


@functools.partial(jax.jit, static_argnames="cell")
def jacobians(cell: Cell, params: Params, vectors: jax.Array, x: Inputs) -> Jacobians:
    """Return the Jacobians at the vectors (P, n)."""
    derivatives = jax.jacfwd(step_map(cell, params), argnums=(0, 1))
    return Jacobians(*jax.vmap(derivatives, (0, None))(vectors, x))


class Spectrum(NamedTuple):
    """Eigenvalues λ of Jacobians, the largest first.

    Attributes:
        eigenvalues: λ, by falling |λ|.
        time_constants: 1 / |ln|λ||, the steps in which a mode decays or grows by e; infinite for |λ| = 1.
        frequencies: |arg λ| / 2π, in cycles a step.
        stable: whether all |λ| < 1.
    """

    eigenvalues: Complex[np.ndarray, "*batch n"]
    time_constants: Float[np.ndarray, "*batch n"]
    frequencies: Float[np.ndarray, "*batch n"]
    stable: Bool[np.ndarray, "*batch"]


def spectrum(matrices: Float[Array, "*batch n n"]) -> Spectrum:
    """Return the eigenvalues of Jacobians with what they say of stability, computed on the host.

    >>> rotation = 0.5 * jnp.array([[0.0, -1.0], [1.0, 0.0]])
    >>> found = spectrum(rotation)
    >>> found.frequencies.tolist(), found.time_constants[0].round(3).item(), bool(found.stable)
    ([0.25, 0.25], 1.4429999589920044, True)
    """
    values = np.linalg.eigvals(np.asarray(matrices)).astype(np.result_type(np.asarray(matrices).dtype, np.complex64))
    values = np.take_along_axis(values, np.argsort(-np.abs(values), axis=-1, kind="stable"), axis=-1)
    size = np.abs(values)
    with np.errstate(divide="ignore"):
        time_constants = 1 / np.abs(np.log(size))
    return Spectrum(values, time_constants, np.abs(np.angle(values)) / (2 * np.pi), (size < 1).all(axis=-1))


def gradient_by_lag(
    cell: Cell, params: Params, xs: Inputs, state: State = None, *, ord: int | str = 2
) -> Float[Array, " T"]:
    """Return the norms of ∂h_T / ∂h_{T-l} for the lags l = 0, ..., T - 1: how a gradient vanishes or explodes.

    Args:
        cell: a cell or composite with a `step`.
        params: its params.
        xs: inputs (T, D), or a pytree of them, without a batch; for many sequences use `jax.vmap`.
        state: the state before the first step; None for the cell's own.
        ord: the norm, as in `jnp.linalg.norm`: 2 for the largest singular value, "fro" for Frobenius.

    The matrices are products of Jacobians, by the vector-Jacobian product of a step, so a cell with a custom gradient
    (a clipped one) shows its own.

    >>> cell, key = IndRNN(4, activation="identity"), jax.random.key(0)
    >>> params = cell.init(key, in_dim=3)._replace(w_h=jnp.full((1, 4), 0.5))
    >>> gradient_by_lag(cell, params, jnp.ones((4, 3))).tolist()
    [1.0, 0.5, 0.25, 0.125]

    References: Bengio, Simard and Frasconi, "Learning long-term dependencies with gradient descent is difficult", 1994;
    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", 2013, eq. 5
    (https://arxiv.org/abs/1211.5063).
    """
    return _norms(cell, params, xs, start_vector(cell, params, state), ord)


@functools.partial(jax.jit, static_argnames=("cell", "ord"))
def _norms(cell: Cell, params: Params, xs: Inputs, start: jax.Array, ord: int | str) -> jax.Array:
    """Return what `gradient_by_lag` does, from a vector."""
    step = step_map(cell, params)

    def forward(h: jax.Array, x: Inputs) -> tuple[jax.Array, jax.Array]:
        return step(h, x), h

    def backward(product: jax.Array, before: Any) -> tuple[jax.Array, jax.Array]:
        h, x = before
        _, pull = jax.vjp(lambda h: step(h, x), h)
        return jax.vmap(lambda row: pull(row)[0])(product), jnp.linalg.norm(product, ord)

    _, states = jax.lax.scan(forward, start, xs)
    identity = jnp.eye(len(start), dtype=start.dtype)
    _, norms = jax.lax.scan(backward, identity, (states, xs), reverse=True)
    return norms[::-1]
