"""The gated recurrent unit, with the reset gate after or before the recurrent matmul."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from .._core.activation import SIGMOID, TANH, ActivationLike, activation, is_standard
from .._core.broadcasting import broadcasting
from .._core.cell import GatedCell, GatedParams, draw_weights, zero_state
from .._core.checks import check_step
from .._core.fields import Checked, check_init, convert, size
from .._core.initializers import GlorotOrthogonal, Initializer
from .._core.recurrence import an_initializer, biased_gates, gates_of
from .._core.trees import cast


@dataclasses.dataclass(frozen=True)
class GRU(GatedCell):
    """The GRU whose reset gate acts after the recurrent matmul; gates in the order r, z, n.

    r, z = σ(u + v), n = tanh(u_n + r * (v_n + b_hn)), h_t = (1 - z) * n + z * h_{t-1}.

    Args:
        hidden: H, the number of units.
        activation: tanh of n, by name (`"tanh"`, `"relu"`, ...) or as a function.
        gate_activation: σ of the gates r and z, likewise.

    The state is h (*batch, H); `params.local` is the recurrent bias b_hn (H,). The other two recurrent biases of
    torch and cuDNN are part of b.

    >>> cell = GRU(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)

    Reference: Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014, in the form of
    cuDNN, torch, Keras (`reset_after=True`) and flax.
    Note: for the reset before the matmul (the paper, haiku, ONNX's default) use `ResetBeforeGRU`; ONNX orders the
    gates z, r, h; `flax.nnx.GRUCell` has no b_hn.
    """

    hidden: int
    _: dataclasses.KW_ONLY
    activation: ActivationLike = TANH
    gate_activation: ActivationLike = SIGMOID
    gates = 3

    def __check_init__(self) -> None:
        """Look up the activations."""
        convert(self, activation=activation, gate_activation=activation)

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return h_0 = 0, (*batch, H), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden))

    def read(self, h: jax.Array) -> jax.Array:
        """Return h, which the recurrent weights multiply."""
        return h

    def gate(self, h: jax.Array, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> jax.Array:
        """Apply the equations above with b_hn = 0."""
        return self.transition(jnp.zeros((), h.dtype), h, u, v)

    def transition(
        self, local: jax.Array, h: jax.Array, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]
    ) -> jax.Array:
        """Apply the equations above."""
        (u_r, u_z, u_n), (v_r, v_z, v_n) = u, v
        r, z = self.gate_activation(u_r + v_r), self.gate_activation(u_z + v_z)
        n = self.activation(u_n + r * (v_n + local))
        new: jax.Array = n + z * (h - n)
        return new

    def init_local(self, key: jax.Array) -> jax.Array:
        """Draw b_hn as b is drawn."""
        return self.initializer.bias(key, (1, self.hidden))[0]

    def native(self) -> str | None:
        """Return the name of the kernel, which is for sigmoid and tanh."""
        return "gru" if is_standard(self) else None


@dataclasses.dataclass(frozen=True)
class ResetBeforeGRU(metaclass=Checked):
    """The GRU of the original paper: its reset gate acts before the recurrent matmul; gates in the order r, z, n.

    r, z = σ(x W_x + h_{t-1} W_h + b), n = tanh(x W_xn + (r * h_{t-1}) W_hn + b_n), h_t = (1 - z) * n + z * h_{t-1}.

    Args:
        hidden: H, the number of units.
        initializer: how the weights are drawn.
        activation: tanh of n, by name (`"tanh"`, `"relu"`, ...) or as a function.
        gate_activation: σ of the gates r and z, likewise.

    A step has two dependent matmuls, so it is not a `GatedCell`: use `Loop`, `Scan` or `Newton`. The state is h
    (*batch, H).

    >>> cell = ResetBeforeGRU(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)

    Reference: Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014, eq. 5 to 8
    (https://arxiv.org/abs/1406.1078).
    Note: haiku's GRU is this one with z and 1 - z exchanged; in ONNX it is the GRU with `linear_before_reset=0`.
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
        """Draw w_x (D, 3, H), w_h (H, 3, H) and b (3, H)."""
        return draw_weights(self.initializer, key, check_init(self, key, in_dim), 3, self.hidden)

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return h_0 = 0, (*batch, H), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden))

    @broadcasting
    def step(self, params: GatedParams, state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return (h_t, h_t) from h_{t-1} and x_t (*batch, D)."""
        check_step(self, params, state, x)
        u_r, u_z, u_n = biased_gates(x, params.w_x, params.b, state.dtype)
        v_r, v_z = cast(gates_of(state, params.w_h[:, :2]), state.dtype)
        r, z = self.gate_activation(u_r + v_r), self.gate_activation(u_z + v_z)
        (v_n,) = cast(gates_of(r * state, params.w_h[:, 2:]), state.dtype)
        n = self.activation(u_n + v_n)
        h = n + z * (state - n)
        return h, h.astype(params.w_x.dtype)
