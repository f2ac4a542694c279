"""The real-gated linear recurrent unit, Griffin's recurrence."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._core.affine_cell import AffineCell
from .._core.cell import zero_state
from .._core.exportable import exportable
from .._core.fields import check_init_per_unit, convert, number
from .._core.initializers import GlorotOrthogonal, Initializer
from .._core.recurrence import an_initializer, gates_of

LEAST = 1e-12  # of 1 - a^2, lest the gradient of its root be infinite


@exportable
class RGLRUParams(NamedTuple):
    """The params of an RG-LRU, plain arrays.

    Attributes:
        w_x: weights (H, 2, H) of the recurrence gate r and the input gate i.
        b: their biases (2, H).
        decay: (H,), from which a comes.
    """

    w_x: jax.Array
    b: jax.Array
    decay: jax.Array


@dataclasses.dataclass(frozen=True)
class RGLRU(AffineCell):
    """h_t = a_t * h_{t-1} + sqrt(1 - a_t^2) * (i_t * x_t), with a_t = exp(-c softplus(decay) * r_t).

    r_t = sigmoid(x_t W_r + b_r) and i_t = sigmoid(x_t W_i + b_i).

    Args:
        hidden: H, the number of units, and of input features: each unit has a feature of its own.
        sharpness: c.
        initializer: how the weights are drawn.

    The state is h (*batch, H).

    >>> cell = RGLRU(4)
    >>> params = cell.init(jax.random.key(0), in_dim=4)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(4))
    >>> y.shape
    (4,)

    Reference: De et al., "Griffin: mixing gated linear recurrences with local attention for efficient language models",
    2024, eq. 1 to 4 (https://arxiv.org/abs/2402.19427).
    """

    hidden: int
    _: dataclasses.KW_ONLY
    sharpness: float = 8.0
    initializer: Initializer = GlorotOrthogonal()

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, sharpness=number, initializer=an_initializer)

    def init(self, key: jax.Array, in_dim: int) -> RGLRUParams:
        """Draw the params, exp(-c softplus(decay)) uniformly from 0.9 to 0.999; raises ValueError if D is not H."""
        in_dim = check_init_per_unit(self, key, in_dim)
        k_x, k_b, k_decay = jax.random.split(key, 3)
        shape = 2, self.hidden
        keeps = jax.random.uniform(k_decay, (self.hidden,), minval=0.9, maxval=0.999)
        decay = jnp.log(jnp.expm1(-jnp.log(keeps) / self.sharpness))
        return RGLRUParams(self.initializer.input(k_x, (in_dim, *shape)), self.initializer.bias(k_b, shape), decay)

    def initial_state(self, params: RGLRUParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """h_0 = 0, (*batch, H), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden))

    def affine(self, params: RGLRUParams, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A and the gated input."""
        r, i = (jax.nn.sigmoid(u + b) for u, b in zip(gates_of(x, params.w_x), params.b, strict=True))
        log_a = -self.sharpness * jax.nn.softplus(params.decay) * r
        rest = jnp.maximum(-jnp.expm1(2 * log_a), LEAST)
        return jnp.exp(log_a), jnp.sqrt(rest) * i * x.astype(i.dtype)
