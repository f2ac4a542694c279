"""The update gate RNN."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.fields import convert, number


@dataclasses.dataclass(frozen=True)
class UGRNN(GatedCell):
    """h_t = g h_{t-1} + (1 - g) c, with c = tanh and g = σ of u + v: one gate keeps or replaces.

    Args:
        hidden: H, the number of units.
        forget_bias: added by `init` to b of the gate.

    The gates are in the order c, g. The state is h (*batch, H).

    >>> cell = UGRNN(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)

    Reference: Collins, Sohl-Dickstein and Sussillo, "Capacity and trainability in recurrent neural networks", ICLR
    2017, section 2.2 (https://arxiv.org/abs/1611.09913).
    """

    hidden: int
    _: dataclasses.KW_ONLY
    forget_bias: float = 1.0
    gates = 2

    def __check_init__(self) -> None:
        """Check the forget bias."""
        convert(self, forget_bias=number)

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return h_0 = 0, (*batch, H), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden))

    def read(self, h: jax.Array) -> jax.Array:
        """Return h, which the recurrent weights multiply."""
        return h

    def gate(self, h: jax.Array, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> jax.Array:
        """Apply the equation above."""
        c, g = jnp.tanh(u[0] + v[0]), jax.nn.sigmoid(u[1] + v[1])
        new: jax.Array = c + g * (h - c)
        return new

    def bias_offset(self) -> jax.Array:
        """Return the forget bias, in the row of the gate."""
        return jnp.array([[0.0], [self.forget_bias]])
