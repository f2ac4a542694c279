"""Flax: `nnx.RNN` and `linen.RNN`."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ..workload import Data, Workload
from .layout import dense_only
from .own import first_state, flat_weights
from .peer import Program, compiled

CELLS = {"elman": "SimpleCell", "gru": "GRUCell", "lstm": "OptimizedLSTMCell"}
"""The cells' names, which are the same in `nnx` and in `linen`."""


@dataclasses.dataclass(frozen=True)
class Nnx:
    """`nnx.RNN(cell, time_major=True)`, everything else as flax has it."""

    name: str = "flax nnx.RNN"
    package: str = "flax"

    def lacks(self, workload: Workload, platform: str) -> str | None:
        """Heads."""
        return dense_only(workload)

    def equation(self, workload: Workload) -> str | None:
        """The workload's, but for a GRU's b_hn, which is zero here."""
        return None

    def make(self, workload: Workload, data: Data) -> Program:
        """Compile."""
        from flax import nnx

        zeros = dict.fromkeys(("kernel_init", "recurrent_kernel_init"), jax.nn.initializers.zeros)
        options = {"dtype": jnp.dtype(workload.dtype), "rngs": nnx.Rngs(0), **zeros}  # SimpleCell's dtype is not None
        cell = getattr(nnx, CELLS[workload.cell])(workload.inputs, workload.hidden, **options)
        graph, state, rest = nnx.split(nnx.RNN(cell, time_major=True), nnx.Param, ...)
        structure = jax.tree.structure(state)

        def convert(params: Any) -> Any:
            w_x, w_h, b, _ = flat_weights(params)
            bias, no_bias = {"bias": b}, {}
            of_x, of_h = (no_bias, bias) if workload.cell == "lstm" else (bias, no_bias)
            weights = {"dense_i": {"kernel": w_x, **of_x}, "dense_h": {"kernel": w_h, **of_h}}
            return jax.tree.unflatten(structure, jax.tree.leaves(weights))

        def forward(weights: Any, xs: jax.Array) -> jax.Array:
            zero = first_state(workload, xs.dtype)
            carry = zero if workload.cell == "lstm" else zero[0]
            return nnx.merge(graph, weights, rest)(xs, initial_carry=carry)

        return compiled(workload, data, convert, forward)


@dataclasses.dataclass(frozen=True)
class Linen:
    """`linen.RNN(cell, time_major=True)`, everything else as flax has it."""

    name: str = "flax linen.RNN"
    package: str = "flax"

    def lacks(self, workload: Workload, platform: str) -> str | None:
        """Heads."""
        return dense_only(workload)

    def equation(self, workload: Workload) -> str | None:
        """The workload's."""
        return None

    def make(self, workload: Workload, data: Data) -> Program:
        """Compile."""
        from flax import linen

        from jaxrnn.interop.flax import to_linen

        cell = getattr(linen, CELLS[workload.cell])(workload.hidden, param_dtype=jnp.dtype(workload.dtype))
        rnn = linen.RNN(cell, time_major=True)

        def convert(params: Any) -> Any:
            return {"params": {"cell": to_linen(workload.own_cell(), params)[1]["params"]}}

        return compiled(workload, data, convert, rnn.apply)


FLAX = (Nnx(), Linen())
