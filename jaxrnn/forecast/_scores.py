"""Proper scores of forecasts that are samples or quantiles."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .._core.broadcasting import broadcasting
from ._head import check_levels

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@broadcasting
def pinball(
    levels: Sequence[float], quantiles: Float[ArrayLike, "... Q"], targets: Float[ArrayLike, ...]
) -> Float[Array, "... Q"]:
    """Return the pinball loss max(p e, (p - 1) e) with the error e = target - quantile, for each level p.

    Args:
        levels: Q numbers between 0 and 1.
        quantiles: (..., Q).
        targets: (...).

    Its expectation is minimal where the quantile is that of the level.

    >>> from jaxrnn.forecast import pinball
    >>> pinball((0.1, 0.9), jnp.array([0.0, 0.0]), 1.0)
    Array([0.1, 0.9], dtype=float32)

    Reference: Koenker and Bassett, "Regression quantiles", 1978.
    """
    levels = check_levels(levels)
    quantiles, targets = jnp.asarray(quantiles), jnp.asarray(targets)
    if quantiles.shape != (*targets.shape, len(levels)):
        raise ValueError(
            f"{len(levels)} levels and targets {targets.shape} need quantiles {(*targets.shape, len(levels))}; got "
            f"{quantiles.shape}"
        )
    p, error = jnp.asarray(levels, quantiles.dtype), targets[..., None] - quantiles
    return jnp.maximum(p * error, (p - 1) * error)


@broadcasting
def crps_from_quantiles(
    levels: Sequence[float], quantiles: Float[ArrayLike, "... Q"], targets: Float[ArrayLike, ...]
) -> Float[Array, ...]:
    """Return the continuous ranked probability score of a forecast of quantiles: twice the pinball loss over levels.

    The score is twice the integral of the pinball loss over all levels from 0 to 1. Here each level stands for the
    levels that are nearest to it, so the sum is exact for many evenly spaced levels.

    Args:
        levels: Q ascending numbers between 0 and 1.
        quantiles: (..., Q).
        targets: (...).

    >>> from jaxrnn.forecast import crps_from_quantiles
    >>> levels = [(i + 0.5) / 1000 for i in range(1000)]
    >>> round(float(crps_from_quantiles(levels, jax.scipy.stats.norm.ppf(jnp.array(levels)), 0.0)), 3)
    0.234

    Reference: Gneiting and Ranjan, "Comparing density forecasts using threshold- and quantile-weighted scoring rules",
    2011, section 2.
    """
    levels = check_levels(levels)
    if list(levels) != sorted(set(levels)):
        raise ValueError(f"levels must be ascending; got {levels}")
    bounds = [0.0, *((a + b) / 2 for a, b in itertools.pairwise(levels)), 1.0]
    losses = pinball(levels, quantiles, targets)
    widths = [b - a for a, b in itertools.pairwise(bounds)]
    return 2 * losses @ jnp.asarray(widths, losses.dtype)


@broadcasting
def crps_from_samples(samples: Float[ArrayLike, "N ..."], targets: Float[ArrayLike, ...]) -> Float[Array, ...]:
    """Return the continuous ranked probability score of a forecast of N samples: E|x - target| - E|x - x'| / 2.

    The second mean is over the N (N - 1) pairs of different samples, so the estimate has no bias. It takes N log N
    steps, since the samples are sorted.

    Args:
        samples: (N, ...), at least 2.
        targets: (...).

    >>> from jaxrnn.forecast import crps_from_samples
    >>> crps_from_samples(jnp.array([0.0, 1.0]), 0.0)
    Array(0., dtype=float32)

    Reference: Gneiting and Raftery, "Strictly proper scoring rules, prediction, and estimation", 2007, eq. 21; the
    estimate: Zamo and Naveau, "Estimation of the continuous ranked probability score with limited information", 2018.
    """
    samples, targets = jnp.asarray(samples), jnp.asarray(targets)
    if samples.ndim == 0 or samples.shape[1:] != targets.shape or len(samples) < 2:
        raise ValueError(
            f"targets {targets.shape} need two samples or more of each, (N, {str(targets.shape)[1:]}; got "
            f"{samples.shape}"
        )
    count = len(samples)
    ranks = jnp.asarray([(2 * i + 1 - count) / (count * (count - 1)) for i in range(count)], samples.dtype)
    half_difference = jnp.tensordot(ranks, jnp.sort(samples, axis=0), 1, precision=jax.lax.Precision.HIGHEST)
    return jnp.abs(samples - targets).mean(axis=0) - half_difference
