"""The Python loop."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._core.cell import Cell
from .._core.live import cut
from .._core.masks import StepMasks
from .._core.types import Inputs, Output, Params, State
from .driver import Step, masked_step, num_steps


@dataclasses.dataclass(frozen=True)
class Loop:
    """One step after another in Python: the baseline of every benchmark, and for debugging.

    It runs outside `jax.jit` unless the caller uses it, so that every value can be printed. Under `jit` the loop is
    unrolled: the program grows with T.
    """

    def __call__(
        self, cell: Cell, params: Params, state: State, xs: Inputs, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Run the steps one by one."""
        return cut(functools.partial(self._loop, cell, reverse), params, state, xs, masks, reverse=reverse)

    def _loop(
        self, cell: Cell, reverse: bool, params: Params, state: State, xs: Inputs, masks: StepMasks
    ) -> tuple[State, Output]:
        """Return what `__call__` does; its gradient is JAX's own."""
        inputs = (xs, masks.valid, masks.reset)
        step = masked_step(functools.partial(cell.step, params), masks.reset_state)
        length = num_steps(xs)
        row = lambda a, t: lax.dynamic_index_in_dim(a, t, keepdims=False)  # under jax.grad a[t] compiles for each t
        if length == 0:
            return state, _no_outputs(step, state, inputs)
        ys = []
        for t in reversed(range(length)) if reverse else range(length):
            state, y = step(state, jax.tree.map(functools.partial(row, t=t), inputs))
            ys.append(y)
        return state, jax.tree.map(lambda *rows: jnp.stack(rows[::-1] if reverse else rows), *ys)


def _no_outputs(step: Step, state: State, inputs: Any) -> Output:
    """Return the outputs of no steps, (0, *batch, ...)."""
    row = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), inputs)
    _, y = jax.eval_shape(step, state, row)
    return jax.tree.map(lambda a: jnp.zeros((0, *a.shape), a.dtype), y)
