"""Differences of layout: the order of gates, the order of axes, and dense weights."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrnn import GatedParams

from ..workload import Answer, Data, Workload
from .peer import Convert, Forward, Program, compiled


def dense_only(workload: Workload) -> str | None:
    """Return the reason where recurrent weights cannot be in heads, which is so of every other library."""
    return "dense recurrent weights only" if workload.heads > 1 else None


def join_gates(w: Any) -> Any:
    """Return weights (D, G, H) as the matrix (G * H, D) of torch and cuDNN."""
    return w.transpose(1, 2, 0).reshape(-1, w.shape[0])


def in_order(params: GatedParams, *gates: int) -> GatedParams:
    """Return the params with the gates in another order, each by its place in ours."""
    index = np.array(gates)
    return params._replace(w_x=params.w_x[:, index], w_h=params.w_h[:, index], b=params.b[index])


def recurrent_bias(params: GatedParams) -> Any:
    """Return the bias (G, H) of a library with a second one: a GRU's b_hn in our order of gates, otherwise zeros."""
    zeros = jnp.zeros_like(params.b)
    return zeros if isinstance(params.local, tuple) else zeros.at[2].set(params.local)


def batch_major(workload: Workload, data: Data, convert: Convert, forward: Forward) -> Program:
    """Return `compiled` of a forward pass from (B, T, I) to (B, T, H); moving the axes is not timed."""
    program = compiled(workload, data._replace(xs=np.ascontiguousarray(data.xs.swapaxes(0, 1))), convert, forward)

    def answer(result: Any) -> Answer:
        found = program.answer(result)
        moved = {name: getattr(found, name).swapaxes(0, 1) for name in (("xs",) if workload.gradient else ("ys",))}
        return found._replace(**moved)

    return program._replace(answer=answer)
