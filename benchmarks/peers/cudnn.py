"""cuDNN's LSTM within JAX: `jax.experimental.rnn`; batch-major."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ..workload import Data, Workload
from .layout import batch_major, dense_only, join_gates
from .peer import Program


@dataclasses.dataclass(frozen=True)
class CuDNN:
    """`jax.experimental.rnn.lstm`; TF32 is allowed unless `jax_default_matmul_precision` says otherwise."""

    name: str = "jax.experimental.rnn"
    package: str = "jax"

    def lacks(self, workload: Workload, platform: str) -> str | None:
        """Other platforms, other cells, other dtypes, and heads."""
        if platform != "gpu":
            return "needs a GPU"
        if workload.cell != "lstm":
            return "LSTM only"
        return "float32 only" if workload.dtype != "float32" else dense_only(workload)

    def equation(self, workload: Workload) -> str | None:
        """The workload's."""
        return None

    def make(self, workload: Workload, data: Data) -> Program:
        """Compile."""
        from jax.experimental import rnn

        sizes = {"input_size": workload.inputs, "hidden_size": workload.hidden, "num_layers": 1}

        def forward(weights: jax.Array, xs: jax.Array) -> jax.Array:
            zeros = jnp.zeros((1, workload.batch, workload.hidden), xs.dtype)
            lengths = jnp.full((workload.batch,), workload.time, jnp.int32)
            return rnn.lstm(xs, zeros, zeros, weights, lengths, dropout=0.0, bidirectional=False, **sizes)[0]

        return batch_major(workload, data, packed, forward)


def packed(params: Any) -> jax.Array:
    """Return one vector: W_ih, W_hh, b_ih and b_hh, the gates in our order."""
    b = params.b.ravel()
    return jnp.concatenate([join_gates(params.w_x).ravel(), join_gates(params.w_h).ravel(), b, jnp.zeros_like(b)])
