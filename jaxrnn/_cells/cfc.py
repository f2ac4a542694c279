"""The closed-form continuous-time cell."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.fields import convert, positive
from .._core.recurrence import biased_gates
from .._core.types import Inputs
from .timed_inputs import split_inputs


@dataclasses.dataclass(frozen=True)
class CfC(GatedCell):
    """h_t = (1 - k) g + k q, with g, q = tanh(u + v) and k = σ(a Δt + b), a and b = u + v: time chooses between two.

    Args:
        hidden: H, the number of units.
        dt: Δt, above 0, of inputs that come without it.

    The inputs are x (..., D), or a pair (x, dt) with the time since the step before, dt (..., 1), at least 0: an array
    of NumPy that is handed to `step` is checked, values on a device are not. The gates are in the order g, q, a, b. The
    state is h (*batch, H).

    >>> cell = CfC(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> xs, dt = jnp.ones((5, 2, 3)), jnp.full((5, 2, 1), 0.5)
    >>> state, ys = unroll(cell, params, (xs, dt))
    >>> ys.shape
    (5, 2, 4)

    Reference: Hasani, Lechner, Amini, Liebenwein, Ray, Tschaikowski, Teschl and Rus, "Closed-form continuous-time
    neural networks", Nature Machine Intelligence 4, 2022, eq. 10 (https://arxiv.org/abs/2106.13898).
    Note: the paper's f is a here, and its b is zero; the authors' code has b. Each of the four is one layer of x and h;
    put the shared layers of the paper's backbone below the cell.
    """

    hidden: int
    _: dataclasses.KW_ONLY
    dt: float = 1.0
    gates = 4

    def __check_init__(self) -> None:
        """Check the time between steps."""
        convert(self, dt=positive)

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return h_0 = 0, (*batch, H), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden))

    def read(self, h: jax.Array) -> jax.Array:
        """Return h, which the recurrent weights multiply."""
        return h

    def project(self, params: GatedParams, x: Inputs) -> tuple[jax.Array, ...]:
        """Return u, and dt (..., 1) if the inputs have it."""
        x, dt = split_inputs(self, x, params.b.dtype)
        u = biased_gates(x, params.w_x, params.b)
        return u if dt is None else (*u, dt)

    def gate(self, h: jax.Array, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> jax.Array:
        """Apply the equation above."""
        dt = u[4] if len(u) == 5 else self.dt
        g, q, a, b = (u_i + v_i for u_i, v_i in zip(u[:4], v, strict=True))
        k, g = jax.nn.sigmoid(a * dt + b), jnp.tanh(g)
        return g + k * (jnp.tanh(q) - g)
