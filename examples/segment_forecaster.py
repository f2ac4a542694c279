"""A recurrent network over segments of a series, whose outputs are quantiles.

Lin et al., "SegRNN: Segment recurrent neural network for long-term time series forecasting", 2023
(https://arxiv.org/abs/2308.11200); the linear part: Lai et al., "Modeling long- and short-term temporal patterns with
deep neural networks", 2018.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxrnn import GRU, Dropout, Linear, Stack, unroll
from jaxrnn.forecast import Forecast, LastValue, Quantiles

HORIZON = 96
HEAD = Quantiles((0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975))
Predict: TypeAlias = Callable[[jax.Array], jax.Array]
"""From the past (L, B, C) to quantiles (N, B, C, Q)."""


@dataclasses.dataclass(frozen=True)
class SegmentForecaster:
    """A GRU over segments of S steps of each column, and one more step of it for each segment of the forecast.

    A linear map of the last hours, the same for all columns and quantiles, is added to the outputs.

    Args:
        columns: C.
        linear: the last hours that the linear map takes; 0 for none.
        segment: S, a divisor of the past L and of the horizon N.
        hidden: H, even.
        dropout: of the outputs of the GRU.
    """

    columns: int
    linear: int
    segment: int
    hidden: int
    dropout: float

    @property
    def encoder(self) -> Stack:
        """Return the layers that read the segments of the past (L / S, B, C, S)."""
        return Stack((Linear(self.hidden, activation="relu"), GRU(self.hidden)))

    @property
    def readout(self) -> Stack:
        """Return the layers that make a segment of the forecast."""
        return Stack((Dropout(self.dropout), Linear(self.segment * HEAD.features)))

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Draw the params."""
        keys = jax.random.split(key, 4)
        embed = lambda k, count: 0.5 * jax.random.normal(k, (count, self.hidden // 2))
        positions, columns = embed(keys[0], HORIZON // self.segment), embed(keys[1], self.columns)
        encoder, readout = self.encoder.init(keys[2], self.segment), self.readout.init(keys[3], self.hidden)
        linear = jnp.zeros((HORIZON, self.linear))
        return {"positions": positions, "columns": columns, "encoder": encoder, "readout": readout, "linear": linear}

    def __call__(self, params: dict[str, Any], past: jax.Array, key: jax.Array | None = None) -> Forecast:
        """Return the quantiles (N, B, C, Q) after the past (L, B, C), and the scale; a key draws dropout."""
        (_, batch, columns), scale = past.shape, LastValue()(past)
        past = scale.normalize(past)
        segments = past.reshape(-1, self.segment, batch, columns)
        (_, h), _ = unroll(self.encoder, params["encoder"], jnp.moveaxis(segments, 1, -1))
        shape = HORIZON // self.segment, batch, columns
        embedded = params["positions"][:, None, None], params["columns"]
        xs = jnp.concatenate([jnp.broadcast_to(e, (*shape, self.hidden // 2)) for e in embedded], axis=-1)
        h = jnp.broadcast_to(h, (*shape, self.hidden))
        _, ys = self.encoder.layers[1].step(params["encoder"][1], h, xs)
        state = self.readout.initial_state(params["readout"], shape)
        _, outputs = self.readout.step(params["readout"], state, ys, key=key)
        outputs = jnp.moveaxis(outputs.reshape(*shape, self.segment, HEAD.features), 3, 1)
        outputs = outputs.reshape(HORIZON, batch, columns, HEAD.features)
        linear = jnp.tensordot(params["linear"], past[len(past) - self.linear :], 1)
        return Forecast(outputs + linear[..., None], scale)

    def quantiles(self, params: dict[str, Any]) -> Predict:
        """Return the forecast as a function of the past."""

        def predict(past: jax.Array) -> jax.Array:
            outputs, scale = self(params, past)
            return HEAD.quantiles(outputs, HEAD.levels, scale)

        return predict
