"""Keras 3 on JAX: `SimpleRNN`, `GRU` or `LSTM` through `stateless_call`, compiled by `jax.jit`; batch-major.

Everything is as Keras has it. On a GPU its LSTM is cuDNN's, by way of `jax.experimental.rnn`.
"""

from __future__ import annotations

import os
from typing import Any

from ..workload import Data, Workload
from .peer import Program, batch_major

LAYERS = {"elman": "SimpleRNN", "gru": "GRU", "lstm": "LSTM"}


def unsupported_on_gpu(workload: Workload, platform: str) -> str | None:
    """Return the reason where cuDNN would compute an LSTM in another dtype than float32."""
    if platform == "gpu" and workload.cell == "lstm" and workload.dtype != "float32":
        return "its LSTM on a GPU is jax.experimental.rnn, which has float32 only"
    return None


def make(workload: Workload, data: Data) -> Program:
    """Compile."""
    zeros = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}
    layer_type = getattr(on_jax().layers, LAYERS[workload.cell])
    layer = layer_type(workload.hidden, return_sequences=True, dtype=workload.dtype, **zeros)
    layer.build((workload.batch, workload.time, workload.inputs))
    rest = [variable.value for variable in layer.non_trainable_variables]

    def convert(params: Any) -> Any:
        from jaxrnn.interop.keras import keras_weights

        return keras_weights(workload.own_cell(), params)

    return batch_major(workload, data, convert, lambda weights, xs: layer.stateless_call(weights, rest, xs)[0])


def on_jax() -> Any:
    """Import Keras with its JAX backend."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    if keras.backend.backend() != "jax":
        raise ValueError(
            f"Keras runs on {keras.backend.backend()}, and it is measured on jax. Set KERAS_BACKEND=jax before Python "
            "starts, or leave it unset and import nothing that imports keras before."
        )
    return keras
