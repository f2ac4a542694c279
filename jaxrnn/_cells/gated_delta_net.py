"""The delta rule with a decay: one a head (Gated DeltaNet), or one a key feature (Kimi Delta Attention)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.exportable import exportable
from .._core.fields import convert, size_or_none
from .._core.matrix_cell import MemoryUpdate
from .._core.recurrence import input_weights
from .delta_net import DeltaNet
from .mamba2 import step_bias

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class DecayParams(NamedTuple):
    """The params of a decay.

    Attributes:
        log_rate: log of -log a for a step size of 1.
        b: the bias of the step size: (N) for a decay a head, (N K) for one a key feature.
        w: the second matrix of the step size; () for a decay a head.
    """

    log_rate: Float[Array, " N"]
    b: Float[Array, " N"] | Float[Array, " NK"]
    w: Float[Array, "R NK"] | tuple[()] = ()


@dataclasses.dataclass(frozen=True)
class GatedDeltaNet(DeltaNet):
    """S_t = a_t (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ, o_t = S_tᵀ q_t.

    a_t = exp(-exp(log_rate) softplus(x_t w_a + b)) and β_t = max_beta σ(x_t w_β); queries and keys have length 1.

    Args:
        heads: N.
        key_dim: K, the key features of a head.
        value_dim: V, the value features of a head; None for K.
        max_beta: the bound of β: with 2 the memory has eigenvalues down to -1.
        activation: of q, k and v, by name or as a function.

    The state is `MatrixState(memory)`: S (*batch, N, K, V).

    >>> cell = GatedDeltaNet(2, 4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (8,)

    Reference: Yang, Kautz and Hatamizadeh, "Gated delta networks: improving Mamba2 with delta rule", ICLR 2025, eq. 10
    (https://arxiv.org/abs/2412.06464). The convolutions before, the norm and the gate after are layers.
    """

    def sizes(self) -> tuple[int, ...]:
        """Return the features of q, k, v, β and x w_a."""
        return *super().sizes(), self.heads

    def init_local(self, key: jax.Array) -> DecayParams:
        """Draw -log a for a step size of 1 from U(1, 16), and step sizes log-uniformly from 0.001 to 0.1."""
        k_rate, k_step = jax.random.split(key)
        rate = jax.random.uniform(k_rate, (self.heads,), minval=1.0, maxval=16.0)
        return DecayParams(jnp.log(rate), step_bias(k_step, self.heads, 1e-3, 1e-1))

    def update(self, local: DecayParams, *parts: jax.Array) -> MemoryUpdate:
        """Return the update."""
        q, k, v, beta = self.delta_rule(*parts[:4])
        log_decay = -jnp.exp(local.log_rate) * jax.nn.softplus(parts[4] + local.b)
        return MemoryUpdate(q, k, v, log_decay[..., None], beta)


@dataclasses.dataclass(frozen=True)
class KDA(GatedDeltaNet):
    """S_t = (I - β_t k_t k_tᵀ) diag(a_t) S_{t-1} + β_t k_t v_tᵀ, o_t = S_tᵀ q_t: Kimi Delta Attention.

    a_t = exp(-exp(log_rate) softplus(x_t W_1 W_2 + b)), one a key feature, and β_t = max_beta σ(x_t w_β); queries and
    keys have length 1.

    Args:
        heads: N.
        key_dim: K, the key features of a head.
        value_dim: V, the value features of a head; None for K.
        max_beta: the bound of β: with 2 the memory has eigenvalues down to -1.
        activation: of q, k and v, by name or as a function.
        rank: R, the features of x W_1; None for V.

    The state is `MatrixState(memory)`: S (*batch, N, K, V).

    >>> cell = KDA(2, 4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (8,)

    Reference: Kimi Team, "Kimi Linear: an expressive, efficient attention architecture", 2025, eq. 1 and section 4
    (https://arxiv.org/abs/2510.26692). The convolutions before, the norm and the gate after are layers.
    """

    _: dataclasses.KW_ONLY
    rank: int | None = None

    def __check_init__(self) -> None:
        """Check the rank."""
        convert(self, rank=size_or_none)

    def sizes(self) -> tuple[int, ...]:
        """Return the features of q, k, v, β and x W_1."""
        return *super().sizes()[:4], self.rank or self.values // self.heads

    def init_local(self, key: jax.Array) -> DecayParams:
        """Draw rates and step sizes as `GatedDeltaNet` does, and W_2."""
        k_rate, k_step, k_w = jax.random.split(key, 3)
        rate = jax.random.uniform(k_rate, (self.heads,), minval=1.0, maxval=16.0)
        w = input_weights(self.initializer, k_w, (self.sizes()[4], 1, self.keys))[:, 0]
        return DecayParams(jnp.log(rate), step_bias(k_step, self.keys, 1e-3, 1e-1), w)

    def update(self, local: DecayParams, *parts: jax.Array) -> MemoryUpdate:
        """Return the update."""
        q, k, v, beta = self.delta_rule(*parts[:4])
        step = self.split_heads(jax.nn.softplus(parts[4] @ jnp.asarray(local.w) + local.b))
        return MemoryUpdate(q, k, v, -jnp.exp(local.log_rate)[:, None] * step, beta)
