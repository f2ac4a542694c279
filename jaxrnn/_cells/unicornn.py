"""UnICORNN: undamped independent oscillators."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.exportable import exportable
from .._core.fields import convert, number, positive
from .._core.initializers import Initializer
from .._core.recurrence import Diagonal, Recurrence
from .ind_rnn import IndRNNInit

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class OscillatorState(NamedTuple):
    """y, the positions, which are the output; z, their velocities."""

    y: Float[Array, "*batch H"]
    z: Float[Array, "*batch H"]


@dataclasses.dataclass(frozen=True)
class UnICORNN(GatedCell):
    """z_t = z_{t-1} - δ (tanh(u + w y_{t-1}) + α y_{t-1}), y_t = y_{t-1} + δ z_t, with δ = Δt σ(c): oscillators.

    Every unit is an undamped oscillator with a learned time step, local param c (H,): the discretization is symplectic,
    and its gradient neither explodes nor vanishes over long sequences.

    Args:
        hidden: H, the number of units.
        step_size: Δt, above 0.
        frequency: α, at least 0, the squared frequency of an oscillator without inputs.

    The state is `OscillatorState(y, z)`, each (*batch, H).

    >>> cell = UnICORNN(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)

    Reference: Rusch and Mishra, "UnICORNN: a recurrent model for learning very long time dependencies", ICML 2021,
    eq. 2 (https://arxiv.org/abs/2103.05487).
    """

    hidden: int
    _: dataclasses.KW_ONLY
    step_size: float = 0.1
    frequency: float = 1.0
    recurrence: Recurrence = Diagonal()
    initializer: Initializer = IndRNNInit()
    gates = 1

    def __check_init__(self) -> None:
        """Check the numbers."""
        convert(self, step_size=positive, frequency=number)
        if self.frequency < 0:
            raise ValueError(f"UnICORNN.frequency must be at least 0; got {self.frequency}")

    def init_local(self, key: jax.Array) -> jax.Array:
        """Draw c from U(-0.1, 0.1)."""
        return jax.random.uniform(key, (self.hidden,), minval=-0.1, maxval=0.1)

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> OscillatorState:
        """Return y_0 = z_0 = 0, (*batch, H), in the dtype of the params."""
        zeros = zero_state(params, (*batch, self.hidden))
        return OscillatorState(zeros, zeros)

    def read(self, s: OscillatorState) -> jax.Array:
        """Return y, which the recurrent weights multiply."""
        return s.y

    def transition(
        self, local: jax.Array, s: OscillatorState, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]
    ) -> OscillatorState:
        """Apply the equations above."""
        step = self.step_size * jax.nn.sigmoid(local)
        z = s.z - step * (jnp.tanh(u[0] + v[0]) + self.frequency * s.y)
        return OscillatorState(s.y + step * z, z)
