"""The linear recurrent unit: a complex diagonal recurrence."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._core.affine_cell import AffineCell
from .._core.exportable import exportable
from .._core.fields import check_init, convert, number, size_or_none
from .._core.recurrence import check_features
from .._core.trees import float_dtype


@exportable
class LRUParams(NamedTuple):
    """The params of an LRU with N states, plain real arrays.

    Attributes:
        decay: log of -log|lambda| (N,).
        phase: log of the angle of lambda (N,).
        gain: log of gamma (N,).
        b: input weights (D, 2, N), real parts and imaginary parts.
        c: output weights (2, N, H), real parts and imaginary parts.
        d: weights (D, H) of what goes past the state.
    """

    decay: jax.Array
    phase: jax.Array
    gain: jax.Array
    b: jax.Array
    c: jax.Array
    d: jax.Array


@dataclasses.dataclass(frozen=True)
class LRU(AffineCell):
    """s_t = lambda * s_{t-1} + gamma * (x_t B), y_t = Re(s_t C) + x_t D, with lambda = exp(-exp(decay) + i exp(phase)).

    Args:
        hidden: H, the number of outputs.
        states: N, the number of complex states; None for as many as outputs.
        r_min: the least |lambda| that is drawn.
        r_max: the greatest; the nearer to 1, the longer it remembers.
        max_phase: the greatest angle of lambda that is drawn, in radians.

    The state is s (*batch, N), complex64 (complex128 for params in float64). |lambda| < 1 whatever the params are;
    gamma is drawn as sqrt(1 - |lambda|^2), which keeps a state as large as its inputs.

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
        """Check the sizes and the ring."""
        convert(self, states=size_or_none, r_min=number, r_max=number, max_phase=number)
        if not 0 <= self.r_min < self.r_max <= 1:
            raise ValueError(f"LRU needs 0 <= r_min < r_max <= 1; got {self.r_min} and {self.r_max}")

    def init(self, key: jax.Array, in_dim: int) -> LRUParams:
        """Draw lambda uniformly from the ring, B and C from normal distributions of variance 1 / (2 D) and 1 / N."""
        in_dim, count = check_init(self, key, in_dim), self.states or self.hidden
        fan_in = max(in_dim, 1)
        k_size, k_angle, k_b, k_c, k_d = jax.random.split(key, 5)
        least = jnp.finfo(jnp.zeros(()).dtype).tiny
        between = jax.random.uniform(k_size, (count,), minval=least)
        squared = between * (self.r_max**2 - self.r_min**2) + self.r_min**2
        angle = jax.random.uniform(k_angle, (count,), minval=least) * self.max_phase
        return LRUParams(
            jnp.log(-0.5 * jnp.log(squared)),
            jnp.log(angle),
            0.5 * jnp.log1p(-squared),
            jax.random.normal(k_b, (in_dim, 2, count)) * (2 * fan_in) ** -0.5,
            jax.random.normal(k_c, (2, count, self.hidden)) * count**-0.5,
            jax.random.normal(k_d, (in_dim, self.hidden)) * fan_in**-0.5,
        )

    def initial_state(self, params: LRUParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """s_0 = 0, (*batch, N)."""
        dtype = jnp.zeros(()).dtype if params is None else _wide(params)
        zeros = jnp.zeros((*batch, self.states or self.hidden), dtype)
        return jax.lax.complex(zeros, zeros)

    def affine(self, params: LRUParams, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Lambda, and gamma times the projected input."""
        check_features(x, params.b)
        wide = _wide(params)
        size = jnp.exp(-jnp.exp(params.decay.astype(wide)))
        angle, gain = jnp.exp(params.phase.astype(wide)), jnp.exp(params.gain.astype(wide))
        a = jax.lax.complex(size * jnp.cos(angle), size * jnp.sin(angle))
        u = jnp.tensordot(x.astype(params.b.dtype), params.b, 1).astype(wide) * gain
        return jnp.broadcast_to(a, (*x.shape[:-1], *a.shape)), jax.lax.complex(u[..., 0, :], u[..., 1, :])

    def output(self, params: LRUParams, s: jax.Array, x: jax.Array) -> jax.Array:
        """Re(s C) + x D, (*batch, H)."""
        dtype = float_dtype(params)
        real, imaginary = s.real.astype(dtype) @ params.c[0], s.imag.astype(dtype) @ params.c[1]
        return real - imaginary + x.astype(dtype) @ params.d


def _wide(params: LRUParams) -> Any:
    """Give the dtype of real and imaginary parts: that of the params, float32 at least."""
    dtype = params.decay.dtype
    return dtype if dtype.itemsize >= 4 else jnp.float32
