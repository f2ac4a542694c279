"""The real-gated linear recurrent unit of Griffin."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.affine_cell import AffineCell
from .._core.cell import zero_state
from .._core.exportable import exportable
from .._core.fields import check_init_per_unit, convert, number
from .._core.initializers import GlorotOrthogonal, Initializer
from .._core.recurrence import an_initializer, biased_gates

if TYPE_CHECKING:
    from jaxtyping import Array, Float

EPSILON = 1e-12
"""The lower bound of 1 - a^2: the gradient of its square root is infinite at 0."""


@exportable
class RGLRUParams(NamedTuple):
    """The params of an RG-LRU.

    Attributes:
        w_x: weights of the recurrence gate r and the input gate i.
        b: their biases.
        decay: a at r = 1 is exp(-c softplus(decay)).
    """

    w_x: Float[Array, "H 2 H"]
    b: Float[Array, "2 H"]
    decay: Float[Array, " H"]


@dataclasses.dataclass(frozen=True)
class RGLRU(AffineCell):
    """h_t = a_t * h_{t-1} + sqrt(1 - a_t^2) * (i_t * x_t), with a_t = exp(-c softplus(decay) * r_t).

    r_t = sigmoid(x_t W_r + b_r) and i_t = sigmoid(x_t W_i + b_i).

    Args:
        hidden: H, the number of units and of input features: unit j takes feature j.
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
        """Draw the params, exp(-c softplus(decay)) from U(0.9, 0.999); raise ValueError unless D = H."""
        in_dim = check_init_per_unit(self, key, in_dim)
        k_x, k_b, k_decay = jax.random.split(key, 3)
        shape = 2, self.hidden
        a = jax.random.uniform(k_decay, (self.hidden,), minval=0.9, maxval=0.999)
        decay = jnp.log(jnp.expm1(-jnp.log(a) / self.sharpness))
        return RGLRUParams(self.initializer.input(k_x, (in_dim, *shape)), self.initializer.bias(k_b, shape), decay)

    def initial_state(self, params: RGLRUParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return h_0 = 0, (*batch, H), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden))

    def affine(self, params: RGLRUParams, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return a and sqrt(1 - a^2) * (i * x)."""
        r, i = map(jax.nn.sigmoid, biased_gates(x, params.w_x, params.b))
        log_a = -self.sharpness * jax.nn.softplus(params.decay) * r
        complement = jnp.maximum(-jnp.expm1(2 * log_a), EPSILON)  # 1 - a^2
        return jnp.exp(log_a), jnp.sqrt(complement) * i * x.astype(i.dtype)
