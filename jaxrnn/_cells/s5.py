"""S5: one diagonal state-space model for all features."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.affine_cell import AffineCell
from .._core.exportable import exportable
from .._core.fields import check_init_per_unit, convert, size, size_or_none
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
class S5Params(NamedTuple):
    """The params of an S5 with H features and N states, all real.

    Attributes:
        log_step: log Δ.
        log_decay: log of minus the real part of λ.
        frequency: the imaginary part of λ.
        b: input weights, real parts and imaginary parts.
        c: output weights, real parts and imaginary parts.
        d: weights of the skip connection.
    """

    log_step: Float[Array, " N"]
    log_decay: Float[Array, " N"]
    frequency: Float[Array, " N"]
    b: Float[Array, "H 2 N"]
    c: Float[Array, "2 N H"]
    d: Float[Array, " H"]


@dataclasses.dataclass(frozen=True)
class S5(AffineCell):
    """ds/dt = λ s + x B, y = 2 Re(s C) + d x, with N complex states s for all features, discretized.

    Args:
        hidden: H, the number of features of the inputs and of the outputs.
        states: N, the complex states; None for H / 2 rounded up. The paper's P counts their conjugates too.
        blocks: J, a divisor of N: λ starts as J copies of the eigenvalues of a HiPPO-LegS matrix of 2 N / J states.
        discretization: `ZeroOrderHold()` or `Bilinear()`.
        min_step: the smallest Δ at initialization.
        max_step: the largest Δ at initialization. A state remembers about 2 / Δ steps.

    The state is s (*batch, N), complex64 (complex128 for params in float64).

    >>> cell = S5(4)
    >>> params = cell.init(jax.random.key(0), in_dim=4)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(4))
    >>> state.shape, y.shape
    ((2,), (4,))

    Reference: Smith, Warrington and Linderman, "Simplified state space layers for sequence modeling", ICLR 2023,
    sections 3 and 4.2 (https://arxiv.org/abs/2208.04933).
    """

    hidden: int
    _: dataclasses.KW_ONLY
    states: int | None = None
    blocks: int = 1
    discretization: Discretization = ZeroOrderHold()
    min_step: float = 1e-3
    max_step: float = 1e-1

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, states=size_or_none, blocks=size)
        convert_steps(self)
        if self._count() % self.blocks:
            raise ValueError(f"S5.blocks must divide its {self._count()} states; got {self.blocks}")

    def _count(self) -> int:
        return self.states or (self.hidden + 1) // 2

    def init(self, key: jax.Array, in_dim: int) -> S5Params:
        """Draw Δ, B, C and d, both matrices in the basis of the eigenvectors; raise ValueError unless D = H."""
        check_init_per_unit(self, key, in_dim)
        k_step, k_b, k_c, k_d = jax.random.split(key, 4)
        count, size = self._count(), self._count() // self.blocks
        frequencies, vectors = hippo_legs(size)
        real = jnp.zeros(()).dtype
        basis = jnp.asarray(vectors, jax.dtypes.canonicalize_dtype(complex))
        b = jax.random.normal(k_b, (self.hidden, self.blocks, 2 * size)) * self.hidden**-0.5
        c = jax.random.normal(k_c, (self.blocks, 2 * size, self.hidden)) * (2 * count) ** -0.5
        b = (b.astype(basis.dtype) @ basis.conj()).reshape(self.hidden, count)
        c = jnp.einsum("pn,jph->jnh", basis, c.astype(basis.dtype)).reshape(count, self.hidden)
        return S5Params(
            draw_log_step(k_step, (count,), self.min_step, self.max_step),
            jnp.full(count, jnp.log(0.5)),
            jnp.tile(jnp.asarray(frequencies, real), self.blocks),
            jnp.stack([b.real, b.imag], 1),
            jnp.stack([c.real, c.imag]),
            jax.random.normal(k_d, (self.hidden,)),
        )

    def initial_state(self, params: S5Params, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return s_0 = 0, (*batch, N)."""
        return complex_zeros((*batch, self._count()), None if params is None else params.d.dtype)

    def affine(self, params: S5Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return a (N,) and g (x B), (..., N)."""
        check_features(x, params.b)
        wide = at_least_float32(params.d.dtype)
        step, decay = jnp.exp(params.log_step.astype(wide)), jnp.exp(params.log_decay.astype(wide))
        a, gain = self.discretization(decay, params.frequency.astype(wide), step)
        u = jnp.tensordot(x.astype(params.b.dtype), params.b, 1).astype(wide)
        return a, jax.lax.complex(u[..., 0, :], u[..., 1, :]) * gain

    def output(self, params: S5Params, s: jax.Array, x: jax.Array) -> jax.Array:
        """Return 2 Re(s C) + d x, (..., H)."""
        dtype = float_dtype(params)
        read = s.real.astype(dtype) @ params.c[0] - s.imag.astype(dtype) @ params.c[1]
        return 2 * read + x.astype(dtype) * params.d
