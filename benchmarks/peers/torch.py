"""PyTorch, eager: oneDNN or its own loops on a CPU, cuDNN on a GPU."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..workload import Answer, Data, Workload
from .peer import Peer, Program, Supports, gradients, join_gates

MODULES = {"elman": "RNN", "gru": "GRU", "lstm": "LSTM"}


def make(precision: str | None, workload: Workload, data: Data) -> Program:
    """Prepare `torch.nn.RNN`, `GRU` or `LSTM`, forward under `torch.no_grad()`; nothing is compiled.

    `precision` is for a GPU "float32" (every product exact to float32), "tf32", "float16" or "bfloat16", whatever the
    workload's dtype; None is for a CPU, in the workload's dtype.
    """
    import torch

    params = jax.tree.map(jnp.asarray, data.params)
    dtype = getattr(torch, {None: workload.dtype, "tf32": "float32"}.get(precision, precision))
    place = {"device": "cpu" if precision is None else "cuda", "dtype": dtype}
    module = getattr(torch.nn, MODULES[workload.cell])(workload.inputs, workload.hidden)
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in convert(params).items()})
    module.to(**place)
    xs = torch.from_numpy(np.array(data.xs)).to(**place).requires_grad_(workload.gradient)

    def call() -> Any:
        if precision is not None:  # the setting is the process's, so each call makes its own
            allowed = "tf32" if precision == "tf32" else "ieee"
            torch.backends.cudnn.rnn.fp32_precision = allowed
            torch.backends.cuda.matmul.fp32_precision = allowed
        result = (backward if workload.gradient else forward)(module, xs)
        if precision is not None:
            torch.cuda.synchronize()
        return result

    def answer(result: Any) -> Answer:
        if not workload.gradient:
            return Answer(ys=to_array(result))
        dweights, dxs = result
        return gradients(convert, params, {n: jnp.asarray(to_array(d)) for n, d in dweights.items()}, to_array(dxs))

    return Program(call, answer)


def convert(params: Any) -> dict[str, jax.Array]:
    """Return the weights under torch's names; the gates are in jaxrnn's order, and a GRU has b_hn."""
    b_hh = jnp.zeros_like(params.b)
    b_hh = b_hh if isinstance(params.local, tuple) else b_hh.at[2].set(params.local)
    biases = {"bias_ih_l0": params.b.ravel(), "bias_hh_l0": b_hh.ravel()}
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


PRECISIONS = {
    "torch": None,
    "torch float32": "float32",
    "torch TF32": "tf32",
    "torch float16": "float16",
    "torch bfloat16": "bfloat16",
}
TORCH = tuple(
    Peer(name, "torch", functools.partial(make, precision), Supports(("gpu",) if precision else ("cpu",)))
    for name, precision in PRECISIONS.items()
)
