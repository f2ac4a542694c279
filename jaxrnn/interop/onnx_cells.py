"""ONNX's GRU and LSTM with other activations, clipping or coupled gates: what `from_node` returns for these."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..cell import GatedCell, GatedParams, cast
from ..cells import LSTMState
from ..cells.peephole_lstm import Peepholes
from ..init import GlorotOrthogonal, Initializer
from ..recurrence import gates_of
from .onnx_activations import Activation

_SIGMOID, _TANH = Activation("Sigmoid"), Activation("Tanh")


@dataclasses.dataclass(frozen=True)
class OnnxLSTM(GatedCell):
    """The LSTM with ONNX's three activations f, g and h, its gates in the order i, f, g, o.

    i, f, o = f(u + v), g = g(u_g + v_g), c_t = f * c_{t-1} + i * g, h_t = o * h(c_t); with `input_forget` f = 1 - i.

    Args:
        hidden: H, the number of units.
        gate_activation: f.
        activation: g.
        output_activation: h.
        input_forget: whether the gates i and f are coupled; the weights of f are then not used.

    The state is `LSTMState(h, c)`, each (*batch, H).

    >>> cell = OnnxLSTM(4, activation=Activation("Relu", clip=3.0), input_forget=True)
    >>> params = GatedParams(w_x=jnp.ones((3, 4, 4)), w_h=jnp.ones((4, 4, 4)), b=jnp.ones((4, 4)))
    >>> cell.step(params, cell.initial_state(params), jnp.ones(3))[1].shape
    (4,)

    Note: ONNX clips "the input of activations", so c_t before h too; onnxruntime 1.32 does not clip c_t
    (microsoft/onnxruntime#27224): `dataclasses.replace(cell, output_activation=Activation("Tanh"))` computes the same.
    """

    hidden: int
    gate_activation: Activation = _SIGMOID
    activation: Activation = _TANH
    output_activation: Activation = _TANH
    input_forget: bool = False
    gates = 4

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> LSTMState:
        """h_0 = c_0 = 0, (*batch, H), in the dtype of the params."""
        zeros = jnp.zeros((*batch, self.hidden), params.b.dtype)
        return LSTMState(zeros, zeros)

    def read(self, s: LSTMState) -> jax.Array:
        """What the recurrent weights see: h."""
        return s.h

    def gate(self, s: LSTMState, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> LSTMState:
        """The equations above."""
        i, f, g, o = (a + b for a, b in zip(u, v, strict=True))
        return self.combine(s, i, f, g, lambda c: o)

    def combine(
        self, s: LSTMState, i: jax.Array, f: jax.Array, g: jax.Array, o: Callable[[jax.Array], jax.Array]
    ) -> LSTMState:
        """Return the state from what each gate's activation is applied to; o may depend on c_t."""
        i = self.gate_activation(i)
        f = 1 - i if self.input_forget else self.gate_activation(f)
        c = f * s.c + i * self.activation(g)
        return LSTMState(h=self.gate_activation(o(c)) * self.output_activation(c), c=c)


@dataclasses.dataclass(frozen=True)
class OnnxPeepholeLSTM(OnnxLSTM):
    """`OnnxLSTM` with peepholes p: p_i * c_{t-1}, p_f * c_{t-1} and p_o * c_t are added to what i, f and o see.

    `params.local` is `Peepholes(i, f, o)`, each (H,), zero at first.
    """

    def init_local(self, key: jax.Array) -> Peepholes:
        """Zeros."""
        zeros = jnp.zeros(self.hidden)
        return Peepholes(zeros, zeros, zeros)

    def transition(
        self, local: Peepholes, s: LSTMState, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]
    ) -> LSTMState:
        """The equations above."""
        i, f, g, o = (a + b for a, b in zip(u, v, strict=True))
        return self.combine(s, i + local.i * s.c, f + local.f * s.c, g, lambda c: o + local.o * c)


