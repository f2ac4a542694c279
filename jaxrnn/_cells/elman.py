"""The simple recurrent network."""

from __future__ import annotations

import dataclasses

import jax

from .._core.activation import RELU, TANH, ActivationLike, activation
from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.fields import convert


@dataclasses.dataclass(frozen=True)
class Elman(GatedCell):
    """h_t = f(x_t U + h_{t-1} W + b).

    Args:
        hidden: H, the number of units.
        activation: f, elementwise: a name of `jax.nn` such as "tanh", "relu" or "gelu", or a function. Pass the same
            function object every time: a new lambda makes another cell, which is compiled again.

    The state is h (*batch, H). With relu, training often needs an initial W near the identity: Le, Jaitly and
    Hinton, "A simple way to initialize recurrent networks of rectified linear units", 2015.

    >>> cell = Elman(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)

    Reference: Elman, "Finding structure in time", Cognitive Science 14, 1990.
    """

    hidden: int
    _: dataclasses.KW_ONLY
    activation: ActivationLike = TANH
    gates = 1

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
        """Return f(u + v)."""
        new: jax.Array = self.activation(u[0] + v[0])
        return new

    def native(self) -> str | None:
        """Return the name of the kernel: there is one for tanh and one for relu."""
        return {TANH: "elman_tanh", RELU: "elman_relu"}.get(self.activation)
