"""The minimal GRU and LSTM, whose gates depend on the input alone, so that a step is affine in the state."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax

from .._core.affine_cell import AffineCell
from .._core.cell import zero_state
from .._core.exportable import exportable
from .._core.fields import check_init, convert
from .._core.initializers import GlorotOrthogonal, Initializer
from .._core.recurrence import an_initializer, biased_gates, input_weights

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class MinimalParams(NamedTuple):
    """Weights and biases of the gates and, last, of the candidate."""

    w_x: Float[Array, "D G H"]
    b: Float[Array, "G H"]


@dataclasses.dataclass(frozen=True)
class Minimal(AffineCell):
    """The base of both cells; a subclass defines `gates` (G) and `affine`."""

    if TYPE_CHECKING:

        @property
        def gates(self) -> int:
            """G."""

    hidden: int
    _: dataclasses.KW_ONLY
    initializer: Initializer = GlorotOrthogonal()

    def __check_init__(self) -> None:
        """Check the initializer."""
        convert(self, initializer=an_initializer)

    def init(self, key: jax.Array, in_dim: int) -> MinimalParams:
        """Draw the params for inputs of `in_dim` features."""
        in_dim = check_init(self, key, in_dim)
        k_x, k_b = jax.random.split(key)
        shape = self.gates, self.hidden
        return MinimalParams(input_weights(self.initializer, k_x, (in_dim, *shape)), self.initializer.bias(k_b, shape))

    def initial_state(self, params: MinimalParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return h_0 = 0, (*batch, H), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden))

    def project(self, params: MinimalParams, x: jax.Array) -> tuple[jax.Array, ...]:
        """Return x W_x + b, G arrays (..., H)."""
        return biased_gates(x, params.w_x, params.b)


@dataclasses.dataclass(frozen=True)
class MinGRU(Minimal):
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

    gates = 2

    def affine(self, params: MinimalParams, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return 1 - z and z * g."""
        z, g = self.project(params, x)
        return jax.nn.sigmoid(-z), jax.nn.sigmoid(z) * g


@dataclasses.dataclass(frozen=True)
class MinLSTM(Minimal):
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

    gates = 3

    def affine(self, params: MinimalParams, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return f' and i' * g, both computed from log(f / i)."""
        f, i, g = self.project(params, x)
        ratio = jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i)
        return jax.nn.sigmoid(ratio), jax.nn.sigmoid(-ratio) * g
