"""The shape of a cloud of states, and the flow on a plane through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.cell import Cell
from .._core.fields import size
from .._core.types import Inputs, Params
from ._state_space import velocities

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class PrincipalComponents(NamedTuple):
    """The directions of the largest variance of states, orthonormal.

    Attributes:
        mean: the mean of the states.
        axes: the directions, the one of the largest variance first.
        variances: the variance along each.
        ratios: its share of the whole variance.
    """

    mean: Float[Array, " n"]
    axes: Float[Array, "k n"]
    variances: Float[Array, " k"]
    ratios: Float[Array, " k"]

    def project(self, vectors: Float[Array, "*batch n"]) -> Float[Array, "*batch k"]:
        """Return the coordinates of vectors along the axes."""
        return (jnp.asarray(vectors) - self.mean) @ self.axes.T

    def lift(self, coordinates: Float[Array, "*batch k"]) -> Float[Array, "*batch n"]:
        """Return the vectors of coordinates."""
        return self.mean + jnp.asarray(coordinates) @ self.axes


def principal_components(vectors: Float[Array, "*batch n"], k: int | None = None) -> PrincipalComponents:
    """Return the principal components of states.

    Args:
        vectors: states as vectors, with any leading axes: at least 2 of them.
        k: the number of components, at most n and the number of vectors; None for all.

    >>> points = jnp.outer(jnp.linspace(-1, 1, 9), jnp.array([3.0, 4.0]))
    >>> found = principal_components(points)
    >>> jnp.abs(found.axes[0]).round(3).tolist(), found.ratios[0].round(3).item()
    ([0.6000000238418579, 0.800000011920929], 1.0)

    Raises:
        ValueError: for fewer than 2 vectors, and for a k above what there is.
    """
    rows = _rows(vectors)
    k = min(rows.shape) if k is None else size(k, "k")
    if k > min(rows.shape):
        raise ValueError(f"{len(rows)} vectors of {rows.shape[1]} numbers have {min(rows.shape)} components; got {k=}")
    mean = rows.mean(axis=0)
    _, values, axes = jnp.linalg.svd(rows - mean, full_matrices=False)
    variances = values**2 / (len(rows) - 1)
    return PrincipalComponents(mean, axes[:k], variances[:k], variances[:k] / variances.sum())


def participation_ratio(vectors: Float[Array, "*batch n"]) -> Float[Array, ""]:
    """Return (Σ λ)² / Σ λ² of the eigenvalues of the covariance: how many dimensions a cloud of states fills, 1 to n.

    Args:
        vectors: states as vectors, with any leading axes: at least 2 of them.

    >>> participation_ratio(jax.random.normal(jax.random.key(0), (10_000, 5))).round(1).item()
    5.0

    Reference: Gao, Trautmann, Yu, Santhanam, Ryu, Shenoy and Ganguli, "A theory of multineuronal dimensionality,
    dynamics and measurement", 2017, eq. 5.
    """
    centered = _rows(vectors)
    centered = centered - centered.mean(axis=0)
    covariance = centered.T @ centered
    return jnp.trace(covariance) ** 2 / (covariance**2).sum()


class Flow(NamedTuple):
    """The flow on a plane, on a grid.

    Attributes:
        coordinates: the points of the grid, along the two axes of the plane.
        velocity: F(h) - h along them.
        speed: |F(h) - h|, what leaves the plane included.
    """

    coordinates: Float[Array, "G G 2"]
    velocity: Float[Array, "G G 2"]
    speed: Float[Array, "G G"]


def flow_field(
    cell: Cell, params: Params, x: Inputs, plane: PrincipalComponents, *, extent: float = 3.0, points: int = 25
) -> Flow:
    """Return F(h) - h for a constant input on a grid of a plane.

    Args:
        cell: a cell or composite with a `step`.
        params: its params.
        x: the input (D,), or a pytree.
        plane: two components, such as `principal_components(vectors, 2)`; for two units i and j, axes that are rows of
            the identity.
        extent: the half width of the grid along each axis, in standard deviations.
        points: G, the points along each axis.

    >>> cell, key = GRU(4), jax.random.key(0)
    >>> params, plane = cell.init(key, in_dim=3), principal_components(jax.random.normal(key, (20, 4)), 2)
    >>> flow_field(cell, params, jnp.zeros(3), plane).velocity.shape
    (25, 25, 2)

    Raises:
        ValueError: for a plane that has not two axes.
    """
    if len(plane.axes) != 2:
        raise ValueError(f"a plane has two axes; got {len(plane.axes)}. Use principal_components(vectors, 2).")
    line = jnp.linspace(-extent, extent, size(points, "points"), dtype=plane.axes.dtype)
    grid = jnp.stack(jnp.meshgrid(line, line), axis=-1) * jnp.sqrt(plane.variances)
    states = plane.lift(grid)
    velocity = velocities(cell, params, x, states.reshape(-1, states.shape[-1])).reshape(states.shape)
    return Flow(grid, velocity @ plane.axes.T, jnp.linalg.norm(velocity, axis=-1))


def _rows(vectors: jax.Array) -> jax.Array:
    vectors = jnp.asarray(vectors)
    rows = vectors.reshape(-1, vectors.shape[-1]) if vectors.ndim > 1 and vectors.size else vectors[None]
    if len(rows) < 2:
        raise ValueError(f"vectors are at least two states (*batch, n); got {vectors.shape}")
    return rows
