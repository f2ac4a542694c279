"""The recurrent highway network."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.broadcasting import broadcasting
from .._core.cell import zero_state
from .._core.checks import check_step
from .._core.exportable import exportable
from .._core.fields import Checked, check_init, convert, number, size
from .._core.initializers import GlorotOrthogonal, Initializer
from .._core.recurrence import an_initializer, biased_gates, gates_of, input_weights
from .._core.trees import cast

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class RHNParams(NamedTuple):
    """Weights of the inputs, which the first highway layer takes, and weights and biases of each of the L layers."""

    w_x: Float[Array, "D 2 H"]
    w_h: Float[Array, "L H 2 H"]
    b: Float[Array, "L 2 H"]


@dataclasses.dataclass(frozen=True)
class RHN(metaclass=Checked):
    """L highway layers in each step; gates in the order n, g.

    s_0 = h_{t-1}; for l = 1 ... L: n = tanh(x W_xn [l = 1] + s_{l-1} W_ln + b_ln),
    g = σ(x W_xg [l = 1] + s_{l-1} W_lg + b_lg), s_l = g * n + (1 - g) * s_{l-1}; h_t = s_L.

    Args:
        hidden: H, the number of units.
        depth: L, the number of highway layers in a step.
        gate_bias: added by `init` to b of the gate g. A negative number lets a new network carry its state on.
        initializer: how the weights are drawn.

    A step has L dependent matmuls, so it is not a `GatedCell`: use `Loop`, `Scan` or `Newton`. The state is h
    (*batch, H).

    >>> cell = RHN(4, depth=3)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)

    Reference: Zilly, Srivastava, Koutník and Schmidhuber, "Recurrent highway networks", ICML 2017, section 4, with the
    carry gate c = 1 - t of its experiments (https://arxiv.org/abs/1607.03474).
    """

    hidden: int
    _: dataclasses.KW_ONLY
    depth: int = 2
    gate_bias: float = -2.0
    initializer: Initializer = GlorotOrthogonal()

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, hidden=size, depth=size, gate_bias=number, initializer=an_initializer)

    def init(self, key: jax.Array, in_dim: int) -> RHNParams:
        """Draw the params for inputs of `in_dim` features, each layer separately."""
        in_dim = check_init(self, key, in_dim)
        k_x, k_h, k_b = jax.random.split(key, 3)
        layers = lambda k, draw: jnp.stack([draw(each) for each in jax.random.split(k, self.depth)])
        return RHNParams(
            input_weights(self.initializer, k_x, (in_dim, 2, self.hidden)),
            layers(k_h, lambda k: self.initializer.recurrent(k, (self.hidden, 2, self.hidden))),
            layers(k_b, lambda k: self.initializer.bias(k, (2, self.hidden)))
            + jnp.array([0.0, self.gate_bias])[None, :, None],
        )

    def initial_state(self, params: RHNParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return h_0 = 0, (*batch, H), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden))

    @broadcasting
    def step(self, params: RHNParams, state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return (h_t, h_t) from h_{t-1} and x_t (*batch, D)."""
        check_step(self, params, state, x)
        of_x = cast(gates_of(x, params.w_x), state.dtype)
        h = state
        for layer in range(self.depth):
            n, g = biased_gates(h, params.w_h[layer], params.b[layer], state.dtype)
            if layer == 0:
                n, g = n + of_x[0], g + of_x[1]
            h = h + jax.nn.sigmoid(g) * (jnp.tanh(n) - h)
        return h, h.astype(params.w_x.dtype)
