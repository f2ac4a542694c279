"""S6: the selective state-space model of Mamba."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.affine_cell import AffineCell
from .._core.cell import zero_state
from .._core.exportable import exportable
from .._core.fields import check_init_per_unit, convert, positive, size, size_or_none
from .._core.recurrence import check_features
from .._core.trees import at_least_float32
from .state_space import draw_log_step

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class S6Params(NamedTuple):
    """The params of an S6 with H features, N states of each, and steps of rank R.

    Attributes:
        w_down: weights from x to the R numbers that Δ is made of.
        w_up: weights from those to Δ.
        b: bias of Δ.
        w_b: weights of the input vector B.
        w_c: weights of the output vector C.
        log_decay: log of -A.
        d: weights of the skip connection.
    """

    w_down: Float[Array, "H R"]
    w_up: Float[Array, "R H"]
    b: Float[Array, " H"]
    w_b: Float[Array, "H N"]
    w_c: Float[Array, "H N"]
    log_decay: Float[Array, "H N"]
    d: Float[Array, " H"]


@dataclasses.dataclass(frozen=True)
class S6(AffineCell):
    """s_t = exp(Δ_t A) * s_{t-1} + Δ_t B_t x_t, y_t = s_t C_t + d x_t: N states s of each feature, selected by x.

    Δ = softplus(x W_down W_up + b) (H), B = x W_b (N) and C = x W_c (N) follow from x_t, and A = -exp(log_decay) (H, N)
    is constant: for feature h and state n, s_hn decays by exp(Δ_h A_hn) and gains Δ_h B_n x_h.

    Args:
        hidden: H, the number of features of the inputs and of the outputs.
        states: N, the states of a feature.
        step_rank: R, the rank of W_down W_up (`dt_rank` in the published code); None for H / 16 rounded up.
        min_step: the smallest Δ at initialization (for an input of zeros), before `step_floor`.
        max_step: the largest Δ at initialization.
        step_floor: a lower bound of Δ at initialization.

    A starts at -1, ..., -N for every feature (S4D-Real), d at one. The state is s (*batch, H N), in the dtype of the
    params; Δ and exp(Δ A) are computed in at least float32. A driver keeps arrays (T, *batch, H N).

    >>> cell = S6(4, states=8)
    >>> params = cell.init(jax.random.key(0), in_dim=4)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(4))
    >>> state.shape, y.shape
    ((32,), (4,))

    Reference: Gu and Dao, "Mamba: linear-time sequence modeling with selective state spaces", 2023, algorithm 2 and
    section 3.6 (https://arxiv.org/abs/2312.00752).
    Note: the paper's eq. 4 discretizes B by a zero-order hold; its code, and this cell, take Δ B.
    """

    hidden: int
    _: dataclasses.KW_ONLY
    states: int = 16
    step_rank: int | None = None
    min_step: float = 1e-3
    max_step: float = 1e-1
    step_floor: float = 1e-4

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, states=size, step_rank=size_or_none, min_step=positive, max_step=positive, step_floor=positive)
        if self.min_step > self.max_step:
            raise ValueError(f"S6 needs min_step <= max_step; got {self.min_step} and {self.max_step}")

    def init(self, key: jax.Array, in_dim: int) -> S6Params:
        """Draw the params as the published code does; raise ValueError unless D = H."""
        in_dim, rank = check_init_per_unit(self, key, in_dim), self.step_rank or -(-self.hidden // 16)
        k_down, k_up, k_step, k_b, k_c = jax.random.split(key, 5)
        draw = lambda key, bound, *shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)
        step = jnp.exp(draw_log_step(k_step, (self.hidden,), self.min_step, self.max_step))
        step = jnp.maximum(step, self.step_floor)
        decay = jnp.arange(1, self.states + 1, dtype=step.dtype)
        return S6Params(
            draw(k_down, in_dim**-0.5, in_dim, rank),
            draw(k_up, rank**-0.5, rank, self.hidden),
            step + jnp.log(-jnp.expm1(-step)),  # whose softplus is the step
            draw(k_b, in_dim**-0.5, in_dim, self.states),
            draw(k_c, in_dim**-0.5, in_dim, self.states),
            jnp.broadcast_to(jnp.log(decay), (self.hidden, self.states)),
            jnp.ones(self.hidden),
        )

    def initial_state(self, params: S6Params, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return s_0 = 0, (*batch, H N), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden * self.states))

    def affine(self, params: S6Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return exp(Δ A) and Δ B x, each (..., H N)."""
        check_features(x, params.w_down)
        dtype = params.b.dtype
        wide, x = at_least_float32(dtype), x.astype(dtype)
        step = jax.nn.softplus((x @ params.w_down @ params.w_up + params.b).astype(wide))[..., None]
        a = jnp.exp(-step * jnp.exp(params.log_decay.astype(wide)))
        b = step * x.astype(wide)[..., None] * (x @ params.w_b).astype(wide)[..., None, :]
        flat = (*x.shape[:-1], self.hidden * self.states)
        return a.reshape(flat), b.reshape(flat)

    def output(self, params: S6Params, s: jax.Array, x: jax.Array) -> jax.Array:
        """Return s C + d x, (..., H)."""
        dtype = params.b.dtype
        s, x = s.astype(dtype).reshape(*s.shape[:-1], self.hidden, self.states), x.astype(dtype)
        return jnp.einsum("...hn,...n->...h", s, x @ params.w_c) + x * params.d
