"""The simple recurrent unit: affine in its state, with a highway connection from input to output."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.affine_cell import AffineCell
from .._core.cell import zero_state
from .._core.exportable import exportable
from .._core.fields import check_init_per_unit, convert
from .._core.initializers import GlorotOrthogonal, Initializer
from .._core.recurrence import an_initializer, gates_of

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class SRUParams(NamedTuple):
    """The params of an SRU.

    Attributes:
        w_x: weights of the forget gate f and the candidate.
        b: bias of f.
        w_r: weights of the gate r of the highway connection.
        b_r: bias of r.
    """

    w_x: Float[Array, "H 2 H"]
    b: Float[Array, " H"]
    w_r: Float[Array, "H 1 H"]
    b_r: Float[Array, " H"]


@dataclasses.dataclass(frozen=True)
class SRU(AffineCell):
    """c_t = f_t * c_{t-1} + (1 - f_t) * (x_t W), y_t = r_t * tanh(c_t) + (1 - r_t) * x_t.

    f_t = sigmoid(x_t W_f + b_f) and r_t = sigmoid(x_t W_r + b_r).

    Args:
        hidden: H, the number of units and of input features.
        initializer: how the weights are drawn.

    The state is c (*batch, H).

    >>> cell = SRU(4)
    >>> params = cell.init(jax.random.key(0), in_dim=4)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(4))
    >>> y.shape
    (4,)

    Reference: Lei, Zhang, Wang, Dai and Artzi, "Simple recurrent units for highly parallelizable recurrence", first
    version ("Training RNNs as fast as CNNs"), 2017, eq. 3 to 7 (https://arxiv.org/abs/1709.02755).
    Note: in later versions f and r depend on c_{t-1}, so that a step is not affine.
    """

    hidden: int
    _: dataclasses.KW_ONLY
    initializer: Initializer = GlorotOrthogonal()

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, initializer=an_initializer)

    def init(self, key: jax.Array, in_dim: int) -> SRUParams:
        """Draw the params; raise ValueError unless D = H."""
        check_init_per_unit(self, key, in_dim)
        k_x, k_b, k_r, k_c = jax.random.split(key, 4)
        size, bias = self.hidden, self.initializer.bias
        return SRUParams(
            self.initializer.input(k_x, (size, 2, size)),
            bias(k_b, (1, size))[0],
            self.initializer.input(k_r, (size, 1, size)),
            bias(k_c, (1, size))[0],
        )

    def initial_state(self, params: SRUParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return c_0 = 0, (*batch, H), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden))

    def affine(self, params: SRUParams, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return f and (1 - f) * (x W)."""
        f, g = gates_of(x, params.w_x)
        f = f + params.b
        return jax.nn.sigmoid(f), jax.nn.sigmoid(-f) * g

    def output(self, params: SRUParams, s: jax.Array, x: jax.Array) -> jax.Array:
        """Return r * tanh(c) + (1 - r) * x."""
        r = jax.nn.sigmoid(gates_of(x, params.w_r)[0] + params.b_r)
        x = x.astype(r.dtype)
        return x + r * (jnp.tanh(s.astype(r.dtype)) - x)
