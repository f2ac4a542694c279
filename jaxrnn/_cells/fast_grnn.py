"""FastGRNN: a gated cell with one weight matrix for inputs and one for the state."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.activation import SIGMOID, TANH, ActivationLike, activation
from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.exportable import exportable
from .._core.fields import convert, number

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class FastGRNNLocal(NamedTuple):
    """The params of the gate of a FastGRNN.

    Attributes:
        shift: d, what the bias of the candidate exceeds that of the gate by.
        zeta: the logit of ζ.
        nu: the logit of ν.
    """

    shift: Float[Array, " H"]
    zeta: Float[Array, 1]
    nu: Float[Array, 1]


@dataclasses.dataclass(frozen=True)
class FastGRNN(GatedCell):
    """z = σ(p), c = tanh(p + d), h_t = (ζ (1 - z) + ν) c + z h_{t-1}, with p = u + v: gate and candidate share weights.

    Args:
        hidden: H, the number of units.
        zeta: the logit of ζ at initialization.
        nu: the logit of ν at initialization.
        activation: tanh of c, by name (`"tanh"`, `"relu"`, ...) or as a function.
        gate_activation: σ of z, likewise.

    The state is h (*batch, H). b is the paper's b_z; `params.local` is `FastGRNNLocal(shift, zeta, nu)`, of which
    d = b_h - b_z is the shift, zero at initialization.

    >>> cell = FastGRNN(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> params.w_x.shape, y.shape
    ((3, 1, 4), (4,))

    Reference: Kusupati, Singh, Bhatia, Kumar, Jain and Varma, "FastGRNN: a fast, accurate, stable and tiny kilobyte
    sized gated recurrent neural network", NeurIPS 2018, section 3.2 (https://arxiv.org/abs/1901.02358), without the
    low-rank, sparse and quantized weights.
    """

    hidden: int
    _: dataclasses.KW_ONLY
    zeta: float = 1.0
    nu: float = -4.0
    activation: ActivationLike = TANH
    gate_activation: ActivationLike = SIGMOID
    gates = 1

    def __check_init__(self) -> None:
        """Check the numbers and look up the activations."""
        convert(self, zeta=number, nu=number, activation=activation, gate_activation=activation)

    def init_local(self, key: jax.Array) -> FastGRNNLocal:
        """Return no shift and the logits of ζ and ν."""
        return FastGRNNLocal(jnp.zeros(self.hidden), jnp.array([self.zeta]), jnp.array([self.nu]))

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return h_0 = 0, (*batch, H), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden))

    def read(self, h: jax.Array) -> jax.Array:
        """Return h, which the recurrent weights multiply."""
        return h

    def transition(
        self, local: FastGRNNLocal, h: jax.Array, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]
    ) -> jax.Array:
        """Apply the equations above."""
        p = u[0] + v[0]
        z, c = self.gate_activation(p), self.activation(p + local.shift)
        zeta, nu = jax.nn.sigmoid(local.zeta), jax.nn.sigmoid(local.nu)
        new: jax.Array = (zeta * (1 - z) + nu) * c + z * h
        return new
