"""The coupled oscillatory RNN."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.fields import convert, positive
from .._core.initializers import Initializer
from .._core.recurrence import Recurrence, gates_of
from .unicornn import OscillatorState


@dataclasses.dataclass(frozen=True)
class StackedDense:
    """v = (y, z) W with W (2 H, G, H): every unit depends on both numbers of every unit."""

    def init(self, key: jax.Array, initializer: Initializer, gates: int, hidden: int) -> jax.Array:
        """Draw the weights of y and those of z separately, W (2 H, G, H)."""
        return jnp.concatenate([initializer.recurrent(k, (hidden, gates, hidden)) for k in jax.random.split(key)])

    def __call__(self, w: jax.Array, r: jax.Array) -> tuple[jax.Array, ...]:
        """Apply W to r (..., 2 H): G arrays (..., H)."""
        return gates_of(r, w)


@dataclasses.dataclass(frozen=True)
class CoRNN(GatedCell):
    """z_t = z_{t-1} + Δt (tanh(u + y_{t-1} W + z_{t-1} V) - γ y_{t-1} - ε z_{t-1}), y_t = y_{t-1} + Δt z_t.

    Every unit is a damped oscillator, driven by the inputs and by the positions and velocities of all units.

    Args:
        hidden: H, the number of units.
        step_size: Δt, above 0.
        frequency: γ, above 0, the squared frequency of an oscillator without inputs.
        damping: ε, above 0.

    The state is `OscillatorState(y, z)`, each (*batch, H). w_h (2 H, 1, H) has the rows of W and then those of V.

    >>> cell = CoRNN(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> params.w_h.shape, y.shape
    ((8, 1, 4), (4,))

    Reference: Rusch and Mishra, "Coupled oscillatory recurrent neural network (coRNN): an accurate and (gradient)
    stable architecture for learning long time dependencies", ICLR 2021, eq. 3 (https://arxiv.org/abs/2010.00951).
    Note: the paper damps by z_{t-1} or by z_t; this is the former, the explicit scheme of the authors' code.
    """

    hidden: int
    _: dataclasses.KW_ONLY
    step_size: float = 0.05
    frequency: float = 1.0
    damping: float = 1.0
    recurrence: Recurrence = StackedDense()
    gates = 1

    def __check_init__(self) -> None:
        """Check the numbers and the recurrence."""
        convert(self, step_size=positive, frequency=positive, damping=positive)
        if self.recurrence != StackedDense():
            raise ValueError(f"CoRNN has its own recurrence, with weights (2 H, 1, H); got {self.recurrence}. Omit it.")

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> OscillatorState:
        """Return y_0 = z_0 = 0, (*batch, H), in the dtype of the params."""
        zeros = zero_state(params, (*batch, self.hidden))
        return OscillatorState(zeros, zeros)

    def read(self, s: OscillatorState) -> jax.Array:
        """Return y and z, (*batch, 2 H), which the recurrent weights multiply."""
        return jnp.concatenate([s.y, s.z], -1)

    def gate(self, s: OscillatorState, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> OscillatorState:
        """Apply the equations above."""
        force = jnp.tanh(u[0] + v[0]) - self.frequency * s.y - self.damping * s.z
        z = s.z + self.step_size * force
        return OscillatorState(s.y + self.step_size * z, z)

    def output(self, params: GatedParams, s: OscillatorState, x: jax.Array) -> jax.Array:
        """Return y, in the dtype of the params."""
        return s.y.astype(params.w_x.dtype)
