"""Flax: `nnx.RNN` and `linen.RNN`."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..workload import Data, Workload
from .layout import dense_only
from .own import first_state
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

        from jaxrnn.interop.flax import to_nnx

        def split(params: Any) -> Any:
            if workload.cell == "gru":
                params = params._replace(local=np.zeros(workload.hidden, jnp.dtype(workload.dtype)))  # known to be zero
            cell = to_nnx(workload.own_cell(), params)
            return nnx.split(nnx.RNN(cell, time_major=True), nnx.Param, ...)

        graph, _, rest = split(jax.tree.map(lambda a: jnp.asarray(a, workload.dtype), data.params))

        def forward(weights: Any, xs: jax.Array) -> jax.Array:
            zero = first_state(workload, xs.dtype)
            carry = zero if workload.cell == "lstm" else zero[0]
            return nnx.merge(graph, weights, rest)(xs, initial_carry=carry)

        return compiled(workload, data, lambda params: split(params)[1], forward)


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
