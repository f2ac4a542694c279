"""The Gaussian head."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jax.typing import ArrayLike

from .._core.broadcasting import broadcasting
from .._core.fields import Checked, convert, positive
from .._core.types import Key
from ._head import check_levels, check_outputs, check_targets, located
from ._scaling import Scale

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class Gaussian(metaclass=Checked):
    """A normal distribution: of the outputs (o_1, o_2), μ = o_1 and σ = min_scale + softplus(o_2).

    With a scale, the number is loc + scale * z, z from that distribution.

    Args:
        min_scale: the least σ, above 0.

    >>> from jaxrnn.forecast import Gaussian
    >>> head, outputs = Gaussian(), jnp.array([1.0, 0.5413])  # μ = 1, σ = 1
    >>> head.quantiles(outputs, (0.025, 0.5, 0.975)).round(2)
    Array([-0.96,  1.  ,  2.96], dtype=float32)
    >>> round(float(head.crps(outputs, 1.0)), 3)
    0.234

    References: Salinas et al., "DeepAR: Probabilistic forecasting with autoregressive recurrent networks", 2020,
    section 3.1; the score: Gneiting and Raftery, "Strictly proper scoring rules, prediction, and estimation", 2007,
    section 4.2.
    """

    min_scale: float = 1e-4
    features = 2

    def __check_init__(self) -> None:
        """Check the least scale."""
        convert(self, min_scale=positive)

    def loss(
        self, outputs: Float[Array, "... 2"], targets: Float[ArrayLike, ...], scale: Scale | None = None
    ) -> Float[Array, ...]:
        """Return the negative log likelihood (...) of targets (...), in nats."""
        outputs, targets = check_targets(self, outputs, targets)
        return -norm.logpdf(targets, *self._parameters(outputs, scale))

    def mean(self, outputs: Float[Array, "... 2"], scale: Scale | None = None) -> Float[Array, ...]:
        """Return the mean (...)."""
        return self._parameters(check_outputs(self, outputs), scale)[0]

    def quantiles(
        self, outputs: Float[Array, "... 2"], levels: Sequence[float], scale: Scale | None = None
    ) -> Float[Array, "... Q"]:
        """Return the quantiles (..., Q) of Q levels between 0 and 1."""
        mu, sigma = self._parameters(check_outputs(self, outputs), scale)
        return jnp.stack([mu + sigma * norm.ppf(level).astype(mu.dtype) for level in check_levels(levels)], axis=-1)

    def sample(self, outputs: Float[Array, "... 2"], key: Key, scale: Scale | None = None) -> Float[Array, ...]:
        """Draw one number (...) from each distribution."""
        mu, sigma = self._parameters(check_outputs(self, outputs), scale)
        return mu + sigma * jax.random.normal(key, mu.shape, mu.dtype)

    def crps(
        self, outputs: Float[Array, "... 2"], targets: Float[ArrayLike, ...], scale: Scale | None = None
    ) -> Float[Array, ...]:
        """Return σ (z (2 Φ(z) - 1) + 2 φ(z) - 1 / sqrt(π)), z = (target - μ) / σ. It may be a loss too."""
        outputs, targets = check_targets(self, outputs, targets)
        mu, sigma = self._parameters(outputs, scale)
        z = (targets - mu) / sigma
        return sigma * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / math.sqrt(math.pi))

    @broadcasting
    def _parameters(self, outputs: jax.Array, scale: Scale | None) -> tuple[jax.Array, jax.Array]:
        """Return μ and σ in the units of the series."""
        loc, unit = located(scale, outputs)
        return loc + unit * outputs[..., 0], unit * (self.min_scale + jax.nn.softplus(outputs[..., 1]))