@dataclasses.dataclass(frozen=True)
class OnnxGRU(GatedCell):
    """The GRU that resets after the recurrent matmul, with ONNX's two activations; gates in the order r, z, n.

    r, z = f(u + v), n = g(u_n + r * (v_n + b_hn)), h_t = (1 - z) * n + z * h_{t-1}.

    Args:
        hidden: H, the number of units.
        gate_activation: f.
        activation: g.

    The state is h (*batch, H); `params.local` is b_hn (H,).

    >>> cell = OnnxGRU(4, gate_activation=Activation("HardSigmoid", 0.2, 0.5))
    >>> params = GatedParams(jnp.ones((3, 3, 4)), jnp.ones((4, 3, 4)), b=jnp.ones((3, 4)), local=jnp.ones(4))
    >>> cell.step(params, cell.initial_state(params), jnp.ones(3))[1].shape
    (4,)
    """

    hidden: int
    gate_activation: Activation = _SIGMOID
    activation: Activation = _TANH
    gates = 3

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """h_0 = 0, (*batch, H), in the dtype of the params."""
        return jnp.zeros((*batch, self.hidden), params.b.dtype)

    def read(self, h: jax.Array) -> jax.Array:
        """What the recurrent weights see: h."""
        return h

    def gate(self, h: jax.Array, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> jax.Array:
        """The equations above with b_hn = 0."""
        return self.transition(jnp.zeros((), h.dtype), h, u, v)

    def transition(
        self, local: jax.Array, h: jax.Array, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]
    ) -> jax.Array:
        """The equations above."""
        (u_r, u_z, u_n), (v_r, v_z, v_n) = u, v
        r, z = self.gate_activation(u_r + v_r), self.gate_activation(u_z + v_z)
        n = self.activation(u_n + r * (v_n + local))
        return n + z * (h - n)

    def init_local(self, key: jax.Array) -> jax.Array:
        """b_hn, drawn as b is."""
        return self.initializer.bias(key, (1, self.hidden))[0]


@dataclasses.dataclass(frozen=True)
class OnnxResetBeforeGRU:
    """The GRU that resets before the recurrent matmul, with ONNX's two activations; gates in the order r, z, n.

    r, z = f(x W_x + h_{t-1} W_h + b), n = g(x W_xn + (r * h_{t-1}) W_hn + b_n), h_t = (1 - z) * n + z * h_{t-1}.

    Args:
        hidden: H, the number of units.
        gate_activation: f.
        activation: g.
        initializer: how the weights are drawn.

    Two dependent matmuls a step, so a plain cell: for `Loop` and `Scan`. The state is h (*batch, H).
    """

    hidden: int
    gate_activation: Activation = _SIGMOID
    activation: Activation = _TANH
    initializer: Initializer = GlorotOrthogonal()

    def init(self, key: jax.Array, in_dim: int) -> GatedParams:
        """Draw w_x (D, 3, H), w_h (H, 3, H) and b (3, H)."""
        k_x, k_h, k_b = jax.random.split(key, 3)
        return GatedParams(
            self.initializer.input(k_x, (in_dim, 3, self.hidden)),
            self.initializer.recurrent(k_h, (self.hidden, 3, self.hidden)),
            self.initializer.bias(k_b, (3, self.hidden)),
        )

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """h_0 = 0, (*batch, H), in the dtype of the params."""
        return jnp.zeros((*batch, self.hidden), params.b.dtype)

    def step(self, params: GatedParams, state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Compute (h_t, h_t) from h_{t-1} and x_t (*batch, D)."""
        u = gates_of(x, params.w_x)
        u_r, u_z, u_n = cast(tuple(g + b for g, b in zip(u, params.b, strict=True)), state.dtype)
        v_r, v_z = cast(gates_of(state, params.w_h[:, :2]), state.dtype)
        r, z = self.gate_activation(u_r + v_r), self.gate_activation(u_z + v_z)
        (v_n,) = cast(gates_of(r * state, params.w_h[:, 2:]), state.dtype)
        n = self.activation(u_n + v_n)
        h = n + z * (state - n)
        return h, h.astype(params.w_x.dtype)
