"""The liquid time constant network."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.broadcasting import broadcasting
from .._core.cell import draw_weights, zero_state
from .._core.checks import check_step
from .._core.exportable import exportable
from .._core.fields import Checked, check_init, convert, positive, size
from .._core.initializers import GlorotOrthogonal, Initializer
from .._core.recurrence import an_initializer, biased_gates, gates_of
from .._core.trees import cast
from .._core.types import Inputs
from .timed_inputs import split_inputs

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class LTCParams(NamedTuple):
    """Weights and bias of f, the levels A that f pulls the state to, and log τ."""

    w_x: Float[Array, "D 1 H"]
    w_h: Float[Array, "H 1 H"]
    b: Float[Array, "1 H"]
    a: Float[Array, " H"]
    log_tau: Float[Array, " H"]


@dataclasses.dataclass(frozen=True)
class LTC(metaclass=Checked):
    """dh/dt = -(1 / τ + f) h + f A, with f = σ(x W_x + h W_h + b): the inputs choose the time constants.

    A step takes L steps of the fused Euler solver, implicit in h and explicit in f, each of δ = Δt / L:
    h ← (h + δ f A) / (1 + δ (1 / τ + f)).

    Args:
        hidden: H, the number of units.
        unfolds: L, the solver's steps in a step of the cell.
        tau: τ at initialization, above 0.
        dt: Δt, above 0, of inputs that come without it.
        initializer: how the weights of f are drawn.

    The inputs are x (..., D), or a pair (x, dt) with the time since the step before, dt (..., 1), at least 0: an array
    of NumPy that is handed to `step` is checked, values on a device are not. A step has L dependent matmuls, so it is
    not a `GatedCell`: use `Loop`, `Scan` or `Newton`. The state is h (*batch, H).

    >>> cell = LTC(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> xs, dt = jnp.ones((5, 2, 3)), jnp.full((5, 2, 1), 0.5)
    >>> state, ys = unroll(cell, params, (xs, dt))
    >>> ys.shape
    (5, 2, 4)

    Reference: Hasani, Lechner, Amini, Rus and Grosu, "Liquid time-constant networks", AAAI 2021, eq. 3 and algorithm 1
    (https://arxiv.org/abs/2006.04439).
    Note: f is σ, which is positive, so that no denominator is zero; the authors' later code has one for every synapse.
    """

    hidden: int
    _: dataclasses.KW_ONLY
    unfolds: int = 6
    tau: float = 1.0
    dt: float = 1.0
    initializer: Initializer = GlorotOrthogonal()

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, hidden=size, unfolds=size, tau=positive, dt=positive, initializer=an_initializer)

    def init(self, key: jax.Array, in_dim: int) -> LTCParams:
        """Draw the weights of f, and A from U(-1, 1)."""
        in_dim = check_init(self, key, in_dim)
        k_f, k_a = jax.random.split(key)
        w_x, w_h, b, _ = draw_weights(self.initializer, k_f, in_dim, 1, self.hidden)
        a = jax.random.uniform(k_a, (self.hidden,), minval=-1.0, maxval=1.0)
        return LTCParams(w_x, w_h, b, a, jnp.full(self.hidden, math.log(self.tau)))

    def initial_state(self, params: LTCParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return h_0 = 0, (*batch, H), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden))

    @broadcasting
    def step(self, params: LTCParams, state: jax.Array, x: Inputs) -> tuple[jax.Array, jax.Array]:
        """Return (h_t, h_t) from h_{t-1} and x_t (*batch, D), or (x_t, dt)."""
        x, dt = split_inputs(self, x, state.dtype)
        check_step(self, params, state, x)
        delta = (self.dt if dt is None else dt) / self.unfolds
        a, log_tau = cast((params.a, params.log_tau), state.dtype)
        (u,) = biased_gates(x, params.w_x, params.b, state.dtype)
        leak, h = jnp.exp(-log_tau), state
        for _ in range(self.unfolds):
            (v,) = cast(gates_of(h, params.w_h), state.dtype)
            f = jax.nn.sigmoid(u + v)
            h = (h + delta * f * a) / (1 + delta * (leak + f))
        return h, h.astype(params.w_x.dtype)
