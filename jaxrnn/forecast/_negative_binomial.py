"""The negative binomial head, for counts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc, betaln, xlog1py, xlogy
from jax.typing import ArrayLike

from .._core.broadcasting import broadcasting
from .._core.fields import Checked, convert, positive
from .._core.types import Key
from ._head import check_levels, check_outputs, check_targets
from ._scaling import Scale

if TYPE_CHECKING:
    from jaxtyping import Array, Float

BISECTIONS = 32  # of an interval of integers, which float32 counts up to 2^24
NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)


@dataclasses.dataclass(frozen=True)
class NegativeBinomial(metaclass=Checked):
    """A distribution of the counts 0, 1, ...: μ = minimum + softplus(o_1), α = minimum + softplus(o_2).

    Its mean is μ, its variance μ + α μ²; it is a Poisson distribution whose rate is drawn from a gamma distribution.
    With a scale ν of `MeanScaling`, the mean is ν μ and the dispersion α / sqrt(ν). A scale with a location, such as
    that of `Standardization`, is an error: counts begin at 0.

    Args:
        minimum: the least μ and α, above 0.

    The likelihood of a target that is no integer of at least 0 is meaningless; such targets are not detected.
    Quantiles and the score have no derivative by α, which JAX reports as an error; `loss` has all derivatives.

    >>> from jaxrnn.forecast import NegativeBinomial
    >>> head, outputs = NegativeBinomial(), jnp.array([3.0, -1.0])
    >>> head.mean(outputs).round(2), head.quantiles(outputs, (0.1, 0.5, 0.9))
    (Array(3.05, dtype=float32), Array([0., 3., 6.], dtype=float32))

    References: Salinas et al., "DeepAR: Probabilistic forecasting with autoregressive recurrent networks", 2020,
    sections 3.1 and 3.3; the score: Wei and Held, "Calibration tests for count data", 2014.
    """

    minimum: float = 1e-4
    features = 2

    def __check_init__(self) -> None:
        """Check the bound."""
        convert(self, minimum=positive)

    def loss(
        self, outputs: Float[Array, "... 2"], targets: Float[ArrayLike, ...], scale: Scale | None = None
    ) -> Float[Array, ...]:
        """Return the negative log likelihood (...) of counts (...), in nats."""
        outputs, k = check_targets(self, outputs, targets)
        mu, alpha = self._parameters(outputs, scale)
        n, rate = 1 / alpha, alpha * mu
        choose = -betaln(n, k + 1) - jnp.log(n + k)  # of the binomial coefficient; precise for a large n
        return -(choose - xlog1py(n + k, rate) + xlogy(k, rate))

    def mean(self, outputs: Float[Array, "... 2"], scale: Scale | None = None) -> Float[Array, ...]:
        """Return the mean (...)."""
        return self._parameters(check_outputs(self, outputs), scale)[0]

    def quantiles(
        self, outputs: Float[Array, "... 2"], levels: Sequence[float], scale: Scale | None = None
    ) -> Float[Array, "... Q"]:
        """Return the quantiles (..., Q): the least count at which the distribution function reaches the level."""
        mu, alpha = self._parameters(check_outputs(self, outputs), scale)
        return jnp.stack([_quantile(mu, alpha, level) for level in check_levels(levels)], axis=-1)

    def sample(self, outputs: Float[Array, "... 2"], key: Key, scale: Scale | None = None) -> Float[Array, ...]:
        """Draw one count (...) from each distribution, as a float."""
        mu, alpha = self._parameters(check_outputs(self, outputs), scale)
        k_rate, k_count = jax.random.split(key)
        rate = mu * alpha * jax.random.gamma(k_rate, 1 / alpha, mu.shape, mu.dtype)
        return jax.random.poisson(k_count, rate, mu.shape).astype(mu.dtype)

    def crps(
        self, outputs: Float[Array, "... 2"], targets: Float[ArrayLike, ...], scale: Scale | None = None
    ) -> Float[Array, ...]:
        """Return the score (...): E|k - target| - E|k - k'| / 2, the first in closed form, the second by quadrature."""
        outputs, y = check_targets(self, outputs, targets)
        mu, alpha = self._parameters(outputs, scale)
        n = 1 / alpha
        below = jnp.where(y > 0, _cdf(y - 1, n + 1, alpha * mu), jnp.zeros_like(y))
        return y * (2 * _cdf(y, n, alpha * mu) - 1) - mu * (2 * below - 1) - _half_difference(mu, alpha)

    @broadcasting
    def _parameters(self, outputs: jax.Array, scale: Scale | None) -> tuple[jax.Array, jax.Array]:
        """Return μ and α in the units of the series."""
        mu, alpha = (self.minimum + jax.nn.softplus(outputs[..., i]) for i in range(2))
        if scale is None:
            return mu, alpha
        if scale.loc is not None:
            raise ValueError(
                "NegativeBinomial takes a scale without a location, since counts begin at 0; got one with a location. "
                "Use MeanScaling()."
            )
        unit = scale.scale.astype(mu.dtype)
        return unit * mu, alpha / jnp.sqrt(unit)


def _cdf(k: jax.Array, n: jax.Array, rate: jax.Array) -> jax.Array:
    """Return the distribution function of counts k >= 0 for the odds `rate` = α μ and n = 1 / α."""
    return 1 - betainc(k + 1, n, rate / (1 + rate))


def _quantile(mu: jax.Array, alpha: jax.Array, level: float) -> jax.Array:
    """Return the quantile. Cantelli's inequality bounds it by the standard deviation."""
    high = jnp.ceil(mu + jnp.sqrt((mu + alpha * mu**2) * level / (1 - level))) + 1

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends  # F(low) < level <= F(high)
        middle = jnp.maximum(jnp.floor((low + high) / 2), 0)
        reached = _cdf(middle, 1 / alpha, alpha * mu) >= level
        return jnp.where(reached, low, middle), jnp.where(reached, middle, high)

    return jax.lax.fori_loop(0, BISECTIONS, halve, (-jnp.ones_like(mu), high))[1]


def _half_difference(mu: jax.Array, alpha: jax.Array) -> jax.Array:
    """Return E|k - k'| / 2 = μ (1 + α μ) 2F1(1/α + 1, 1/2; 2; -w) with w = 4 α μ (1 + α μ).

    By Euler's integral 2F1 is 4/π ∫ cos²θ (1 + w sin²θ)^{-1/α - 1} dθ from 0 to π/2, and with sqrt(w) sin θ = sinh v
    that is 4 / (π sqrt(w)) ∫ cos θ cosh(v)^{-2/α - 1} dv: the peak at 0, narrow for a large w, becomes wide.
    """
    w, power = 4 * alpha * mu * (1 + alpha * mu), 2 / alpha + 1
    negligible = math.log(1e10) / power  # where log cosh v is larger, the integrand is below 1e-10
    end = jnp.minimum(jnp.arcsinh(jnp.sqrt(w)), jnp.arccosh(1 + jnp.expm1(negligible)))
    v = end[..., None] * jnp.asarray(0.5 * (NODES + 1), end.dtype)
    cosine = jnp.sqrt(jnp.maximum(1 - jnp.sinh(v) ** 2 / w[..., None], 0))
    values = cosine * jnp.exp(-power[..., None] * jnp.log(jnp.cosh(v)))
    integral = 0.5 * end * (values @ jnp.asarray(WEIGHTS, end.dtype))
    return mu * (1 + alpha * mu) * 4 / (math.pi * jnp.sqrt(w)) * integral
