"""The head of Student's t distribution, for heavy tails."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.scipy.special import betainc, betaln
from jax.scipy.stats import norm
from jax.typing import ArrayLike

from .._core.broadcasting import broadcasting
from .._core.fields import Checked, convert, number, positive, show
from .._core.types import Key
from ._head import check_levels, check_outputs, check_targets, located
from ._scaling import Scale

if TYPE_CHECKING:
    from jaxtyping import Array, Float

BISECTIONS = 40  # of an interval of at most some thousand scales: below the rounding of float32

MANY = 200.0  # degrees of freedom; the approximation errs by 2e-6 there, and less above


@dataclasses.dataclass(frozen=True)
class StudentT(metaclass=Checked):
    """Student's t: of the outputs, μ = o_1, σ = min_scale + softplus(o_2), ν = min_df + softplus(o_3) > 2.

    The number is μ + σ z, with z of ν degrees of freedom; its variance is σ² ν / (ν - 2). With a scale, it is
    loc + scale * (μ + σ z).

    Args:
        min_scale: the least σ, above 0.
        min_df: the least ν, above 2, so that the variance is finite.

    Quantiles and the score have no derivative by ν, which JAX reports as an error; `loss` has all derivatives.

    >>> from jaxrnn.forecast import StudentT
    >>> head, outputs = StudentT(), jnp.array([0.0, 0.5413, 1.85])  # μ = 0, σ = 1, ν = 4.1
    >>> head.quantiles(outputs, (0.025, 0.5)).round(2) + 0.0
    Array([-2.75,  0.  ], dtype=float32)

    References: Alexandrov et al., "GluonTS: Probabilistic and neural time series modeling in Python", 2020; the score:
    Jordan, Krüger and Lerch, "Evaluating probabilistic forecasts with scoringRules", 2019, appendix A.
    """

    min_scale: float = 1e-4
    min_df: float = 2.1
    features = 3

    def __check_init__(self) -> None:
        """Check the bounds."""
        convert(self, min_scale=positive, min_df=number)
        if self.min_df <= 2:
            raise ValueError(f"StudentT.min_df must be above 2, where the variance is finite; got {show(self.min_df)}")

    def loss(
        self, outputs: Float[Array, "... 3"], targets: Float[ArrayLike, ...], scale: Scale | None = None
    ) -> Float[Array, ...]:
        """Return the negative log likelihood (...) of targets (...), in nats."""
        outputs, targets = check_targets(self, outputs, targets)
        mu, sigma, df = self._parameters(outputs, scale)
        return jnp.log(sigma) - _log_density((targets - mu) / sigma, df)

    def mean(self, outputs: Float[Array, "... 3"], scale: Scale | None = None) -> Float[Array, ...]:
        """Return the mean (...)."""
        return self._parameters(check_outputs(self, outputs), scale)[0]

    def quantiles(
        self, outputs: Float[Array, "... 3"], levels: Sequence[float], scale: Scale | None = None
    ) -> Float[Array, "... Q"]:
        """Return the quantiles (..., Q) of Q levels between 0 and 1, by bisection of the distribution function."""
        mu, sigma, df = self._parameters(check_outputs(self, outputs), scale)
        return jnp.stack([mu + sigma * _quantile(df, level) for level in check_levels(levels)], axis=-1)

    def sample(self, outputs: Float[Array, "... 3"], key: Key, scale: Scale | None = None) -> Float[Array, ...]:
        """Draw one number (...) from each distribution."""
        mu, sigma, df = self._parameters(check_outputs(self, outputs), scale)
        return mu + sigma * jax.random.t(key, df, mu.shape, mu.dtype)

    def crps(
        self, outputs: Float[Array, "... 3"], targets: Float[ArrayLike, ...], scale: Scale | None = None
    ) -> Float[Array, ...]:
        """Return the score (...) in closed form, from the density f and the distribution function F of z.

        σ (z (2 F(z) - 1) + 2 f(z) (ν + z²) / (ν - 1) - 2 sqrt(ν) / (ν - 1) B(1/2, ν - 1/2) / B(1/2, ν/2)²) with
        z = (target - μ) / σ and the beta function B.
        """
        outputs, targets = check_targets(self, outputs, targets)
        mu, sigma, df = self._parameters(outputs, scale)
        z, half = (targets - mu) / sigma, jnp.full_like(df, 0.5)
        spread = jnp.exp(betaln(half, df - 0.5) - 2 * betaln(half, df / 2))
        tail = 2 * jnp.exp(_log_density(z, df)) * (df + z**2) / (df - 1)
        return sigma * (z * (2 * _cdf(z, df) - 1) + tail - 2 * jnp.sqrt(df) / (df - 1) * spread)

    @broadcasting
    def _parameters(self, outputs: jax.Array, scale: Scale | None) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return μ and σ in the units of the series, and ν."""
        loc, unit = located(scale, outputs)
        sigma = self.min_scale + jax.nn.softplus(outputs[..., 1])
        return loc + unit * outputs[..., 0], unit * sigma, self.min_df + jax.nn.softplus(outputs[..., 2])


def _log_density(z: jax.Array, df: jax.Array) -> jax.Array:
    """Return the log density of z; by the beta function, which float32 rounds less than `jax.scipy.stats.t` does."""
    return -betaln(jnp.full_like(df, 0.5), df / 2) - 0.5 * jnp.log(df) - 0.5 * (df + 1) * jnp.log1p(z**2 / df)


def _cdf(z: jax.Array, df: jax.Array) -> jax.Array:
    """Return the distribution function of z; for many degrees of freedom, where float32 rounds `betainc` much, nearly.

    The approximation is eq. 26.7.8 of Abramowitz and Stegun, "Handbook of mathematical functions", 1964.
    """
    inside = betainc(jnp.full_like(df, 0.5), df / 2, z**2 / (df + z**2))  # of the interval from -|z| to |z|
    nearly_normal = norm.cdf(z * (1 - 1 / (4 * df)) / jnp.sqrt(1 + z**2 / (2 * df)))
    return jnp.where(df > MANY, nearly_normal, 0.5 + 0.5 * jnp.sign(z) * inside)


def _quantile(df: jax.Array, level: float) -> jax.Array:
    """Return the quantile of z. Cantelli's inequality bounds it by the standard deviation."""
    odds = max(level, 1 - level) / min(level, 1 - level)
    bound = jnp.sqrt(df / (df - 2)) * math.sqrt(odds)

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        below = _cdf(middle, df) < level
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (-bound, bound))
    return (low + high) / 2
