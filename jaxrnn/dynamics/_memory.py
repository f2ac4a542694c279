"""What a state keeps of its inputs, and how it forgets where it began."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from .._core.cell import Cell
from .._core.fields import count, size
from .._core.types import Inputs, Key, Params, State
from ..model import readout, ridge_readout
from ._state_space import start_vector, step_map, trajectory

if TYPE_CHECKING:
    from jaxtyping import Array, Float


def memory_capacity(
    cell: Cell,
    params: Params,
    key: Key,
    *,
    delays: int,
    steps: int = 2000,
    washout: int = 200,
    scale: float = 1.0,
    regularization: float = 1e-4,
) -> Float[Array, " delays"]:
    """Return how much of the input of l steps before a linear readout recovers, for l = 0, ..., `delays` - 1.

    The inputs are independent, from U(-scale, scale). The capacity of a lag is the squared correlation of u_{t-l} with
    the output of a readout that is fitted on the first half of the steps, measured on the second; the sum over all lags
    is at most n.

    Args:
        cell: a cell or composite with a `step` and inputs of one feature.
        params: its params.
        key: draws the inputs.
        delays: the number of lags.
        steps: the steps that count.
        washout: the steps before them.
        scale: of the inputs.
        regularization: of `ridge_readout`.

    >>> cell = EchoState(30, initializer=Reservoir(density=0.2, input_scale=0.1))
    >>> capacity = memory_capacity(cell, cell.init(jax.random.key(0), in_dim=1), jax.random.key(1), delays=40)
    >>> capacity[0].round(2).item(), bool(5 < capacity.sum() < 30)
    (1.0, True)

    Raises:
        ValueError: for a washout that is shorter than the lags.

    Reference: Jaeger, "Short term memory in echo state networks", GMD report 152, 2001, definition 1 and proposition 2.
    """
    delays, steps, washout = size(delays, "delays"), size(steps, "steps"), count(washout, "washout")
    if washout < delays - 1 or steps < 4:
        raise ValueError(
            f"memory_capacity needs washout >= delays - 1 and steps >= 4; got {washout=}, {delays=}, {steps=}"
        )
    inputs = jax.random.uniform(key, (washout + steps, 1), minval=-scale, maxval=scale)
    states = trajectory(cell, params, inputs)[washout:]
    at = washout + jnp.arange(steps)[:, None] - jnp.arange(delays)
    targets, half = inputs[:, 0][at].astype(states.dtype), steps // 2
    fitted = ridge_readout(states[:half], targets[:half], regularization=regularization)
    outputs, targets = readout(fitted, states[half:]), targets[half:]
    outputs, targets = outputs - outputs.mean(0), targets - targets.mean(0)
    power = (outputs**2).sum(0) * (targets**2).sum(0)
    return jnp.where(power > 0, (outputs * targets).sum(0) ** 2 / jnp.where(power > 0, power, 1), 0)


def convergence(cell: Cell, params: Params, xs: Inputs, first: State, second: State) -> Float[Array, " M"]:
    """Return the distance of two trajectories with the same inputs, before the first step and after each.

    It falls to zero for all starts and inputs where a network has the echo state property.

    Args:
        cell: a cell or composite with a `step`.
        params: its params.
        xs: inputs (T, D), or a pytree of them, without a batch; for many pairs use `jax.vmap`.
        first: a state before the first step; None for the cell's own.
        second: another.

    >>> cell = IndRNN(4, activation="identity")
    >>> params = cell.init(jax.random.key(0), in_dim=3)._replace(w_h=jnp.full((1, 4), 0.5))
    >>> convergence(cell, params, jnp.ones((3, 3)), jnp.zeros(4), jnp.ones(4)).tolist()
    [2.0, 1.0, 0.5, 0.25]

    Reference: Jaeger, "The echo state approach to analysing and training recurrent neural networks", GMD report 148,
    2001, definition 1.
    """
    starts = jnp.stack([start_vector(cell, params, state) for state in (first, second)])
    return _distances(cell, params, xs, starts)


@functools.partial(jax.jit, static_argnames="cell")
def _distances(cell: Cell, params: Params, xs: Inputs, starts: jax.Array) -> jax.Array:
    """Return what `convergence` does, from two vectors (2, n)."""
    step = jax.vmap(step_map(cell, params), (0, None))
    distance = lambda pair: jnp.linalg.norm(pair[0] - pair[1])

    def run(pair: jax.Array, x: Inputs) -> tuple[jax.Array, jax.Array]:
        pair = step(pair, x)
        return pair, distance(pair)

    _, distances = jax.lax.scan(run, starts, xs)
    return jnp.concatenate([distance(starts)[None], distances])
