"""Haiku: `hk.dynamic_unroll`."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ..workload import Data, Workload
from .layout import dense_only, in_order
from .own import first_state, flat_weights
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

        def network(xs: jax.Array) -> jax.Array:
            zero = first_state(workload, xs.dtype)
            state = hk.LSTMState(*zero) if workload.cell == "lstm" else zero[0]
            return hk.dynamic_unroll(getattr(hk, CORES[workload.cell])(workload.hidden), xs, state)[0]

        apply = hk.without_apply_rng(hk.transform(network)).apply
        return compiled(workload, data, CONVERT[workload.cell], apply)


def elman(params: Any) -> Any:
    """Two biases, one of them zero."""
    w_x, w_h, b, _ = flat_weights(params)
    return {"vanilla_rnn/linear": {"w": w_x, "b": b}, "vanilla_rnn/linear_1": {"w": w_h, "b": jnp.zeros_like(b)}}


def gru(params: Any) -> Any:
    """The gates in the order z, r, a, and z for our 1 - z: its logits change their sign."""
    weights = in_order(params, 1, 0, 2)
    signs = jnp.array([-1, 1, 1], params.b.dtype)[:, None]
    w_x, w_h, b, _ = flat_weights(
        weights._replace(w_x=weights.w_x * signs, w_h=weights.w_h * signs, b=weights.b * signs)
    )
    return {"gru": {"w_i": w_x, "w_h": w_h, "b": b}}


def lstm(params: Any) -> Any:
    """One matrix for x and h, the gates in the order i, g, f, o, and 1 less for f, since haiku adds it."""
    w_x, w_h, b, _ = flat_weights(in_order(params._replace(b=params.b.at[1].add(-1)), 0, 2, 1, 3))
    return {"lstm/linear": {"w": jnp.concatenate([w_x, w_h]), "b": b}}


CONVERT = {"elman": elman, "gru": gru, "lstm": lstm}
