"""The scalar memory of xLSTM: an LSTM with exponential gates."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.activation import SIGMOID, TANH, Activation, ActivationLike, activation
from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.exportable import exportable
from .._core.fields import convert, number, show
from .lstm import forget_offset

if TYPE_CHECKING:
    from jaxtyping import Array, Float

EXP = Activation("exp")


@exportable
class SLSTMState(NamedTuple):
    """h, the output and what the recurrent weights multiply; c, the memory; n, its normalizer; m, the stabilizer."""

    h: Float[Array, "*batch H"]
    c: Float[Array, "*batch H"]
    n: Float[Array, "*batch H"]
    m: Float[Array, "*batch H"]


@dataclasses.dataclass(frozen=True)
class SLSTM(GatedCell):
    """The sLSTM, its gates in the order i, f, z, o.

    i = exp(ĩ), f = σ(f̃) or exp(f̃), z = tanh(z̃), o = σ(õ), each of u + v;
    c_t = f c_{t-1} + i z, n_t = f n_{t-1} + i, h_t = o c_t / n_t.

    No exponential overflows, since c and n are kept divided by exp(m), the largest factor that either has met:
    m_t = max(log f + m_{t-1}, ĩ), with exp(ĩ - m_t) for i and exp(log f + m_{t-1} - m_t) for f. Where n_{t-1} is 0, as
    before the first step, m_t is ĩ.

    Args:
        hidden: H, the number of units.
        forget_bias: added by `init` to b of the forget gate. `step` does not add it again.
        activation: tanh of z, by name (`"tanh"`, `"relu"`, ...) or as a function.
        forget_activation: "sigmoid" or "exp", the forget gate.

    `recurrence=Heads(n)` makes it the paper's cell of n heads. The state is `SLSTMState(h, c, n, m)`, each (*batch, H).

    >>> cell = SLSTM(4, recurrence=Heads(2))
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> state.n.shape, y.shape
    ((4,), (4,))

    Reference: Beck et al., "xLSTM: extended long short-term memory", 2024, eq. 8 to 17
    (https://arxiv.org/abs/2405.04517).
    """

    hidden: int
    _: dataclasses.KW_ONLY
    forget_bias: float = 1.0
    activation: ActivationLike = TANH
    forget_activation: ActivationLike = SIGMOID
    gates = 4

    def __check_init__(self) -> None:
        """Check the forget bias and look up the activations."""
        convert(self, forget_bias=number, activation=activation, forget_activation=a_forget_activation)

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> SLSTMState:
        """Return zeros, each (*batch, H), in the dtype of the params."""
        zeros = zero_state(params, (*batch, self.hidden))
        return SLSTMState(zeros, zeros, zeros, zeros)

    def read(self, s: SLSTMState) -> jax.Array:
        """Return h, which the recurrent weights multiply."""
        return s.h

    def gate(self, s: SLSTMState, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> SLSTMState:
        """Apply the equations above."""
        i, f, z, o = (a + b for a, b in zip(u, v, strict=True))
        log_f = f if self.forget_activation == EXP else jax.nn.log_sigmoid(f)
        kept = jnp.where(s.n == 0, -jnp.inf, log_f + s.m)
        m = jnp.maximum(kept, i)
        i, f = jnp.exp(i - m), jnp.exp(kept - m)
        c, n = f * s.c + i * self.activation(z), f * s.n + i
        return SLSTMState(h=jax.nn.sigmoid(o) * c / n, c=c, n=n, m=m)

    def bias_offset(self) -> jax.Array:
        """Return the forget bias, in the row of the forget gate."""
        return forget_offset(self.forget_bias)


def a_forget_activation(given: object, what: str) -> ActivationLike:
    """Return `Activation("sigmoid")` or `Activation("exp")`; raise ValueError for any other."""
    found = activation(given, what)
    if found not in (SIGMOID, EXP):
        raise ValueError(f'{what} must be "sigmoid" or "exp", whose logarithm the cell uses; got {show(given)}')
    return found
