"""Quantile regression: the head without a family of distributions."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .._core.broadcasting import broadcasting
from .._core.fields import Checked, show
from .._core.types import Key
from ._head import check_levels, check_outputs, check_targets, located
from ._scaling import Scale
from ._scores import crps_from_quantiles, pinball

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class Quantiles(metaclass=Checked):
    """The quantiles of some levels, one output for each: quantile regression.

    The loss is the mean over the levels of the pinball loss, whose minimum is the quantile. A network may return them
    out of order; all that is computed from them is computed from the sorted ones. Between two levels the quantile
    function is linear. Beyond the first and the last level nothing is known: other levels raise an error, and `mean`
    and `sample` take the first and the last quantile there. With a scale, a quantile is loc + scale * output.

    Args:
        levels: ascending numbers between 0 and 1.

    >>> from jaxrnn.forecast import Quantiles
    >>> head, outputs = Quantiles((0.1, 0.5, 0.9)), jnp.array([-1.0, 0.0, 3.0])
    >>> head.features, head.quantiles(outputs, (0.5, 0.7))
    (3, Array([0. , 1.5], dtype=float32))

    References: Koenker and Bassett, "Regression quantiles", 1978; Wen et al., "A multi-horizon quantile recurrent
    forecaster", 2017; the order: Chernozhukov, Fernández-Val and Galichon, Econometrica 78, 2010.
    """

    levels: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)

    def __check_init__(self) -> None:
        """Check the levels."""
        levels = check_levels(self.levels)
        if list(levels) != sorted(set(levels)):
            raise ValueError(f"Quantiles.levels must be ascending; got {show(self.levels)}")
        object.__setattr__(self, "levels", levels)

    @property
    def features(self) -> int:
        """Return the number of levels."""
        return len(self.levels)

    def loss(
        self, outputs: Float[Array, "... F"], targets: Float[ArrayLike, ...], scale: Scale | None = None
    ) -> Float[Array, ...]:
        """Return the pinball loss (...) of targets (...), the mean over the levels."""
        outputs, targets = check_targets(self, outputs, targets)
        return pinball(self.levels, self._values(outputs, scale), targets).mean(axis=-1)

    def mean(self, outputs: Float[Array, "... F"], scale: Scale | None = None) -> Float[Array, ...]:
        """Return the mean (...) of the distribution that the quantile function describes."""
        values = self._sorted(check_outputs(self, outputs), scale)
        inner = [b - a for a, b in itertools.pairwise(self.levels)]
        widths = jnp.asarray([self.levels[0], *inner, 1 - self.levels[-1]], values.dtype)
        weights = 0.5 * (widths[:-1] + widths[1:])
        return values @ weights + 0.5 * (widths[0] * values[..., 0] + widths[-1] * values[..., -1])

    def quantiles(
        self, outputs: Float[Array, "... F"], levels: Sequence[float], scale: Scale | None = None
    ) -> Float[Array, "... Q"]:
        """Return the quantiles (..., Q) of Q levels, linear between those of the head.

        Raises:
            ValueError: for levels below the first or above the last.
        """
        asked = check_levels(levels)
        if min(asked) < self.levels[0] or max(asked) > self.levels[-1]:
            raise ValueError(
                f"the head knows the levels from {self.levels[0]} to {self.levels[-1]}; got {asked}. Train a head with "
                "these levels: Quantiles(levels)."
            )
        values = self._sorted(check_outputs(self, outputs), scale)
        return self._interpolated(values, jnp.asarray(asked, values.dtype))

    def sample(self, outputs: Float[Array, "... F"], key: Key, scale: Scale | None = None) -> Float[Array, ...]:
        """Draw one number (...) from each distribution: the quantile function at a uniform random level."""
        values = self._sorted(check_outputs(self, outputs), scale)
        level = jax.random.uniform(key, (*values.shape[:-1], 1), values.dtype)
        return self._interpolated(values, jnp.clip(level, self.levels[0], self.levels[-1]))[..., 0]

    def crps(
        self, outputs: Float[Array, "... F"], targets: Float[ArrayLike, ...], scale: Scale | None = None
    ) -> Float[Array, ...]:
        """Return the score (...) as `crps_from_quantiles` estimates it from the levels of the head."""
        outputs, targets = check_targets(self, outputs, targets)
        return crps_from_quantiles(self.levels, self._sorted(outputs, scale), targets)

    @broadcasting
    def _values(self, outputs: jax.Array, scale: Scale | None) -> jax.Array:
        """Return the outputs in the units of the series."""
        loc, unit = (jnp.asarray(part)[..., None] for part in located(scale, outputs))
        return loc + unit * outputs

    def _sorted(self, outputs: jax.Array, scale: Scale | None) -> jax.Array:
        """Return the quantiles in the units of the series, in order."""
        return jnp.sort(self._values(outputs, scale), axis=-1)

    @broadcasting
    def _interpolated(self, values: jax.Array, levels: jax.Array) -> jax.Array:
        """Return the quantile function (..., Q) of sorted values (..., F) at levels (..., Q)."""
        if len(self.levels) == 1:
            return jnp.broadcast_to(values, (*values.shape[:-1], levels.shape[-1]))
        known = jnp.asarray(self.levels, values.dtype)
        right = jnp.clip(jnp.searchsorted(known, levels), 1, len(self.levels) - 1)
        part = (levels - known[right - 1]) / (known[right] - known[right - 1])
        at = jnp.broadcast_to(right, (*values.shape[:-1], right.shape[-1]))
        low, high = (jnp.take_along_axis(values, index, axis=-1) for index in (at - 1, at))
        return low + part * (high - low)
