"""Haiku: `hk.dynamic_unroll` of `hk.VanillaRNN`, `hk.GRU` or `hk.LSTM`."""

from __future__ import annotations

from typing import Any

import jax

from ..workload import OTHER_EQUATIONS, Data, Workload
from .peer import Program, compiled, first_state

CORES = {"elman": "VanillaRNN", "gru": "GRU", "lstm": "LSTM"}
EQUATIONS = {"elman": "relu", "gru": "reset before the matmul"}


def make(workload: Workload, data: Data) -> Program:
    """Compile."""
    import haiku as hk

    from jaxrnn.interop.haiku import to_haiku

    name = EQUATIONS.get(workload.cell)
    cell = workload.own_cell() if name is None else OTHER_EQUATIONS[name](workload)

    def network(xs: jax.Array) -> jax.Array:
        zero = first_state(workload, xs.dtype)
        state = hk.LSTMState(*zero) if workload.cell == "lstm" else zero[0]
        return hk.dynamic_unroll(getattr(hk, CORES[workload.cell])(workload.hidden), xs, state)[0]

    def convert(params: Any) -> Any:
        return to_haiku(cell, params._replace(local=()))[1]

    return compiled(workload, data, convert, hk.without_apply_rng(hk.transform(network)).apply)
