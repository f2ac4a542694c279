"""The minimal gated unit."""

from __future__ import annotations

import dataclasses

import jax

from .._core.activation import SIGMOID, TANH, ActivationLike, activation
from .._core.broadcasting import broadcasting
from .._core.cell import GatedParams, draw_weights, zero_state
from .._core.checks import check_step
from .._core.fields import Checked, check_init, convert, size
from .._core.initializers import GlorotOrthogonal, Initializer
from .._core.recurrence import an_initializer, biased_gates, gates_of
from .._core.trees import cast


@dataclasses.dataclass(frozen=True)
class MGU(metaclass=Checked):
    """The GRU with one gate, which resets and updates; gates in the order f, n.

    f = σ(x W_xf + h_{t-1} W_hf + b_f), n = tanh(x W_xn + (f * h_{t-1}) W_hn + b_n), h_t = (1 - f) * h_{t-1} + f * n.

    Args:
        hidden: H, the number of units.
        initializer: how the weights are drawn.
        activation: tanh of n, by name (`"tanh"`, `"relu"`, ...) or as a function.
        gate_activation: σ of the gate f, likewise.

    The gate acts before the recurrent matmul, so a step has two dependent matmuls and this is not a `GatedCell`: use
    `Loop`, `Scan` or `Newton`. The state is h (*batch, H).

    >>> cell = MGU(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)

    Reference: Zhou, Wu, Zhang and Zhou, "Minimal gated unit for recurrent neural networks", 2016, section 3
    (https://arxiv.org/abs/1603.09420).
    """

    hidden: int
    _: dataclasses.KW_ONLY
    initializer: Initializer = GlorotOrthogonal()
    activation: ActivationLike = TANH
    gate_activation: ActivationLike = SIGMOID

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, hidden=size, initializer=an_initializer, activation=activation, gate_activation=activation)

    def init(self, key: jax.Array, in_dim: int) -> GatedParams:
        """Draw w_x (D, 2, H), w_h (H, 2, H) and b (2, H)."""
        return draw_weights(self.initializer, key, check_init(self, key, in_dim), 2, self.hidden)

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return h_0 = 0, (*batch, H), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden))

    @broadcasting
    def step(self, params: GatedParams, state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return (h_t, h_t) from h_{t-1} and x_t (*batch, D)."""
        check_step(self, params, state, x)
        u_f, u_n = biased_gates(x, params.w_x, params.b, state.dtype)
        (v_f,) = cast(gates_of(state, params.w_h[:, :1]), state.dtype)
        f = self.gate_activation(u_f + v_f)
        (v_n,) = cast(gates_of(f * state, params.w_h[:, 1:]), state.dtype)
        h = state + f * (self.activation(u_n + v_n) - state)
        return h, h.astype(params.w_x.dtype)
