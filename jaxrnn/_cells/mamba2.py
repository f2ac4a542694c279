"""The state-space duality of Mamba-2: a matrix memory with a learned step size a head."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.exportable import exportable
from .._core.fields import convert, positive
from .._core.matrix_cell import MatrixCell, MemoryUpdate

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class Mamba2Params(NamedTuple):
    """The params of a Mamba-2 but the weights of its inputs.

    Attributes:
        log_rate: log of -A, the decay of a head for a step size of 1.
        b: the bias of the step size Δ.
        d: the weight of the skip connection.
    """

    log_rate: Float[Array, " N"]
    b: Float[Array, " N"]
    d: Float[Array, " N"]


@dataclasses.dataclass(frozen=True)
class Mamba2(MatrixCell):
    """S_t = exp(-Δ_t exp(log_rate)) S_{t-1} + Δ_t B_t x_tᵀ, y_t = S_tᵀ C_t + d x_t, with Δ_t = softplus(δ_t + b).

    x (N V), B and C (K, shared by the heads) and δ (N) are linear in the input.

    Args:
        heads: N.
        key_dim: K, the states of a feature.
        value_dim: V, the features of a head; None for K.
        min_step: the smallest Δ at initialization.
        max_step: the largest Δ at initialization.

    The state is `MatrixState(memory)`: S (*batch, N, K, V).

    >>> cell = Mamba2(2, 4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (8,)

    Reference: Dao and Gu, "Transformers are SSMs", ICML 2024, eq. 1 and 2, section 7.1
    (https://arxiv.org/abs/2405.21060). The convolution before, the norm and the gate after are layers.
    """

    _: dataclasses.KW_ONLY
    min_step: float = 1e-3
    max_step: float = 1e-1

    def __check_init__(self) -> None:
        """Check the step sizes."""
        convert(self, min_step=positive, max_step=positive)
        if self.min_step > self.max_step:
            raise ValueError(f"Mamba2.min_step must be at most max_step={self.max_step}; got {self.min_step}")

    def sizes(self) -> tuple[int, ...]:
        """Return the features of x, B, C and δ."""
        return self.values, self.key_dim, self.key_dim, self.heads

    def init_local(self, key: jax.Array) -> Mamba2Params:
        """Draw A from U(-16, -1), and Δ log-uniformly."""
        k_rate, k_step = jax.random.split(key)
        rate = jax.random.uniform(k_rate, (self.heads,), minval=1.0, maxval=16.0)
        return Mamba2Params(
            jnp.log(rate), step_bias(k_step, self.heads, self.min_step, self.max_step), jnp.ones(self.heads)
        )

    def update(self, local: Mamba2Params, *parts: jax.Array) -> MemoryUpdate:
        """Return the update."""
        x, b, c, delta = parts
        step = jax.nn.softplus(delta + local.b)
        shared = lambda a: jnp.broadcast_to(a[..., None, :], (*a.shape[:-1], self.heads, self.key_dim))
        log_decay = -step * jnp.exp(local.log_rate)
        return MemoryUpdate(shared(c), shared(b), step[..., None] * self.split_heads(x), log_decay[..., None])

    def output(self, local: Mamba2Params, read: jax.Array, log_scale: tuple[()], *parts: jax.Array) -> jax.Array:
        """Return y_t."""
        return self.merge_heads(read + (local.d[:, None] * self.split_heads(parts[0])).astype(read.dtype))


def step_bias(key: jax.Array, count: int, low: float, high: float) -> jax.Array:
    """Draw b so that softplus(b) is log-uniform between two step sizes."""
    step = jnp.exp(jax.random.uniform(key, (count,), minval=jnp.log(low), maxval=jnp.log(high)))
    return step + jnp.log(-jnp.expm1(-step))
