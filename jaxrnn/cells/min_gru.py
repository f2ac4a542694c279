"""The minimal gated recurrent unit: affine in its state."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..affine import AffineCell
from ..init import GlorotOrthogonal, Initializer
from ..recurrence import gates_of


class MinGRUParams(NamedTuple):
    """w_x (D, 2, H) and b (2, H), of z and of the candidate."""

    w_x: jax.Array
    b: jax.Array


@dataclasses.dataclass(frozen=True)
class MinGRU(AffineCell):
    """h_t = (1 - z_t) * h_{t-1} + z_t * g_t, with z_t = sigmoid(x_t W_z + b_z) and g_t = x_t W_g + b_g.

    Args:
        hidden: H, the number of units.
        initializer: how the weights are drawn.

    The state is h (*batch, H).

    >>> cell = MinGRU(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)

    Reference: Feng, Tung, Ahmed, Bengio and Hajimirsadeghi, "Were RNNs all we needed?", 2024, section 3.1
    (https://arxiv.org/abs/2410.01201).
    """

    hidden: int
    initializer: Initializer = GlorotOrthogonal()

    def init(self, key: jax.Array, in_dim: int) -> MinGRUParams:
        """Draw the params for inputs of `in_dim` features."""
        k_x, k_b = jax.random.split(key)
        shape = 2, self.hidden
        return MinGRUParams(self.initializer.input(k_x, (in_dim, *shape)), self.initializer.bias(k_b, shape))

    def initial_state(self, params: MinGRUParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """h_0 = 0, (*batch, H), in the dtype of the params."""
        return jnp.zeros((*batch, self.hidden), params.b.dtype)

    def affine(self, params: MinGRUParams, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """1 - z and z * g."""
        z, g = (u + b for u, b in zip(gates_of(x, params.w_x), params.b, strict=True))
        return jax.nn.sigmoid(-z), jax.nn.sigmoid(z) * g
