"""Forecasts to beat: the last period again, and a linear map of the last hours."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrnn.model import ridge_readout

from .segment_forecaster import HORIZON, Predict
from .series import Data, windows


def repeat(period: int) -> Predict:
    """Return the seasonal naive forecast: the last period again."""
    return lambda past: jnp.resize(past[-period:], (HORIZON, *past.shape[1:]))[..., None]


def fit_linear(data: Data, hours: int, penalty: float) -> Predict:
    """Return the linear map of the last hours, less the last value, by ridge regression; all columns share it."""
    seen = windows(data.series, jnp.arange(data.train - hours - HORIZON + 1), hours + HORIZON)
    seen = jnp.moveaxis(seen - seen[hours - 1], 0, -1)
    v, c = ridge_readout(seen[..., :hours], seen[..., hours:], regularization=penalty)

    def predict(past: jax.Array) -> jax.Array:
        change = jnp.moveaxis(past[-hours:] - past[-1], 0, -1) @ v + c
        return (jnp.moveaxis(change, -1, 0) + past[-1])[..., None]

    return predict
