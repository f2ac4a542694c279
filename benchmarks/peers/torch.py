"""PyTorch, eager: oneDNN or its own loops on a CPU, cuDNN on a GPU."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..workload import Answer, Data, Workload
from .layout import dense_only, join_gates, recurrent_bias
from .peer import Program, gradients

MODULES = {"elman": "RNN", "gru": "GRU", "lstm": "LSTM"}


@dataclasses.dataclass(frozen=True)
class Torch:
    """`torch.nn.RNN`, `GRU` or `LSTM`, forward under `torch.no_grad()`.

    Args:
        name: as tables show it.
        precision: on a GPU "float32" (every product exact to float32), "tf32", "float16" or "bfloat16", whatever the
            workload's dtype; None is for a CPU, in the workload's dtype.
    """

    name: str = "torch"
    precision: str | None = None
    package: str = "torch"

    def lacks(self, workload: Workload, platform: str) -> str | None:
        """Other platforms, and heads."""
        needed = "cpu" if self.precision is None else "gpu"
        return f"needs a {needed.upper()}" if platform != needed else dense_only(workload)

    def equation(self, workload: Workload) -> str | None:
        """The workload's."""
        return None

    def make(self, workload: Workload, data: Data) -> Program:
        """Move weights and inputs; nothing is compiled."""
        import torch

        params = jax.tree.map(jnp.asarray, data.params)
        dtype = getattr(torch, {None: workload.dtype, "tf32": "float32"}.get(self.precision, self.precision))
        place = {"device": "cpu" if self.precision is None else "cuda", "dtype": dtype}
        module = getattr(torch.nn, MODULES[workload.cell])(workload.inputs, workload.hidden)
        module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in convert(params).items()})
        module.to(**place)
        xs = torch.from_numpy(np.array(data.xs)).to(**place).requires_grad_(workload.gradient)

        def call() -> Any:
            self.set_precision()
            result = (backward if workload.gradient else forward)(module, xs)
            if self.precision is not None:
                torch.cuda.synchronize()
            return result

        def answer(result: Any) -> Answer:
            if not workload.gradient:
                return Answer(ys=to_array(result))
            dweights, dxs = result
            return gradients(convert, params, {n: jnp.asarray(to_array(d)) for n, d in dweights.items()}, to_array(dxs))

        return Program(call, answer)

    def set_precision(self) -> None:
        """Allow TF32 or forbid it: the setting is the process's, so each call makes its own."""
        import torch

        if self.precision is not None:
            allowed = "tf32" if self.precision == "tf32" else "ieee"
            torch.backends.cudnn.rnn.fp32_precision = allowed
            torch.backends.cuda.matmul.fp32_precision = allowed


def convert(params: Any) -> dict[str, jax.Array]:
    """Return the weights under torch's names; the gates are in our order."""
    biases = {"bias_ih_l0": params.b.ravel(), "bias_hh_l0": recurrent_bias(params).ravel()}
    return {"weight_ih_l0": join_gates(params.w_x), "weight_hh_l0": join_gates(params.w_h), **biases}


def forward(module: Any, xs: Any) -> Any:
    """Return the outputs."""
    import torch

    with torch.no_grad():
        return module(xs)[0]


def backward(module: Any, xs: Any) -> Any:
    """Return the gradients for the weights, by name, and for the inputs."""
    module.zero_grad(set_to_none=True)
    xs.grad = None
    module(xs)[0].square().sum().backward()
    return {name: weight.grad for name, weight in module.named_parameters()}, xs.grad


def to_array(tensor: Any) -> Any:
    """Return a tensor as numpy in float32."""
    return tensor.detach().float().cpu().numpy()


TORCH = (
    Torch(),
    Torch("torch float32", "float32"),
    Torch("torch TF32", "tf32"),
    Torch("torch float16", "float16"),
    Torch("torch bfloat16", "bfloat16"),
)
