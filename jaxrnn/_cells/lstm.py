"""The long short-term memory."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._core.activation import SIGMOID, TANH, activation, is_standard
from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.exportable import exportable
from .._core.fields import convert, number


@exportable
class LSTMState(NamedTuple):
    """h (*batch, H), what is put out and read; c (*batch, H), the memory."""

    h: jax.Array
    c: jax.Array


@dataclasses.dataclass(frozen=True)
class LSTM(GatedCell):
    """The LSTM, its gates in the order i, f, g, o.

    i, f, o = σ(u + v), g = tanh(u_g + v_g), c_t = f * c_{t-1} + i * g, h_t = o * tanh(c_t).

    Args:
        hidden: H, the number of units.
        forget_bias: added to the initial b of the forget gate. It is a matter of `init` alone: converted weights
            need none.
        activation: tanh of g and of c_t, by name (`"tanh"`, `"relu"`, ...) or a function.
        gate_activation: σ of the gates i, f and o, likewise.

    The state is `LSTMState(h, c)`, each (*batch, H).

    >>> cell = LSTM(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> state.c.shape, y.shape
    ((4,), (4,))

    References: Hochreiter and Schmidhuber, "Long short-term memory", 1997; the forget gate: Gers, Schmidhuber and
    Cummins, "Learning to forget", 2000, eq. 4; its bias: Jozefowicz, Zaremba and Sutskever, "An empirical
    exploration of recurrent network architectures", 2015.
    Note: haiku adds 1 inside its gate; ONNX orders the gates i, o, f, c.
    """

    hidden: int
    _: dataclasses.KW_ONLY
    forget_bias: float = 1.0
    activation: Any = TANH
    gate_activation: Any = SIGMOID
    gates = 4

    def __check_init__(self) -> None:
        """Check the forget bias, look up the activations."""
        convert(self, forget_bias=number, activation=activation, gate_activation=activation)

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> LSTMState:
        """h_0 = c_0 = 0, (*batch, H), in the dtype of the params."""
        zeros = zero_state(params, (*batch, self.hidden))
        return LSTMState(zeros, zeros)

    def read(self, s: LSTMState) -> jax.Array:
        """What the recurrent weights see: h."""
        return s.h

    def gate(self, s: LSTMState, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> LSTMState:
        """The equations above."""
        i, f, g, o = (a + b for a, b in zip(u, v, strict=True))
        c = self.gate_activation(f) * s.c + self.gate_activation(i) * self.activation(g)
        return LSTMState(h=self.gate_activation(o) * self.activation(c), c=c)

    def bias_offset(self) -> jax.Array:
        """The forget bias, in the forget gate's row."""
        return forget_offset(self.forget_bias)

    def native(self) -> str | None:
        """Its kernel, which is for sigmoid and tanh."""
        return "lstm" if is_standard(self) else None


def forget_offset(forget_bias: float) -> jax.Array:
    """(4, 1): `forget_bias` for the gate f of i, f, g, o."""
    return jnp.array([[0.0], [forget_bias], [0.0], [0.0]])
