"""Forecasts of all steps at once."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Unpack

import jax.numpy as jnp
from jax.typing import ArrayLike

from .._core.checks import as_numbers
from .._core.fields import convert, size
from .._core.types import Key
from ._forecaster import Forecast, Forecaster, ForecasterParams, PastOptions, last_valid

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclasses.dataclass(frozen=True, kw_only=True)
class DirectForecaster(Forecaster):
    """All steps of the forecast from the last state: a cell runs over the past, one readout makes N steps.

    Args:
        cell: a cell or a composite.
        head: `Gaussian()`, `Quantiles((0.1, 0.5, 0.9))`, or another head.
        horizon: N.
        targets: K: the first K of the D features of the inputs are the targets, the others covariates.
        static: S, the number of static covariates of a series, which set the initial state; it needs a state of floats.
        scaling: of each series by its past, such as `Standardization()`; None for none.

    >>> from jaxrnn.forecast import DirectForecaster, Gaussian, Standardization, forecast_loss
    >>> forecaster = DirectForecaster(cell=GRU(8), head=Gaussian(), horizon=12, scaling=Standardization())
    >>> params = forecaster.init(jax.random.key(0), in_dim=1)
    >>> past, future = jnp.ones((30, 2, 1)), jnp.ones((12, 2, 1))
    >>> forecast = forecaster(params, past)
    >>> forecast.outputs.shape, forecast_loss(forecaster.head, forecast.outputs, future, scale=forecast.scale).shape
    ((12, 2, 1, 2), ())
    """

    horizon: int

    def __check_init__(self) -> None:
        """Check the horizon."""
        convert(self, horizon=size)

    def init(self, key: Key, in_dim: int) -> ForecasterParams:
        """Draw the params for inputs of D = `in_dim` features."""
        return self.draw_params(key, in_dim, self.horizon)

    def __call__(
        self,
        params: ForecasterParams,
        xs: Float[ArrayLike, "T *batch D"],
        *,
        key: Key | None = None,
        **options: Unpack[PastOptions],
    ) -> Forecast:
        """Return the forecast of the N steps after the past xs (T, *batch, D).

        Args:
            params: from `init`.
            xs: the targets, then the covariates.
            key: what dropout and noise are drawn from; None is deterministic.
            options: static (*batch, S), the static covariates; and lengths, mask, context, driver as for `unroll`.

        Raises:
            ValueError: for shapes that do not fit.
        """
        numbers = jnp.asarray(as_numbers("xs", xs))
        scale, _, ys = self.run(params, numbers, None, options, key)
        steps = self.outputs(params, last_valid(ys, options), self.horizon)
        return Forecast(jnp.moveaxis(steps, -3, 0), scale)
