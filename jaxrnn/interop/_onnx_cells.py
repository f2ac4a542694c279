"""ONNX's LSTM with a separate activation for h, or coupled gates, as gated cells that `from_node` returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._cells import LSTMState
from .._cells.peephole_lstm import Peepholes
from .._core.cell import GatedCell, GatedParams
from ._onnx_activations import Activation

_SIGMOID, _TANH = Activation("Sigmoid"), Activation("Tanh")


@dataclasses.dataclass(frozen=True)
class OnnxLSTM(GatedCell):
    """An LSTM with ONNX's three activations f, g and h, its gates in the order i, f, g, o.

    i, f, o = f(u + v), g = g(u_g + v_g), c_t = f * c_{t-1} + i * g, h_t = o * h(c_t); with `input_forget` f = 1 - i.

    Args:
        hidden: H, the number of units.
        gate_activation: f.
        activation: g.
        output_activation: h.
        input_forget: whether the gates i and f are coupled; the weights of f are then unused.

    The state is `LSTMState(h, c)`, each (*batch, H).

    >>> cell = OnnxLSTM(4, activation=Activation("Relu", clip=3.0), input_forget=True)
    >>> params = GatedParams(w_x=jnp.ones((3, 4, 4)), w_h=jnp.ones((4, 4, 4)), b=jnp.ones((4, 4)))
    >>> cell.step(params, cell.initial_state(params), jnp.ones(3))[1].shape
    (4,)

    Note: ONNX clips "the input of activations", so c_t before h too. onnxruntime 1.32 does not clip c_t
    (microsoft/onnxruntime#27224); to compute what it does, use
    `dataclasses.replace(cell, output_activation=Activation("Tanh"))`.
    """

    hidden: int
    gate_activation: Activation = _SIGMOID
    activation: Activation = _TANH
    output_activation: Activation = _TANH
    input_forget: bool = False
    gates = 4

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> LSTMState:
        """Return h_0 = c_0 = 0, (*batch, H), in the dtype of the params."""
        zeros = jnp.zeros((*batch, self.hidden), params.b.dtype)
        return LSTMState(zeros, zeros)

    def read(self, s: LSTMState) -> jax.Array:
        """Return h, which the recurrent weights multiply."""
        return s.h

    def gate(self, s: LSTMState, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> LSTMState:
        """Apply the equations above."""
        i, f, g, o = (a + b for a, b in zip(u, v, strict=True))
        return self.combine(s, i, f, g, lambda c: o)

    def combine(
        self, s: LSTMState, i: jax.Array, f: jax.Array, g: jax.Array, o: Callable[[jax.Array], jax.Array]
    ) -> LSTMState:
        """Return the state from the preactivations of the gates; that of o may depend on c_t."""
        i = self.gate_activation(i)
        f = 1 - i if self.input_forget else self.gate_activation(f)
        c = f * s.c + i * self.activation(g)
        return LSTMState(h=self.gate_activation(o(c)) * self.output_activation(c), c=c)


@dataclasses.dataclass(frozen=True)
class OnnxPeepholeLSTM(OnnxLSTM):
    """`OnnxLSTM` with peepholes p: p_i * c_{t-1}, p_f * c_{t-1} and p_o * c_t are added to the inputs of i, f and o.

    `params.local` is `Peepholes(i, f, o)`, each (H,), zero at first.
    """

    def init_local(self, key: jax.Array) -> Peepholes:
        """Return peepholes of zero."""
        zeros = jnp.zeros(self.hidden)
        return Peepholes(zeros, zeros, zeros)

    def transition(
        self, local: Peepholes, s: LSTMState, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]
    ) -> LSTMState:
        """Apply the equations above."""
        i, f, g, o = (a + b for a, b in zip(u, v, strict=True))
        return self.combine(s, i + local.i * s.c, f + local.f * s.c, g, lambda c: o + local.o * c)
