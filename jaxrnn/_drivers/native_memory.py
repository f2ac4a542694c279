"""The C++ kernel of a matrix memory under the equations of a `MatrixCell`, for `Native`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._core.broadcasting import broadcasting
from .._core.masks import StepMasks
from .._core.matrix_cell import MatrixCell
from .._core.types import Inputs, Output, Params, State
from .._kernels.cpu.memory import MemoryKernel
from .driver import num_steps
from .memory_chunks import LEAST_LOG_DECAY, solve_chunks
from .memory_groups import Groups
from .second_order import second_order

CHUNK = 64
"""The steps of a chunk. Untuned."""


class Whole(Groups):
    """A sequence as one group, whose parts the gradient keeps."""

    def _scan(self, body: Callable[..., tuple[Any, Any]], carry: Any) -> tuple[Any, Any]:
        """Return the carry after `body(carry, xs, masks)` of all steps, and what it returns."""
        if num_steps(self.xs) == 0:
            return super()._scan(body, carry)
        turn = lambda tree: jax.tree.map(lambda a: a[::-1], tree) if self.reverse else tree
        xs, valid, reset = turn((self.xs, self.masks.valid, self.masks.reset))
        carry, results = body(carry, xs, StepMasks(valid, reset, self.masks.reset_state))
        return carry, turn(results)


def run_memory(
    driver: Any,
    exported: bool,
    cell: MatrixCell,
    reverse: bool,
    params: Params,
    state: State,
    xs: Inputs,
    masks: StepMasks,
) -> tuple[State, Output]:
    """Run over time; `exported`: whether the computation in JAX replaces the kernel in a program that is exported."""
    solve = functools.partial(solve_chunks, CHUNK)
    kernel = MemoryKernel(CHUNK, solve, second_order, LEAST_LOG_DECAY, exported, driver)
    return Whole(cell, CHUNK, reverse, kernel, params, state, xs, masks).run()


def has_one_decay(cell: MatrixCell) -> bool:
    """Return whether the updates of a cell have one decay a head."""

    @broadcasting
    def log_decay(key: jax.Array) -> jax.Array:
        parts = [jnp.zeros(size) for size in cell.sizes()]
        return cell.update(cell.init_local(key), *parts).log_decay

    return jax.eval_shape(log_decay, jax.random.key(0)).shape[-1] == 1
