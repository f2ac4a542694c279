"""The light GRU, without a reset gate."""

from __future__ import annotations

import dataclasses

import jax

from .._core.activation import RELU, ActivationLike, activation
from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.fields import convert


@dataclasses.dataclass(frozen=True)
class LightGRU(GatedCell):
    """h_t = z h_{t-1} + (1 - z) n, with z = σ and n = f of u + v: a GRU without a reset gate, for speech.

    Args:
        hidden: H, the number of units.
        activation: f, relu in the paper, by name or as a function. The paper keeps relu bounded by the batch norm of u,
            which this cell leaves out.

    The gates are in the order z, n. The state is h (*batch, H).

    >>> cell = LightGRU(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)

    Reference: Ravanelli, Brakel, Omologo and Bengio, "Light gated recurrent units for speech recognition", 2018, eq. 4
    (https://arxiv.org/abs/1803.10225).
    """

    hidden: int
    _: dataclasses.KW_ONLY
    activation: ActivationLike = RELU
    gates = 2

    def __check_init__(self) -> None:
        """Look up the activation."""
        convert(self, activation=activation)

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return h_0 = 0, (*batch, H), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden))

    def read(self, h: jax.Array) -> jax.Array:
        """Return h, which the recurrent weights multiply."""
        return h

    def gate(self, h: jax.Array, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> jax.Array:
        """Apply the equation above."""
        z, n = jax.nn.sigmoid(u[0] + v[0]), self.activation(u[1] + v[1])
        new: jax.Array = n + z * (h - n)
        return new
