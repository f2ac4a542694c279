"""The linear recurrent unit: a complex diagonal recurrence."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._core.affine_cell import AffineCell
from .._core.exportable import exportable
from .._core.fields import check_init, convert, number, size_or_none
from .._core.recurrence import check_features
from .._core.trees import at_least_float32, float_dtype
from .state_space import complex_zeros

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class LRUParams(NamedTuple):
    """The params of an LRU with N states, all real.

    Attributes:
        decay: log(-log|lambda|).
        phase: log of the angle of lambda.
        gain: log(gamma).
        b: input weights, real parts and imaginary parts.
        c: output weights, real parts and imaginary parts.
        d: weights of the skip connection.
    """

    decay: Float[Array, " N"]
    phase: Float[Array, " N"]
    gain: Float[Array, " N"]
    b: Float[Array, "D 2 N"]
    c: Float[Array, "2 N H"]
    d: Float[Array, "D H"]


@dataclasses.dataclass(frozen=True)
class LRU(AffineCell):
    """s_t = lambda * s_{t-1} + gamma * (x_t B), y_t = Re(s_t C) + x_t D, with lambda = exp(-exp(decay) + i exp(phase)).

    Args:
        hidden: H, the number of outputs.
        states: N, the number of complex states; None for H.
        r_min: the smallest |lambda| at initialization.
        r_max: the largest |lambda| at initialization; the nearer to 1, the longer the memory.
        max_phase: the largest angle of lambda at initialization, in radians.

    The state is s (*batch, N), complex64 (complex128 for params in float64). |lambda| < 1 for any params;
    gamma starts at sqrt(1 - |lambda|^2), so that states and inputs have the same scale.

    >>> cell = LRU(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)

    Reference: Orvieto et al., "Resurrecting recurrent neural networks for long sequences", ICML 2023, eq. 2 and
    section 3 (https://arxiv.org/abs/2303.06349).
    """

    hidden: int
    _: dataclasses.KW_ONLY
    states: int | None = None
    r_min: float = 0.0
    r_max: float = 1.0
    max_phase: float = 2 * math.pi

    def __check_init__(self) -> None:
        """Check the number of states and the radii."""
        convert(self, states=size_or_none, r_min=number, r_max=number, max_phase=number)
        if not 0 <= self.r_min < self.r_max <= 1:
            raise ValueError(f"LRU needs 0 <= r_min < r_max <= 1; got {self.r_min} and {self.r_max}")

    def init(self, key: jax.Array, in_dim: int) -> LRUParams:
        """Draw lambda uniformly from the ring, B and C from normal distributions of variance 1 / (2 D) and 1 / N."""
        in_dim, count = check_init(self, key, in_dim), self.states or self.hidden
        fan_in = max(in_dim, 1)
        k_radius, k_phase, k_b, k_c, k_d = jax.random.split(key, 5)
        tiny = float(np.finfo(jnp.zeros(()).dtype).tiny)  # the logarithms below are finite
        area = jax.random.uniform(k_radius, (count,), minval=tiny)
        squared = area * (self.r_max**2 - self.r_min**2) + self.r_min**2
        phase = jax.random.uniform(k_phase, (count,), minval=tiny) * self.max_phase
        return LRUParams(
            jnp.log(-0.5 * jnp.log(squared)),
            jnp.log(phase),
            0.5 * jnp.log1p(-squared),
            jax.random.normal(k_b, (in_dim, 2, count)) * (2 * fan_in) ** -0.5,
            jax.random.normal(k_c, (2, count, self.hidden)) * count**-0.5,
            jax.random.normal(k_d, (in_dim, self.hidden)) * fan_in**-0.5,
        )

    def initial_state(self, params: LRUParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return s_0 = 0, (*batch, N)."""
        count = self.states or self.hidden
        return complex_zeros((*batch, count), None if params is None else params.decay.dtype)

    def affine(self, params: LRUParams, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return lambda and gamma * (x B), each (..., N)."""
        check_features(x, params.b)
        wide = at_least_float32(params.decay.dtype)
        radius = jnp.exp(-jnp.exp(params.decay.astype(wide)))
        phase, gain = jnp.exp(params.phase.astype(wide)), jnp.exp(params.gain.astype(wide))
        a = jax.lax.complex(radius * jnp.cos(phase), radius * jnp.sin(phase))
        u = jnp.tensordot(x.astype(params.b.dtype), params.b, 1).astype(wide) * gain
        return jnp.broadcast_to(a, (*x.shape[:-1], *a.shape)), jax.lax.complex(u[..., 0, :], u[..., 1, :])

    def output(self, params: LRUParams, s: jax.Array, x: jax.Array) -> jax.Array:
        """Return Re(s C) + x D, (..., H)."""
        dtype = float_dtype(params)
        real, imaginary = s.real.astype(dtype) @ params.c[0], s.imag.astype(dtype) @ params.c[1]
        return real - imaginary + x.astype(dtype) @ params.d
