"""The LSTM with layer normalisation."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .._core.activation import SIGMOID, TANH, activation
from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.exportable import exportable
from .._core.fields import convert, number
from .._core.recurrence import gates_of
from .._core.trees import cast
from .lstm import LSTMState, forget_offset


@exportable
class LayerNorms(NamedTuple):
    """Gains of the normalised input terms (4, H), recurrent terms (4, H) and memory (H,), and its bias (H,)."""

    input: jax.Array
    recurrent: jax.Array
    memory: jax.Array
    memory_bias: jax.Array


def normalise(rows: jax.Array, axes: tuple[int, ...], epsilon: float) -> jax.Array:
    """To mean 0 and variance 1 over `axes`."""
    centred = rows - rows.mean(axes, keepdims=True)
    variance = jnp.square(centred).mean(axes, keepdims=True)
    return centred * lax.rsqrt(variance + epsilon)


@dataclasses.dataclass(frozen=True)
class LayerNormLSTM(GatedCell):
    """The LSTM whose gate terms and memory are layer-normalised (LN: over all 4H gate units of a row, then over H).

    z = α_x * LN(x W_x) + α_h * LN(h_{t-1} W_h) + b; i, f, g, o from z as in `LSTM`;
    c_t = f * c_{t-1} + i * g, h_t = o * tanh(α_c * LN(c_t) + β_c).

    Args:
        hidden: H, the number of units.
        forget_bias: added to the initial b of the forget gate.
        epsilon: added to each variance.
        activation: tanh of g and of the normalised c_t, by name (`"tanh"`, `"relu"`, ...) or a function.
        gate_activation: σ of the gates i, f and o, likewise.

    The state is `LSTMState(h, c)`, each (*batch, H); `params.local` is `LayerNorms`, ones and zeros at first.

    >>> cell = LayerNormLSTM(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)

    Reference: Ba, Kiros and Hinton, "Layer normalization", 2016, eq. 20 to 22 (https://arxiv.org/abs/1607.06450);
    the biases of its two inner norms are one with b.
    """

    hidden: int
    _: dataclasses.KW_ONLY
    forget_bias: float = 1.0
    epsilon: float = 1e-5
    activation: Any = TANH
    gate_activation: Any = SIGMOID
    gates = 4

    def __check_init__(self) -> None:
        """Check the numbers, look up the activations."""
        convert(self, forget_bias=number, epsilon=number, activation=activation, gate_activation=activation)

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> LSTMState:
        """h_0 = c_0 = 0, (*batch, H), in the dtype of the params."""
        zeros = zero_state(params, (*batch, self.hidden))
        return LSTMState(zeros, zeros)

    def read(self, s: LSTMState) -> jax.Array:
        """What the recurrent weights see: h."""
        return s.h

    def project(self, params: GatedParams, x: jax.Array) -> tuple[jax.Array, ...]:
        """α_x * LN(x W_x) + b."""
        rows = jnp.stack(gates_of(x, params.w_x), axis=-2)
        rows = params.local.input * normalise(rows, (-2, -1), self.epsilon) + params.b
        return tuple(rows[..., k, :] for k in range(4))

    def gate(self, s: LSTMState, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> LSTMState:
        """The equations above with the gains at 1 and β_c at 0."""
        return self.transition(cast(self.init_local(jax.random.key(0)), s.c.dtype), s, u, v)

    def transition(
        self, local: LayerNorms, s: LSTMState, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]
    ) -> LSTMState:
        """The equations above."""
        rows = local.recurrent * normalise(jnp.stack(v, axis=-2), (-2, -1), self.epsilon)
        i, f, g, o = (a + rows[..., k, :] for k, a in enumerate(u))
        c = self.gate_activation(f) * s.c + self.gate_activation(i) * self.activation(g)
        memory = local.memory * normalise(c, (-1,), self.epsilon) + local.memory_bias
        return LSTMState(h=self.gate_activation(o) * self.activation(memory), c=c)

    def init_local(self, key: jax.Array) -> LayerNorms:
        """Gains of 1, a bias of 0."""
        gains = jnp.ones((4, self.hidden))
        return LayerNorms(gains, gains, jnp.ones(self.hidden), jnp.zeros(self.hidden))

    def bias_offset(self) -> jax.Array:
        """The forget bias, in the forget gate's row."""
        return forget_offset(self.forget_bias)
