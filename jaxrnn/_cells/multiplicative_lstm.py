"""The multiplicative LSTM."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax

from .._core.activation import SIGMOID, TANH, ActivationLike, activation
from .._core.broadcasting import broadcasting
from .._core.cell import draw_weights, zero_state
from .._core.checks import check_step
from .._core.exportable import exportable
from .._core.fields import Checked, check_init, convert, number, size
from .._core.initializers import GlorotOrthogonal, Initializer
from .._core.recurrence import an_initializer, biased_gates, gates_of, input_weights
from .._core.trees import cast
from .lstm import LSTMState, forget_offset

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class MultiplicativeLSTMParams(NamedTuple):
    """Weights of the gates for inputs and for m, the bias, and the two factors of m."""

    w_x: Float[Array, "D 4 H"]
    w_h: Float[Array, "H 4 H"]
    b: Float[Array, "4 H"]
    m_x: Float[Array, "D 1 H"]
    m_h: Float[Array, "H 1 H"]


@dataclasses.dataclass(frozen=True)
class MultiplicativeLSTM(metaclass=Checked):
    """The LSTM whose recurrent weights multiply m = (x M_x) * (h_{t-1} M_h) in the place of h_{t-1}.

    i, f, o = σ(x W_x + m W_h + b), g = tanh(likewise), c_t = f * c_{t-1} + i * g, h_t = o * tanh(c_t), with the gates
    in the order i, f, g, o: every input chooses other recurrent weights.

    Args:
        hidden: H, the number of units.
        forget_bias: added by `init` to b of the forget gate.
        initializer: how the weights are drawn.
        activation: tanh of g and of c_t, by name (`"tanh"`, `"relu"`, ...) or as a function.
        gate_activation: σ of the gates i, f and o, likewise.

    A step has two dependent matmuls, so it is not a `GatedCell`: use `Loop`, `Scan` or `Newton`. The state is
    `LSTMState(h, c)`, each (*batch, H).

    >>> cell = MultiplicativeLSTM(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> state.c.shape, y.shape
    ((4,), (4,))

    Reference: Krause, Lu, Murray and Renals, "Multiplicative LSTM for sequence modelling", 2016, section 3
    (https://arxiv.org/abs/1609.07959), with the output o * tanh(c_t) of an LSTM.
    """

    hidden: int
    _: dataclasses.KW_ONLY
    forget_bias: float = 1.0
    initializer: Initializer = GlorotOrthogonal()
    activation: ActivationLike = TANH
    gate_activation: ActivationLike = SIGMOID

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, hidden=size, forget_bias=number, initializer=an_initializer)
        convert(self, activation=activation, gate_activation=activation)

    def init(self, key: jax.Array, in_dim: int) -> MultiplicativeLSTMParams:
        """Draw the params for inputs of `in_dim` features."""
        in_dim = check_init(self, key, in_dim)
        k_gates, k_x, k_h = jax.random.split(key, 3)
        gates = draw_weights(self.initializer, k_gates, in_dim, 4, self.hidden)
        return MultiplicativeLSTMParams(
            gates.w_x,
            gates.w_h,
            gates.b + forget_offset(self.forget_bias),
            input_weights(self.initializer, k_x, (in_dim, 1, self.hidden)),
            self.initializer.recurrent(k_h, (self.hidden, 1, self.hidden)),
        )

    def initial_state(self, params: MultiplicativeLSTMParams, batch: tuple[int, ...] = ()) -> LSTMState:
        """Return h_0 = c_0 = 0, each (*batch, H), in the dtype of the params."""
        zeros = zero_state(params, (*batch, self.hidden))
        return LSTMState(zeros, zeros)

    @broadcasting
    def step(self, params: MultiplicativeLSTMParams, state: LSTMState, x: jax.Array) -> tuple[LSTMState, jax.Array]:
        """Return (s_t, h_t) from s_{t-1} and x_t (*batch, D)."""
        check_step(self, params, state, x)
        dtype = state.h.dtype
        m = gates_of(x, params.m_x)[0] * gates_of(state.h, params.m_h)[0]
        u, v = biased_gates(x, params.w_x, params.b, dtype), cast(gates_of(m, params.w_h), dtype)
        i, f, g, o = (a + b for a, b in zip(u, v, strict=True))
        c = self.gate_activation(f) * state.c + self.gate_activation(i) * self.activation(g)
        h = self.gate_activation(o) * self.activation(c)
        return LSTMState(h, c), h.astype(params.w_x.dtype)
