"""Lyapunov exponents: how fast nearby trajectories come together or apart."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from .._core.cell import Cell
from .._core.fields import count, size
from .._core.types import Inputs, Params, State
from ._state_space import start_vector, step_map

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class Lyapunov(NamedTuple):
    """The first k Lyapunov exponents.

    Attributes:
        exponents: in nats a step, the largest first in the long run.
        history: their running means, after each orthonormalization that counts.
        state: the vector of the last state.
    """

    exponents: Float[Array, " k"]
    history: Float[Array, "M k"]
    state: Float[Array, " n"]


def lyapunov(
    cell: Cell,
    params: Params,
    xs: Inputs,
    state: State = None,
    *,
    k: int | None = None,
    warmup: int = 0,
    every: int = 1,
) -> Lyapunov:
    """Return the first Lyapunov exponents along the trajectory that inputs drive, by Benettin's algorithm.

    k tangent vectors Q are carried along by the Jacobians of the steps and orthonormalized, J Q = Q' R; the exponents
    are the means of ln|R_ii| a step. Differentiable, so that a loss may contain them.

    Args:
        cell: a cell or composite with a `step`.
        params: its params.
        xs: inputs (T, D), or a pytree of them, without a batch; for many sequences use `jax.vmap`.
        state: the state before the first step; None for the cell's own.
        k: the number of exponents, at most the n numbers of a state; None for all.
        warmup: the first steps, which align Q and do not count; a multiple of `every`.
        every: the steps between two orthonormalizations, a divisor of T. More than one saves time and is safe while the
            tangents of so many steps stay apart in floating point.

    >>> class Logistic(NamedTuple):
    ...     def init(self, key, in_dim): return ()
    ...     def initial_state(self, params, batch=()): return jnp.full((*batch, 1), 0.3)
    ...     def step(self, params, h, x): return (4 * h * (1 - h),) * 2
    >>> found = lyapunov(Logistic(), (), jnp.zeros((2000, 1)), warmup=100)  # ln 2 = 0.693
    >>> abs(found.exponents[0] - jnp.log(2)).item() < 0.02
    True

    Raises:
        ValueError: for a k above n, and for a number of steps that does not fit `warmup` and `every`.

    References: Benettin, Galgani, Giorgilli and Strelcyn, "Lyapunov characteristic exponents for smooth dynamical
    systems", 1980; for recurrent networks Engelken, Wolf and Abbott, "Lyapunov spectra of chaotic recurrent neural
    networks", 2023, section II (https://arxiv.org/abs/2006.02427).
    """
    start = start_vector(cell, params, state)
    steps, every = len(jax.tree.leaves(xs)[0]), size(every, "every")
    k, skipped = len(start) if k is None else size(k, "k"), count(warmup, "warmup")
    if k > len(start):
        raise ValueError(f"a state of {len(start)} numbers has {len(start)} exponents; got k={k}")
    if steps % every or skipped % every or skipped >= steps:
        raise ValueError(f"T={steps} and warmup={skipped} must be multiples of every={every}, and warmup less than T")
    return _exponents(cell, params, xs, start, k, skipped, every)


@functools.partial(jax.jit, static_argnames=("cell", "k", "warmup", "every"))
def _exponents(cell: Cell, params: Params, xs: Inputs, start: jax.Array, k: int, warmup: int, every: int) -> Lyapunov:
    """Return what `lyapunov` does, from a vector."""
    step = step_map(cell, params)

    def group(carry: tuple[jax.Array, jax.Array], xs: Inputs) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        h, q = carry
        run = lambda h: jax.lax.scan(lambda h, x: (step(h, x), None), h, xs)[0]
        new, push = jax.linearize(run, h)
        q, r = jnp.linalg.qr(jax.vmap(push, 1, 1)(q))
        return (new, q), jnp.log(jnp.abs(jnp.diagonal(r)))

    groups = jax.tree.map(lambda a: a.reshape(len(a) // every, every, *a.shape[1:]), xs)
    q = jnp.eye(len(start), k, dtype=start.dtype)
    (last, _), logs = jax.lax.scan(group, (start, q), groups)
    logs = logs[warmup // every :]
    taken: Any = every * jnp.arange(1, len(logs) + 1, dtype=logs.dtype)
    history = jnp.cumsum(logs, axis=0) / taken[:, None]
    return Lyapunov(history[-1], history, last)


def kaplan_yorke(exponents: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """Return the Kaplan-Yorke dimension: j + (λ_1 + ... + λ_j) / |λ_{j+1}|, with j the last partial sum above zero.

    Args:
        exponents: all exponents, or so many that their sum is negative. Where it is not, the dimension is their number.

    >>> kaplan_yorke(jnp.array([0.5, 0.0, -1.0])).item()
    2.5

    Reference: Kaplan and Yorke, "Chaotic behavior of multidimensional difference equations", 1979.
    """
    values = -jnp.sort(-jnp.asarray(exponents), axis=-1)
    sums = jnp.cumsum(values, axis=-1)
    above = (sums >= 0).sum(axis=-1)
    pad = [(0, 0)] * (values.ndim - 1)
    total = jnp.take_along_axis(jnp.pad(sums, [*pad, (1, 0)]), above[..., None], axis=-1)[..., 0]
    after = jnp.take_along_axis(jnp.pad(values, [*pad, (0, 1)], constant_values=-jnp.inf), above[..., None], -1)[..., 0]
    dimension: jax.Array = above + total / jnp.abs(after)
    return dimension
