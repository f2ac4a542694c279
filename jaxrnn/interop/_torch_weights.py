"""The weights of one torch layer in one direction, and conversion between tensors and arrays."""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._cells import GRU, LSTM, Elman, ProjectedLSTM
from .._cells.projected_lstm import ProjectedLSTMParams
from .._core.cell import GatedParams
from .._core.extras import extra
from .._core.types import Params
from ._arrays import join_gates, split_gates, to_jax_array
from ._contract import Leaf, check_params

with extra("torch"):
    import torch
    from torch import nn

TorchModule: TypeAlias = nn.RNNBase | nn.RNNCellBase

_GATES: dict[type, int] = {Elman: 1, GRU: 3, LSTM: 4, ProjectedLSTM: 4}


def read(leaf: Leaf, module: TorchModule, suffix: str) -> Params:
    """Return the params of one leaf from the weights whose names end with `suffix`."""
    gates = _GATES[type(leaf)]

    def get(name: str) -> np.ndarray:
        if name + suffix not in module._parameters:
            raise ValueError(
                f"{name + suffix} is no parameter of the {type(module).__name__}: weight_norm or pruning computes it "
                "before each call. Call torch.nn.utils.remove_weight_norm, or prune.remove, first."
            )
        return to_numpy(getattr(module, name + suffix))

    w_x, w_h = (split_gates(get(name), gates) for name in ("weight_ih", "weight_hh"))
    b_x = b_h = np.zeros((gates, leaf.hidden), w_x.dtype)
    if module.bias:
        b_x, b_h = (get(name).reshape(b_x.shape) for name in ("bias_ih", "bias_hh"))
    local: jax.Array | tuple[()] = ()
    if isinstance(leaf, GRU):
        local = to_jax_array(b_h[2])
        b_h = np.concatenate([b_h[:2], np.zeros_like(b_h[2:])])
    weights = to_jax_array(w_x), to_jax_array(w_h), to_jax_array(b_x + b_h)
    params: Params = GatedParams(*weights, local)
    if isinstance(leaf, ProjectedLSTM):
        params = ProjectedLSTMParams(*weights, to_jax_array(get("weight_hr").T))
    check_params(leaf, params)
    return params


def write(leaf: Leaf, params: Params) -> dict[str, torch.Tensor]:
    """Return the weights of one leaf by their names in torch."""
    w_x, w_h, b = (np.asarray(a) for a in (params.w_x, params.w_h, params.b))
    b_h = np.zeros_like(b)
    if isinstance(leaf, GRU):
        b_h[2] = np.asarray(params.local)
    arrays = {"weight_ih": join_gates(w_x), "weight_hh": join_gates(w_h), "bias_ih": b.ravel(), "bias_hh": b_h.ravel()}
    if isinstance(leaf, ProjectedLSTM):
        arrays["weight_hr"] = np.asarray(params.w_p).T
    return {name: to_tensor(array) for name, array in arrays.items()}


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as an array of NumPy in the same dtype.

    Raises:
        ValueError: for a tensor on torch's device "meta".
    """
    if tensor.is_meta:
        raise ValueError("the module is on the device meta, where weights have no values. Load it onto the CPU first.")
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # NumPy lacks bfloat16: its bits are reinterpreted
        return tensor.view(torch.int16).numpy().view(jnp.bfloat16)
    return tensor.numpy()


def to_tensor(array: np.ndarray | jax.Array) -> torch.Tensor:
    """Copy an array to a tensor on the CPU in the same dtype."""
    array = np.array(array, order="C")
    if array.dtype == jnp.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
