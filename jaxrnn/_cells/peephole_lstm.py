"""The LSTM with peephole connections from the memory to the gates."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.activation import SIGMOID, TANH, ActivationLike, activation
from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.exportable import exportable
from .._core.fields import convert, number
from .lstm import LSTMState, forget_offset

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class Peepholes(NamedTuple):
    """Weights from the memory to the gates."""

    i: Float[Array, " H"]
    f: Float[Array, " H"]
    o: Float[Array, " H"]


@dataclasses.dataclass(frozen=True)
class PeepholeLSTM(GatedCell):
    """The LSTM with peepholes p: i and f depend on c_{t-1}, o depends on c_t.

    i = σ(u_i + v_i + p_i * c_{t-1}), f = σ(u_f + v_f + p_f * c_{t-1}), g = tanh(u_g + v_g),
    c_t = f * c_{t-1} + i * g, o = σ(u_o + v_o + p_o * c_t), h_t = o * tanh(c_t).

    Args:
        hidden: H, the number of units.
        forget_bias: added to the initial b of the forget gate.
        activation: tanh of g and of c_t, by name (`"tanh"`, `"relu"`, ...) or as a function.
        gate_activation: σ of the gates i, f and o, likewise.

    The state is `LSTMState(h, c)`, each (*batch, H); `params.local` is `Peepholes(i, f, o)`, initially zero.

    >>> cell = PeepholeLSTM(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)

    Reference: Gers and Schmidhuber, "Recurrent nets that time and count", 2000; in the form of Graves, "Generating
    sequences with recurrent neural networks", 2013, eq. 7 to 11 (https://arxiv.org/abs/1308.0850).
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
        """Apply the equations above with p = 0."""
        zero = jnp.zeros_like(s.c)
        return self.transition(Peepholes(zero, zero, zero), s, u, v)

    def transition(
        self, local: Peepholes, s: LSTMState, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]
    ) -> LSTMState:
        """Apply the equations above."""
        i, f, g, o = (a + b for a, b in zip(u, v, strict=True))
        f, i = self.gate_activation(f + local.f * s.c), self.gate_activation(i + local.i * s.c)
        c = f * s.c + i * self.activation(g)
        return LSTMState(h=self.gate_activation(o + local.o * c) * self.activation(c), c=c)

    def init_local(self, key: jax.Array) -> Peepholes:
        """Return zeros: training starts from a plain LSTM."""
        zeros = jnp.zeros(self.hidden)
        return Peepholes(zeros, zeros, zeros)

    def bias_offset(self) -> jax.Array:
        """Return the forget bias, in the row of the forget gate."""
        return forget_offset(self.forget_bias)
