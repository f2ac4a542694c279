"""Long expressive memory."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.broadcasting import broadcasting
from .._core.cell import GatedParams, draw_weights, zero_state
from .._core.checks import check_step
from .._core.exportable import exportable
from .._core.fields import Checked, check_init, convert, positive, size
from .._core.initializers import GlorotOrthogonal, Initializer
from .._core.recurrence import an_initializer, biased_gates, gates_of
from .._core.trees import cast

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class LEMState(NamedTuple):
    """y, the output; z, the memory."""

    y: Float[Array, "*batch H"]
    z: Float[Array, "*batch H"]


@dataclasses.dataclass(frozen=True)
class LEM(metaclass=Checked):
    """Two coupled differential equations, each with learned time steps; gates in the order a, b, z, y.

    δ_a = Δt σ(a), δ_b = Δt σ(b), with a and b of x W_x + y_{t-1} W_h + b;
    z_t = (1 - δ_a) z_{t-1} + δ_a tanh(x W_xz + y_{t-1} W_hz + b_z),
    y_t = (1 - δ_b) y_{t-1} + δ_b tanh(x W_xy + z_t W_hy + b_y).

    Args:
        hidden: H, the number of units.
        step_size: Δt, above 0: the largest time step.
        initializer: how the weights are drawn.

    y_t depends on z_t, so a step has two dependent matmuls and this is not a `GatedCell`: use `Loop`, `Scan` or
    `Newton`. The state is `LEMState(y, z)`, each (*batch, H).

    >>> cell = LEM(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> state.z.shape, y.shape
    ((4,), (4,))

    Reference: Rusch, Mishra, Erichson and Mahoney, "Long expressive memory for sequence modeling", ICLR 2022, eq. 3
    (https://arxiv.org/abs/2110.04744).
    """

    hidden: int
    _: dataclasses.KW_ONLY
    step_size: float = 1.0
    initializer: Initializer = GlorotOrthogonal()

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, hidden=size, step_size=positive, initializer=an_initializer)

    def init(self, key: jax.Array, in_dim: int) -> GatedParams:
        """Draw w_x (D, 4, H), w_h (H, 4, H) and b (4, H)."""
        return draw_weights(self.initializer, key, check_init(self, key, in_dim), 4, self.hidden)

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> LEMState:
        """Return y_0 = z_0 = 0, each (*batch, H), in the dtype of the params."""
        zeros = zero_state(params, (*batch, self.hidden))
        return LEMState(zeros, zeros)

    @broadcasting
    def step(self, params: GatedParams, state: LEMState, x: jax.Array) -> tuple[LEMState, jax.Array]:
        """Return (s_t, y_t) from s_{t-1} and x_t (*batch, D)."""
        check_step(self, params, state, x)
        dtype = state.y.dtype
        u_a, u_b, u_z, u_y = biased_gates(x, params.w_x, params.b, dtype)
        v_a, v_b, v_z = cast(gates_of(state.y, params.w_h[:, :3]), dtype)
        step_a, step_b = (self.step_size * jax.nn.sigmoid(g) for g in (u_a + v_a, u_b + v_b))
        z = state.z + step_a * (jnp.tanh(u_z + v_z) - state.z)
        (v_y,) = cast(gates_of(z, params.w_h[:, 3:]), dtype)
        y = state.y + step_b * (jnp.tanh(u_y + v_y) - state.y)
        return LEMState(y, z), y.astype(params.w_x.dtype)
