"""The LSTM with layer normalization."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .._core.activation import SIGMOID, TANH, ActivationLike, activation
from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.exportable import exportable
from .._core.fields import convert, number
from .._core.recurrence import gates_of
from .._core.trees import cast
from .lstm import LSTMState, forget_offset

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class LayerNorms(NamedTuple):
    """The params of the layer norms: gains of x W_x, of h W_h and of the memory, and the bias of the last."""

    input: Float[Array, "4 H"]
    recurrent: Float[Array, "4 H"]
    memory: Float[Array, " H"]
    memory_bias: Float[Array, " H"]


def normalize(rows: jax.Array, axes: tuple[int, ...], epsilon: float) -> jax.Array:
    """Normalize to mean 0 and variance 1 over `axes`."""
    centered = rows - rows.mean(axes, keepdims=True)
    variance = jnp.square(centered).mean(axes, keepdims=True)
    return centered * lax.rsqrt(variance + epsilon)


@dataclasses.dataclass(frozen=True)
class LayerNormLSTM(GatedCell):
    """The LSTM with layer norms (LN) of x W_x and h W_h, over all 4H units of the gates, and of c over H.

    z = α_x * LN(x W_x) + α_h * LN(h_{t-1} W_h) + b; i, f, g, o from z as in `LSTM`;
    c_t = f * c_{t-1} + i * g, h_t = o * tanh(α_c * LN(c_t) + β_c).

    Args:
        hidden: H, the number of units.
        forget_bias: added to the initial b of the forget gate.
        epsilon: added to each variance.
        activation: tanh of g and of the normalized c_t, by name (`"tanh"`, `"relu"`, ...) or as a function.
        gate_activation: σ of the gates i, f and o, likewise.

    The state is `LSTMState(h, c)`, each (*batch, H); `params.local` is a `LayerNorms` of gains 1 and bias 0.

    >>> cell = LayerNormLSTM(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)

    Reference: Ba, Kiros and Hinton, "Layer normalization", 2016, eq. 20 to 22 (https://arxiv.org/abs/1607.06450);
    the biases of the first two norms are part of b.
    """

    hidden: int
    _: dataclasses.KW_ONLY
    forget_bias: float = 1.0
    epsilon: float = 1e-5
    activation: ActivationLike = TANH
    gate_activation: ActivationLike = SIGMOID
    gates = 4

    def __check_init__(self) -> None:
        """Check the numbers and look up the activations."""
        convert(self, forget_bias=number, epsilon=number, activation=activation, gate_activation=activation)

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> LSTMState:
        """Return h_0 = c_0 = 0, (*batch, H), in the dtype of the params."""
        zeros = zero_state(params, (*batch, self.hidden))
        return LSTMState(zeros, zeros)

    def read(self, s: LSTMState) -> jax.Array:
        """Return h, which the recurrent weights multiply."""
        return s.h

    def project(self, params: GatedParams, x: jax.Array) -> tuple[jax.Array, ...]:
        """Return α_x * LN(x W_x) + b, 4 arrays (..., H)."""
        rows = jnp.stack(gates_of(x, params.w_x), axis=-2)
        rows = params.local.input * normalize(rows, (-2, -1), self.epsilon) + params.b
        return tuple(rows[..., k, :] for k in range(4))

    def gate(self, s: LSTMState, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> LSTMState:
        """Apply the equations above with gains of 1 and β_c = 0."""
        return self.transition(cast(self.init_local(jax.random.key(0)), s.c.dtype), s, u, v)

    def transition(
        self, local: LayerNorms, s: LSTMState, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]
    ) -> LSTMState:
        """Apply the equations above."""
        rows = local.recurrent * normalize(jnp.stack(v, axis=-2), (-2, -1), self.epsilon)
        i, f, g, o = (a + rows[..., k, :] for k, a in enumerate(u))
        c = self.gate_activation(f) * s.c + self.gate_activation(i) * self.activation(g)
        memory = local.memory * normalize(c, (-1,), self.epsilon) + local.memory_bias
        return LSTMState(h=self.gate_activation(o) * self.activation(memory), c=c)

    def init_local(self, key: jax.Array) -> LayerNorms:
        """Return gains of 1 and a bias of 0."""
        gains = jnp.ones((4, self.hidden))
        return LayerNorms(gains, gains, jnp.ones(self.hidden), jnp.zeros(self.hidden))

    def bias_offset(self) -> jax.Array:
        """Return the forget bias, in the row of the forget gate."""
        return forget_offset(self.forget_bias)
