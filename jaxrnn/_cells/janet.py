"""The forget-gate LSTM."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.fields import convert, number


@dataclasses.dataclass(frozen=True)
class JANET(GatedCell):
    """h_t = σ(f) h_{t-1} + (1 - σ(f - β)) tanh(g), with f and g of u + v: the forget gate is the only one.

    Args:
        hidden: H, the number of units.
        beta: β, how much more is written than forgotten.
        forget_bias: added by `init` to b of the forget gate.

    The state is h (*batch, H).

    >>> cell = JANET(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)

    Reference: van der Westhuizen and Lasenby, "The unreasonable effectiveness of the forget gate", 2018, eq. 4
    (https://arxiv.org/abs/1804.04849).
    """

    hidden: int
    _: dataclasses.KW_ONLY
    beta: float = 1.0
    forget_bias: float = 1.0
    gates = 2

    def __check_init__(self) -> None:
        """Check the numbers."""
        convert(self, beta=number, forget_bias=number)

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return h_0 = 0, (*batch, H), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden))

    def read(self, h: jax.Array) -> jax.Array:
        """Return h, which the recurrent weights multiply."""
        return h

    def gate(self, h: jax.Array, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> jax.Array:
        """Apply the equation above."""
        f, g = u[0] + v[0], u[1] + v[1]
        new: jax.Array = jax.nn.sigmoid(f) * h + jax.nn.sigmoid(self.beta - f) * jnp.tanh(g)
        return new

    def bias_offset(self) -> jax.Array:
        """Return the forget bias, in the row of the forget gate."""
        return jnp.array([[self.forget_bias], [0.0]])
