"""The coupled oscillatory RNN."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.fields import check_init, convert, positive
from .._core.recurrence import Dense, input_weights
from .unicornn import OscillatorState


@dataclasses.dataclass(frozen=True)
class CoRNN(GatedCell):
    """z_t = z_{t-1} + Δt (tanh(u + y_{t-1} W + z_{t-1} V) - γ y_{t-1} - ε z_{t-1}), y_t = y_{t-1} + Δt z_t.

    Every unit is a damped oscillator, driven by the inputs and by the positions and velocities of all units.

    Args:
        hidden: H, the number of units.
        step_size: Δt, above 0.
        frequency: γ, above 0, the squared frequency of an oscillator without inputs.
        damping: ε, above 0.

    The state is `OscillatorState(y, z)`, each (*batch, H). w_h (2 H, 1, H) has the rows of W and then those of V; the
    recurrence is `Dense()`.

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
    gates = 1

    def __check_init__(self) -> None:
        """Check the numbers and the recurrence."""
        convert(self, step_size=positive, frequency=positive, damping=positive)
        if self.recurrence != Dense():
            raise ValueError(f"CoRNN takes recurrence=Dense(), for its weights (2 H, 1, H); got {self.recurrence}")

    def init(self, key: jax.Array, in_dim: int) -> GatedParams:
        """Draw w_x (D, 1, H), W and V as w_h (2 H, 1, H), and b (1, H)."""
        in_dim = check_init(self, key, in_dim)
        k_x, k_y, k_z, k_b = jax.random.split(key, 4)
        square = (self.hidden, 1, self.hidden)
        return GatedParams(
            input_weights(self.initializer, k_x, (in_dim, 1, self.hidden)),
            jnp.concatenate([self.initializer.recurrent(k, square) for k in (k_y, k_z)]),
            self.initializer.bias(k_b, (1, self.hidden)),
        )

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
