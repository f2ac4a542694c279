"""The antisymmetric RNN: a stable differential equation, step by step."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.fields import convert, number, positive
from .._core.recurrence import Dense


@dataclasses.dataclass(frozen=True)
class AntisymmetricRNN(GatedCell):
    """h_t = h_{t-1} + ε tanh(u + h_{t-1} (W - Wᵀ - γ I)): no direction of the state grows or fades fast.

    Args:
        hidden: H, the number of units.
        step_size: ε, above 0.
        diffusion: γ, at least 0: how much the state fades.

    The state is h (*batch, H). The recurrence is `Dense()`.

    >>> cell = AntisymmetricRNN(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)

    Reference: Chang, Chen, Haber and Chi, "AntisymmetricRNN: a dynamical system view on recurrent neural networks",
    ICLR 2019, eq. 8 (https://arxiv.org/abs/1902.09689).
    """

    hidden: int
    _: dataclasses.KW_ONLY
    step_size: float = 0.1
    diffusion: float = 0.01
    gates = 1

    def __check_init__(self) -> None:
        """Check the numbers and the recurrence."""
        convert(self, step_size=positive, diffusion=number)
        if self.diffusion < 0:
            raise ValueError(f"AntisymmetricRNN.diffusion must be at least 0; got {self.diffusion}")
        if self.recurrence != Dense():
            raise ValueError(f"AntisymmetricRNN takes recurrence=Dense(), for W - W^T; got {self.recurrence}")

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return h_0 = 0, (*batch, H), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden))

    def read(self, h: jax.Array) -> jax.Array:
        """Return h, which the recurrent weights multiply."""
        return h

    def recur(self, params: GatedParams, s: jax.Array) -> tuple[jax.Array, ...]:
        """Return h (W - W^T - γ I)."""
        w = params.w_h[:, 0]
        return self.recurrence((w - w.T - self.diffusion * jnp.eye(len(w), dtype=w.dtype))[:, None], s)

    def gate(self, h: jax.Array, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> jax.Array:
        """Apply the equation above."""
        return h + self.step_size * jnp.tanh(u[0] + v[0])
