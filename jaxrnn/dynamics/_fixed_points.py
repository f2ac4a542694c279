"""Fixed points and slow points of a step with a constant input."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .._core.cell import Cell
from .._core.fields import count, positive, size
from .._core.types import Inputs, Params, State
from ._jacobians import Spectrum, jacobians, spectrum
from ._state_space import step_map, to_vector, velocities

if TYPE_CHECKING:
    from jaxtyping import Float

DAMPING = tuple(0.5**i for i in range(7))
"""The fractions of a Newton step that are tried."""


class FixedPoints(NamedTuple):
    """P points of the state space, the slowest first.

    Attributes:
        points: vectors; `from_vector` makes states of them.
        speeds: |F(h) - h|, a step.
        jacobians: ∂F / ∂h at the points.
        spectrum: their eigenvalues, time constants, frequencies and stability.
    """

    points: Float[np.ndarray, "P n"]
    speeds: Float[np.ndarray, " P"]
    jacobians: Float[np.ndarray, "P n n"]
    spectrum: Spectrum


class Found(NamedTuple):
    """What a search found: fixed points, and slow points apart, where the speed is small and not zero."""

    fixed: FixedPoints
    slow: FixedPoints


def fixed_points(
    cell: Cell,
    params: Params,
    x: Inputs,
    candidates: State,
    *,
    steps: int = 1000,
    optimizer: optax.GradientTransformation | None = None,
    newton_steps: int = 30,
    tolerance: float | None = None,
    slow: float = 1e-3,
    distance: float = 1e-2,
    outlier: float = 10.0,
    batch_size: int = 256,
) -> Found:
    """Return the fixed points h = F(h) of a step with a constant input, and its slow points.

    From every candidate Adam descends q(h) = |F(h) - h|² / 2, and damped Newton steps on F(h) - h finish what is near a
    zero. Duplicates are removed, and points far from all candidates, where a network was never seen.

    Args:
        cell: a cell or composite with a `step`.
        params: its params.
        x: the input (D,), or a pytree, the same at every step.
        candidates: states to start from, each leaf (P, ...): states of a trajectory, with noise.
        steps: of the optimizer. 0 leaves the search to Newton.
        optimizer: an Optax optimizer; None for Adam with a rate from 0.1 to 0 along a cosine, clipped by norm.
        newton_steps: the most Newton steps.
        tolerance: a fixed point has a smaller speed |F(h) - h|; None for 10 ε √n, with ε of the dtype.
        slow: a slow point, where q is smallest nearby, has a speed below this.
        distance: points closer than this are one.
        outlier: points farther from the mean of the candidates than this times their mean distance are removed.
        batch_size: the candidates computed at a time, to bound the memory (batch_size, n, n).

    >>> class Bistable(NamedTuple):
    ...     def init(self, key, in_dim): return ()
    ...     def initial_state(self, params, batch=()): return jnp.zeros((*batch, 1))
    ...     def step(self, params, h, x): return (jnp.tanh(1.5 * h),) * 2
    >>> found = fixed_points(Bistable(), (), jnp.zeros(1), jnp.linspace(-2, 2, 20)[:, None]).fixed
    >>> sorted((1e4 * found.points[:, 0]).round().astype(int).tolist()), sorted(found.spectrum.stable.tolist())
    ([-8586, 0, 8586], [False, True, True])

    Raises:
        ValueError: for candidates that are no states (P, ...) of the cell, and for arguments of another kind.

    References: Sussillo and Barak, "Opening the black box: low-dimensional dynamics in high-dimensional recurrent
    neural networks", Neural Computation 25, 2013, section 2; Golub and Sussillo, "FixedPointFinder", JOSS 3, 2018.
    """
    starts = to_vector(cell, params, candidates)
    if starts.ndim != 2 or not len(starts):
        raise ValueError(f"candidates are states with one batch axis, each leaf (P, ...); got vectors {starts.shape}")
    eps = float(jnp.finfo(starts.dtype).eps)
    tolerance = 10 * eps * math.sqrt(starts.shape[1]) if tolerance is None else positive(tolerance, "tolerance")
    for name, given in (("slow", slow), ("distance", distance), ("outlier", outlier)):
        positive(given, name)
    sizes = count(steps, "steps"), count(newton_steps, "newton_steps"), size(batch_size, "batch_size")
    basins, points = _search(cell, params, x, starts, optimizer, tolerance, *sizes)
    speed = lambda points: np.linalg.norm(velocities(cell, params, x, points), axis=-1)
    near = functools.partial(_unique, starts=np.asarray(starts), distance=distance, outlier=outlier)
    fixed = near(np.asarray(points), speed(points), tolerance)
    others = near(np.asarray(basins), speed(basins), slow)
    others = others[_distances(others, fixed).min(axis=1, initial=np.inf) > distance]
    describe = lambda h: _describe(h, speed(h), jacobians(cell, params, jnp.asarray(h), x).state)
    return Found(describe(fixed), describe(others))


@functools.partial(jax.jit, static_argnames=("cell", "optimizer", "steps", "newton_steps", "batch_size"))
def _search(
    cell: Cell,
    params: Params,
    x: Inputs,
    starts: jax.Array,
    optimizer: optax.GradientTransformation | None,
    tolerance: float,
    steps: int,
    newton_steps: int,
    batch_size: int,
) -> tuple[jax.Array, jax.Array]:
    """Return what the optimizer reaches from each candidate, and what Newton makes of it, each (P, n)."""
    step = step_map(cell, params)
    residual = lambda h: step(h, x) - h
    rate = optax.cosine_decay_schedule(0.1, max(steps, 1))
    optimizer = optimizer or optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    def descend(h: jax.Array) -> jax.Array:
        def body(_: int, carry: tuple[jax.Array, optax.OptState]) -> tuple[jax.Array, optax.OptState]:
            h, opt_state = carry
            updates, opt_state = optimizer.update(jax.grad(lambda h: (residual(h) ** 2).sum() / 2)(h), opt_state, h)
            return h + updates, opt_state

        return jax.lax.fori_loop(0, steps, body, (h, optimizer.init(h)))[0]

    def search(h: jax.Array) -> tuple[jax.Array, jax.Array]:
        basin = descend(h)
        return basin, _newton(residual, basin, tolerance, newton_steps)

    basins, points = jax.lax.map(search, starts, batch_size=min(batch_size, len(starts)))
    return basins, points


def _newton(residual: Callable[[jax.Array], jax.Array], h: jax.Array, tolerance: float, steps: int) -> jax.Array:
    """Return a zero of `residual` near h, or the last point: each step is the fraction that reduces it most."""
    fractions = jnp.asarray(DAMPING, h.dtype)
    norm = lambda h: jnp.linalg.norm(residual(h))

    def go_on(carry: tuple[jax.Array, jax.Array, jax.Array, int]) -> jax.Array:
        _, size, improved, i = carry
        return (i < steps) & improved & (size > 0.1 * tolerance)

    def body(carry: tuple[jax.Array, jax.Array, jax.Array, int]) -> tuple[jax.Array, jax.Array, jax.Array, int]:
        h, size, _, i = carry
        move = jnp.linalg.solve(jax.jacfwd(residual)(h), -residual(h))
        tried = h + fractions[:, None] * move
        sizes = jax.vmap(norm)(tried)
        sizes = jnp.where(jnp.isfinite(sizes), sizes, jnp.inf)
        best = jnp.argmin(sizes)
        improved = sizes[best] < size
        return jnp.where(improved, tried[best], h), jnp.minimum(sizes[best], size), improved, i + 1

    return jax.lax.while_loop(go_on, body, (h, norm(h), jnp.array(True), 0))[0]


def _unique(
    points: np.ndarray, speeds: np.ndarray, bound: float, *, starts: np.ndarray, distance: float, outlier: float
) -> np.ndarray:
    """Return the points with a speed below a bound that are near the candidates, the slowest first, each once."""
    center = starts.mean(axis=0)
    far = outlier * max(float(np.linalg.norm(starts - center, axis=-1).mean()), distance)
    near = (speeds <= bound) & (np.linalg.norm(points - center, axis=-1) <= far)
    order = np.argsort(speeds[near], kind="stable")
    kept = points[:0]
    for point in points[near][order]:
        if (np.linalg.norm(kept - point, axis=-1) > distance).all():
            kept = np.concatenate([kept, point[None]])
    return kept


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a[:, None] - b[None], axis=-1)


def _describe(points: np.ndarray, speeds: np.ndarray, at: jax.Array) -> FixedPoints:
    return FixedPoints(points, speeds, np.asarray(at), spectrum(at))
