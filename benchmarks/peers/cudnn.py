"""cuDNN's LSTM within JAX, `jax.experimental.rnn`: batch-major; `jax_default_matmul_precision` decides on TF32."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..workload import Data, Workload
from .peer import Program, batch_major, join_gates


def make(workload: Workload, data: Data) -> Program:
    """Compile `jax.experimental.rnn.lstm`."""
    from jax.experimental import rnn

    sizes = {"input_size": workload.inputs, "hidden_size": workload.hidden, "num_layers": 1}

    def forward(weights: jax.Array, xs: jax.Array) -> jax.Array:
        zeros = jnp.zeros((1, workload.batch, workload.hidden), xs.dtype)
        lengths = jnp.full((workload.batch,), workload.time, jnp.int32)
        return rnn.lstm(xs, zeros, zeros, weights, lengths, dropout=0.0, bidirectional=False, **sizes)[0]

    return batch_major(workload, data, packed, forward)


def packed(params: Any) -> jax.Array:
    """Return one vector: W_ih, W_hh, b_ih and b_hh, the gates in jaxrnn's order."""
    b = params.b.ravel()
    return jnp.concatenate([join_gates(params.w_x).ravel(), join_gates(params.w_h).ravel(), b, jnp.zeros_like(b)])
