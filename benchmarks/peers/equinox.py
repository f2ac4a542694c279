"""Equinox: its cells, which are for one sequence, over the batch by `vmap` and over time by `lax.scan`."""

from __future__ import annotations

import functools
from typing import Any

import jax

from ..workload import Data, Workload
from .peer import Program, compiled, first_state


def make(workload: Workload, data: Data) -> Program:
    """Compile `eqx.nn.GRUCell` or `LSTMCell` as equinox's examples use them: vmap within `lax.scan`."""
    from jaxrnn.interop.equinox import to_equinox

    lstm = workload.cell == "lstm"

    def forward(cell: Any, xs: jax.Array) -> jax.Array:
        def step(state: Any, x: jax.Array) -> tuple[Any, jax.Array]:
            state = jax.vmap(cell)(x, state)
            return state, state[0] if lstm else state

        zero = first_state(workload, xs.dtype)
        return jax.lax.scan(step, zero if lstm else zero[0], xs)[1]

    return compiled(workload, data, functools.partial(to_equinox, workload.own_cell()), forward)
