"""Haiku: `hk.dynamic_unroll`."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from ..workload import OTHER_EQUATIONS, Data, Workload
from .layout import dense_only
from .own import first_state
from .peer import Program, compiled

CORES = {"elman": "VanillaRNN", "gru": "GRU", "lstm": "LSTM"}
EQUATIONS = {"elman": "relu", "gru": "reset before the matmul", "lstm": None}


@dataclasses.dataclass(frozen=True)
class Haiku:
    """`hk.dynamic_unroll` of `hk.VanillaRNN`, `hk.GRU` or `hk.LSTM`."""

    name: str = "haiku"
    package: str = "haiku"

    def lacks(self, workload: Workload, platform: str) -> str | None:
        """Heads."""
        return dense_only(workload)

    def equation(self, workload: Workload) -> str | None:
        """An Elman network with relu, and a GRU that resets before the matmul."""
        return EQUATIONS[workload.cell]

    def make(self, workload: Workload, data: Data) -> Program:
        """Compile."""
        import haiku as hk

        from jaxrnn.interop.haiku import to_haiku

        name = self.equation(workload)
        cell = workload.own_cell() if name is None else OTHER_EQUATIONS[name](workload)

        def network(xs: jax.Array) -> jax.Array:
            zero = first_state(workload, xs.dtype)
            state = hk.LSTMState(*zero) if workload.cell == "lstm" else zero[0]
            return hk.dynamic_unroll(getattr(hk, CORES[workload.cell])(workload.hidden), xs, state)[0]

        def convert(params: Any) -> Any:
            return to_haiku(cell, params._replace(local=()))[1]

        return compiled(workload, data, convert, hk.without_apply_rng(hk.transform(network)).apply)
