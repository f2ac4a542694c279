"""The LSTM whose output is projected to fewer features."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax

from .._core.activation import SIGMOID, TANH, ActivationLike, activation
from .._core.broadcasting import broadcasting
from .._core.cell import zero_state
from .._core.checks import check_step
from .._core.exportable import exportable
from .._core.fields import Checked, check_init, convert, number, size
from .._core.initializers import GlorotOrthogonal, Initializer, projection_weights
from .._core.recurrence import an_initializer, gates_of, input_weights
from .._core.trees import cast, float_dtype
from .lstm import LSTMState, forget_offset

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class ProjectedLSTMParams(NamedTuple):
    """Weights of inputs and of the projected output, the bias, and the projection."""

    w_x: Float[Array, "D 4 H"]
    w_h: Float[Array, "P 4 H"]
    b: Float[Array, "4 H"]
    w_p: Float[Array, "H P"]


@dataclasses.dataclass(frozen=True)
class ProjectedLSTM(metaclass=Checked):
    """The LSTM whose output is projected: h_t = (o * tanh(c_t)) W_p, otherwise as in `LSTM`.

    Args:
        hidden: H, the size of the memory.
        projection: P, the size of the output h, which is also the recurrent input; smaller than H.
        forget_bias: added to the initial b of the forget gate.
        initializer: how the weights are drawn.
        activation: tanh of g and of c_t, by name (`"tanh"`, `"relu"`, ...) or as a function.
        gate_activation: σ of the gates i, f and o, likewise.

    The state is `LSTMState(h, c)`, h (*batch, P) and c (*batch, H). A step has two dependent matmuls, so it is
    not a `GatedCell`: use `Loop`, `Scan` or `Newton`.

    >>> cell = ProjectedLSTM(8, projection=3)
    >>> params = cell.init(jax.random.key(0), in_dim=5)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(5))
    >>> y.shape, state.c.shape
    ((3,), (8,))

    Reference: Sak, Senior and Beaufays, "Long short-term memory based recurrent neural network architectures for
    large vocabulary speech recognition", 2014, eq. 7 to 13 (https://arxiv.org/abs/1402.1128), without peepholes
    and without the non-recurrent projection. It equals torch's `nn.LSTM(proj_size=P)`.
    """

    hidden: int
    projection: int
    _: dataclasses.KW_ONLY
    forget_bias: float = 1.0
    initializer: Initializer = GlorotOrthogonal()
    activation: ActivationLike = TANH
    gate_activation: ActivationLike = SIGMOID

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, hidden=size, projection=size, forget_bias=number, initializer=an_initializer)
        convert(self, activation=activation, gate_activation=activation)
        if self.projection >= self.hidden:
            raise ValueError(
                f"ProjectedLSTM projects hidden={self.hidden} units to fewer; got projection={self.projection}. The "
                "number of input features goes to init(key, in_dim), not here."
            )

    def init(self, key: jax.Array, in_dim: int) -> ProjectedLSTMParams:
        """Draw the params for inputs of `in_dim` features."""
        in_dim = check_init(self, key, in_dim)
        k_x, k_h, k_b, k_p = jax.random.split(key, 4)
        return ProjectedLSTMParams(
            input_weights(self.initializer, k_x, (in_dim, 4, self.hidden)),
            self.initializer.recurrent(k_h, (self.projection, 4, self.hidden)),
            self.initializer.bias(k_b, (4, self.hidden)) + forget_offset(self.forget_bias),
            projection_weights(self.initializer, k_p, (self.hidden, self.projection)),
        )

    def initial_state(self, params: ProjectedLSTMParams, batch: tuple[int, ...] = ()) -> LSTMState:
        """Return h_0 = 0, (*batch, P), and c_0 = 0, (*batch, H), in the dtype of the params."""
        return LSTMState(zero_state(params, (*batch, self.projection)), zero_state(params, (*batch, self.hidden)))

    @broadcasting
    def step(self, params: ProjectedLSTMParams, state: LSTMState, x: jax.Array) -> tuple[LSTMState, jax.Array]:
        """Return (s_t, h_t) from s_{t-1} and x_t (*batch, D)."""
        check_step(self, params, state, x)
        dtype = params.w_x.dtype
        u = gates_of(x, params.w_x)
        v = gates_of(state.h, params.w_h)
        gates = tuple(a + b + c for a, b, c in zip(u, v, params.b, strict=True))
        i, f, g, o = cast(gates, float_dtype(state))
        c = self.gate_activation(f) * state.c + self.gate_activation(i) * self.activation(g)
        h = (self.gate_activation(o) * self.activation(c)).astype(dtype) @ params.w_p
        return LSTMState(h.astype(state.h.dtype), c), h
