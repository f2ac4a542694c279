"""Keras 3 on JAX; batch-major."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from ..workload import Data, Workload
from .layout import batch_major, dense_only
from .peer import Program

LAYERS = {"elman": "SimpleRNN", "gru": "GRU", "lstm": "LSTM"}


@dataclasses.dataclass(frozen=True)
class Keras:
    """`keras.layers.SimpleRNN`, `GRU` or `LSTM` through `stateless_call`, compiled by `jax.jit`.

    Everything is as Keras has it. On a GPU its LSTM is cuDNN's, by way of `jax.experimental.rnn`.
    """

    name: str = "keras"
    package: str = "keras"

    def lacks(self, workload: Workload, platform: str) -> str | None:
        """Heads, and where cuDNN computes the LSTM all but float32."""
        if platform == "gpu" and workload.cell == "lstm" and workload.dtype != "float32":
            return "its LSTM on a GPU is jax.experimental.rnn, which has float32 only"
        return dense_only(workload)

    def equation(self, workload: Workload) -> str | None:
        """The workload's."""
        return None

    def make(self, workload: Workload, data: Data) -> Program:
        """Compile."""
        layers = on_jax().layers
        zeros = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}
        make = getattr(layers, LAYERS[workload.cell])
        layer = make(workload.hidden, return_sequences=True, dtype=workload.dtype, **zeros)
        layer.build((workload.batch, workload.time, workload.inputs))
        rest = [variable.value for variable in layer.non_trainable_variables]

        def convert(params: Any) -> Any:
            from jaxrnn.interop.keras import keras_weights

            return keras_weights(workload.own_cell(), params)

        forward = lambda weights, xs: layer.stateless_call(weights, rest, xs)[0]
        return batch_major(workload, data, convert, forward)


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
