"""Equinox: its cells, which are for one sequence, over the batch by `vmap` and over time by `lax.scan`."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jaxrnn.interop.arrays import join_gates

from ..workload import Data, Workload
from .layout import dense_only
from .own import first_state
from .peer import Program, compiled


@dataclasses.dataclass(frozen=True)
class Equinox:
    """`eqx.nn.GRUCell` or `LSTMCell` as equinox's examples use them: vmap within `lax.scan`."""

    name: str = "equinox"
    package: str = "equinox"

    def lacks(self, workload: Workload, platform: str) -> str | None:
        """Elman networks, and heads."""
        return "no Elman network" if workload.cell == "elman" else dense_only(workload)

    def equation(self, workload: Workload) -> str | None:
        """The workload's."""
        return None

    def make(self, workload: Workload, data: Data) -> Program:
        """Compile."""
        import equinox as eqx

        lstm = workload.cell == "lstm"
        kind = eqx.nn.LSTMCell if lstm else eqx.nn.GRUCell
        shapes = eqx.filter_eval_shape(kind, workload.inputs, workload.hidden, key=jax.random.key(0))

        def convert(params: Any) -> Any:
            weights = (join_gates(params.w_x), join_gates(params.w_h), params.b.ravel())
            where = lambda c: (c.weight_ih, c.weight_hh, c.bias, *(() if lstm else (c.bias_n,)))
            return eqx.tree_at(where, shapes, weights if lstm else (*weights, params.local))

        def forward(cell: Any, xs: jax.Array) -> jax.Array:
            def step(state: Any, x: jax.Array) -> tuple[Any, jax.Array]:
                state = jax.vmap(cell)(x, state)
                return state, state[0] if lstm else state

            zero = first_state(workload, xs.dtype)
            return jax.lax.scan(step, zero if lstm else zero[0], xs)[1]

        return compiled(workload, data, convert, forward)
