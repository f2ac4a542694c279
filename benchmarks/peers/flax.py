"""Flax: `nnx.RNN` and `linen.RNN`, time-major, everything else as flax has it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..workload import Data, Workload
from .peer import Program, compiled, first_state

CELLS = {"elman": "SimpleCell", "gru": "GRUCell", "lstm": "OptimizedLSTMCell"}


def make_nnx(workload: Workload, data: Data) -> Program:
    """Compile `nnx.RNN(cell, time_major=True)`."""
    from flax import nnx

    from jaxrnn.interop.flax import to_nnx

    def split(params: Any) -> Any:
        if workload.cell == "gru":  # flax has no b_hn, which is zero here
            params = params._replace(local=np.zeros(workload.hidden, jnp.dtype(workload.dtype)))
        cell = to_nnx(workload.own_cell(), params)
        return nnx.split(nnx.RNN(cell, time_major=True), nnx.Param, ...)

    graph, _, rest = split(jax.tree.map(lambda a: jnp.asarray(a, workload.dtype), data.params))

    def forward(weights: Any, xs: jax.Array) -> jax.Array:
        zero = first_state(workload, xs.dtype)
        return nnx.merge(graph, weights, rest)(xs, initial_carry=zero if workload.cell == "lstm" else zero[0])

    return compiled(workload, data, lambda params: split(params)[1], forward)


def make_linen(workload: Workload, data: Data) -> Program:
    """Compile `linen.RNN(cell, time_major=True)`."""
    from flax import linen

    from jaxrnn.interop.flax import to_linen

    cell = getattr(linen, CELLS[workload.cell])(workload.hidden, param_dtype=jnp.dtype(workload.dtype))

    def convert(params: Any) -> Any:
        return {"params": {"cell": to_linen(workload.own_cell(), params)[1]["params"]}}

    return compiled(workload, data, convert, linen.RNN(cell, time_major=True).apply)
