"""The C++ kernel of a matrix memory under the equations of a `MatrixCell`, for `Native`."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from .._core.broadcasting import broadcasting
from .._core.masks import StepMasks
from .._core.matrix_cell import MatrixCell
from .._core.types import Inputs, Output, Params, State
from .._kernels.cpu.memory import SAVED, MemoryKernel
from .memory_chunks import LEAST_LOG_DECAY, solve_chunks
from .memory_groups import Groups
from .second_order import second_order

CHUNK = 64
"""The steps of a chunk. Untuned."""
ROWS = 1024
"""The steps times batch rows of a group, few enough for their queries, keys and values to stay in a cache. Untuned."""


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
    return Groups(cell, CHUNK, reverse, kernel, params, state, xs, masks, ROWS, (SAVED,)).run()


def has_one_decay(cell: MatrixCell) -> bool:
    """Return whether the updates of a cell have one decay a head."""

    @broadcasting
    def log_decay(key: jax.Array) -> jax.Array:
        parts = [jnp.zeros(size) for size in cell.sizes()]
        return cell.update(cell.init_local(key), *parts).log_decay

    return jax.eval_shape(log_decay, jax.random.key(0)).shape[-1] == 1
