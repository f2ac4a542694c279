"""The minimal long short-term memory: affine in its state."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..affine import AffineCell
from ..init import GlorotOrthogonal, Initializer
from ..recurrence import gates_of


class MinLSTMParams(NamedTuple):
    """w_x (D, 3, H) and b (3, H), of f, i and the candidate."""

    w_x: jax.Array
    b: jax.Array


@dataclasses.dataclass(frozen=True)
class MinLSTM(AffineCell):
    """h_t = f'_t * h_{t-1} + i'_t * g_t, with f' = f / (f + i) and i' = i / (f + i).

    f_t = sigmoid(x_t W_f + b_f), i_t = sigmoid(x_t W_i + b_i), g_t = x_t W_g + b_g.

    Args:
        hidden: H, the number of units.
        initializer: how the weights are drawn.

    The state is h (*batch, H).

    >>> cell = MinLSTM(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)

    Reference: Feng, Tung, Ahmed, Bengio and Hajimirsadeghi, "Were RNNs all we needed?", 2024, section 3.2
    (https://arxiv.org/abs/2410.01201).
    """

    hidden: int
    initializer: Initializer = GlorotOrthogonal()

    def init(self, key: jax.Array, in_dim: int) -> MinLSTMParams:
        """Draw the params for inputs of `in_dim` features."""
        k_x, k_b = jax.random.split(key)
        shape = 3, self.hidden
        return MinLSTMParams(self.initializer.input(k_x, (in_dim, *shape)), self.initializer.bias(k_b, shape))

    def initial_state(self, params: MinLSTMParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """h_0 = 0, (*batch, H), in the dtype of the params."""
        return jnp.zeros((*batch, self.hidden), params.b.dtype)

    def affine(self, params: MinLSTMParams, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """f' and i' * g; log(f / i) decides both."""
        f, i, g = (u + b for u, b in zip(gates_of(x, params.w_x), params.b, strict=True))
        ratio = jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i)
        return jax.nn.sigmoid(ratio), jax.nn.sigmoid(-ratio) * g
