"""S4D: a diagonal state-space model for every feature."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.affine_cell import AffineCell
from .._core.exportable import exportable
from .._core.fields import check_init_per_unit, convert, size
from .._core.recurrence import check_features
from .._core.trees import at_least_float32, float_dtype
from .state_space import (
    Discretization,
    ZeroOrderHold,
    complex_zeros,
    convert_steps,
    draw_log_step,
    hippo_legs,
)

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class S4DParams(NamedTuple):
    """The params of an S4D with H features and N states of each, all real.

    Attributes:
        log_step: log Δ.
        log_decay: log of minus the real part of λ.
        frequency: the imaginary part of λ.
        c: output weights, real parts and imaginary parts.
        d: weights of the skip connection.
    """

    log_step: Float[Array, " H"]
    log_decay: Float[Array, "H N"]
    frequency: Float[Array, "H N"]
    c: Float[Array, "2 H N"]
    d: Float[Array, " H"]


@dataclasses.dataclass(frozen=True)
class S4D(AffineCell):
    """ds/dt = λ s + x, y = 2 Re(Σ c s) + d x, for each feature x with N complex states s of its λ, discretized.

    Args:
        hidden: H, the number of features of the inputs and of the outputs.
        states: N, the complex states of a feature; the paper's N counts their conjugates too.
        discretization: `ZeroOrderHold()` or `Bilinear()`.
        min_step: the smallest Δ at initialization.
        max_step: the largest Δ at initialization. A state remembers about 2 / Δ steps.

    λ starts from HiPPO-LegS, the paper's S4D-LegS. The state is s (*batch, H N), complex64 (complex128 for params in
    float64).

    >>> cell = S4D(4, states=8)
    >>> params = cell.init(jax.random.key(0), in_dim=4)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(4))
    >>> state.shape, y.shape
    ((32,), (4,))

    Reference: Gu, Gupta, Goel and Ré, "On the parameterization and initialization of diagonal state space models",
    2022, sections 3 and 4 (https://arxiv.org/abs/2206.11893).
    """

    hidden: int
    _: dataclasses.KW_ONLY
    states: int = 32
    discretization: Discretization = ZeroOrderHold()
    min_step: float = 1e-3
    max_step: float = 1e-1

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, states=size)
        convert_steps(self)

    def init(self, key: jax.Array, in_dim: int) -> S4DParams:
        """Draw Δ, c and d; raise ValueError unless D = H."""
        check_init_per_unit(self, key, in_dim)
        k_step, k_c, k_d = jax.random.split(key, 3)
        shape = self.hidden, self.states
        return S4DParams(
            draw_log_step(k_step, (self.hidden,), self.min_step, self.max_step),
            jnp.full(shape, jnp.log(0.5)),
            jnp.broadcast_to(jnp.asarray(hippo_legs(self.states)[0], jnp.zeros(()).dtype), shape),
            jax.random.normal(k_c, (2, *shape)) * 0.5**0.5,
            jax.random.normal(k_d, (self.hidden,)),
        )

    def initial_state(self, params: S4DParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return s_0 = 0, (*batch, H N)."""
        return complex_zeros((*batch, self.hidden * self.states), None if params is None else params.d.dtype)

    def affine(self, params: S4DParams, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return a (H N,) and g x, (..., H N)."""
        check_features(x, params.d[:, None])
        wide = at_least_float32(params.d.dtype)
        step = jnp.exp(params.log_step.astype(wide))[:, None]
        decay, frequency = jnp.exp(params.log_decay.astype(wide)), params.frequency.astype(wide)
        a, gain = self.discretization(decay, frequency, step)
        b = x.astype(gain.dtype)[..., None] * gain
        return a.reshape(-1), b.reshape(*x.shape[:-1], -1)

    def output(self, params: S4DParams, s: jax.Array, x: jax.Array) -> jax.Array:
        """Return 2 Re(Σ c s) + d x, (..., H)."""
        dtype = float_dtype(params)
        s = s.reshape(*s.shape[:-1], self.hidden, self.states)
        read = (s.real.astype(dtype) * params.c[0] - s.imag.astype(dtype) * params.c[1]).sum(-1)
        return 2 * read + x.astype(dtype) * params.d
