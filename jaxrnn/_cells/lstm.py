"""The long short-term memory."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.activation import SIGMOID, TANH, ActivationLike, activation, is_standard
from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.exportable import exportable
from .._core.fields import convert, number

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class LSTMState(NamedTuple):
    """h, the output and what the recurrent weights multiply; c, the memory."""

    h: Float[Array, "*batch H"]
    c: Float[Array, "*batch H"]


@dataclasses.dataclass(frozen=True)
class LSTM(GatedCell):
    """The LSTM, its gates in the order i, f, g, o.

    i, f, o = σ(u + v), g = tanh(u_g + v_g), c_t = f * c_{t-1} + i * g, h_t = o * tanh(c_t).

    Args:
        hidden: H, the number of units.
        forget_bias: added by `init` to b of the forget gate. `step` does not add it again.
        activation: tanh of g and of c_t, by name (`"tanh"`, `"relu"`, ...) or as a function.
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
    activation: ActivationLike = TANH
    gate_activation: ActivationLike = SIGMOID
    gates = 4

    def __check_init__(self) -> None:
        """Check the forget bias and look up the activations."""
        convert(self, forget_bias=number, activation=activation, gate_activation=activation)

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> LSTMState:
        """Return h_0 = c_0 = 0, (*batch, H), in the dtype of the params."""
        zeros = zero_state(params, (*batch, self.hidden))
        return LSTMState(zeros, zeros)

    def read(self, s: LSTMState) -> jax.Array:
        """Return h, which the recurrent weights multiply."""
        return s.h

    def gate(self, s: LSTMState, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> LSTMState:
        """Apply the equations above."""
        i, f, g, o = (a + b for a, b in zip(u, v, strict=True))
        c = self.gate_activation(f) * s.c + self.gate_activation(i) * self.activation(g)
        return LSTMState(h=self.gate_activation(o) * self.activation(c), c=c)

    def bias_offset(self) -> jax.Array:
        """Return the forget bias, in the row of the forget gate."""
        return forget_offset(self.forget_bias)

    def native(self) -> str | None:
        """Return the name of the kernel, which is for sigmoid and tanh."""
        return "lstm" if is_standard(self) else None


def forget_offset(forget_bias: float) -> Float[Array, "4 1"]:
    """Return `forget_bias` in the row of the gate f of i, f, g, o, and zeros elsewhere."""
    return jnp.array([[0.0], [forget_bias], [0.0], [0.0]])
