"""A residual connection."""

from __future__ import annotations

import dataclasses

import jax

from .._core.composite import Runner, WrappedCell, need_step, out_dim
from .._core.fields import check_init, show
from .._core.randomness import step
from .._core.types import Key, Output, Params, State


@dataclasses.dataclass(frozen=True)
class Residual(WrappedCell):
    """y_t = x_t + cell(x_t), for a cell with as many output features as input features.

    >>> residual = Residual(GRU(3))
    >>> params = residual.init(jax.random.key(0), in_dim=3)
    >>> residual.step(params, residual.initial_state(params), jnp.ones(3))[1].shape
    (3,)
    """

    def init(self, key: Key, in_dim: int) -> Params:
        """Draw the cell's params."""
        self.out_dim(check_init(self, key, in_dim))
        return self.cell.init(key, in_dim)

    def out_dim(self, in_dim: int) -> int:
        """Return `in_dim`; raise ValueError unless the cell has as many output features."""
        got = out_dim(self.cell, in_dim)
        if got != in_dim:
            raise ValueError(
                f"Residual adds inputs to outputs: {show(self.cell)} maps {in_dim} features to {got}. Pass inputs of "
                f"{got} features{f', or a cell with {in_dim} output features' if in_dim else ''}."
            )
        return in_dim

    def step(self, params: Params, state: State, x: jax.Array, *, key: Key | None = None) -> tuple[State, jax.Array]:
        """Apply one step of the cell, and add x."""
        state, y = step(need_step(self.cell, self), params, state, x, key)
        return state, x.astype(y.dtype) + y

    def unroll(
        self, runner: Runner, params: Params, state: State, reset_state: State, xs: jax.Array
    ) -> tuple[State, Output]:
        """Run the cell over time, and add the inputs."""
        state, ys = runner(self.cell, params, state, reset_state, xs)
        return state, xs.astype(ys.dtype) + ys
