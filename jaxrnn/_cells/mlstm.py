"""The matrix LSTM of xLSTM."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.activation import SIGMOID, ActivationLike
from .._core.exportable import exportable
from .._core.fields import convert
from .._core.matrix_cell import MatrixCell, MatrixParams, MatrixState, MemoryUpdate
from .slstm import EXP, a_forget_activation

if TYPE_CHECKING:
    from jaxtyping import Array, Float

MOST = 80.0
"""The bound of -m in exp(-m), finite in float32: what is divided by it is zero."""


@exportable
class MLSTMBiases(NamedTuple):
    """The biases of the gates of an mLSTM: one of i and of f a head, and of o for every value."""

    i: Float[Array, " N"]
    f: Float[Array, " N"]
    o: Float[Array, " NV"]


@dataclasses.dataclass(frozen=True)
class MLSTM(MatrixCell):
    """C_t = f_t C_{t-1} + i_t k_t v_tᵀ, n_t = f_t n_{t-1} + i_t k_t, h_t = o_t * C_tᵀ q_t / max(|n_tᵀ q_t|, 1).

    i_t = exp(ĩ_t), f_t = σ(f̃_t) or exp(f̃_t), o_t = σ(õ_t); keys are divided by the root of K. The normalizer n_t is the
    last column of the memory, written by values of 1. Both are kept divided by exp(m_t), so that none overflows:
    m_t = max(log f_t + m_{t-1}, ĩ_t).

    Args:
        heads: N.
        key_dim: K, the key features of a head.
        value_dim: V, the value features of a head; None for K.
        forget_activation: "sigmoid" or "exp", the forget gate.

    The state is `MatrixState(memory, log_scale)`: C and n (*batch, N, K, V + 1), and m (*batch, N).

    >>> cell = MLSTM(2, 4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> state.memory.shape, y.shape
    ((2, 4, 5), (8,))

    Reference: Beck et al., "xLSTM: extended long short-term memory", 2024, eq. 19 to 27
    (https://arxiv.org/abs/2405.04517).
    Note: as in the authors' code, q, k and v have no bias, and the forget biases of the heads start from 3 to 6.
    """

    _: dataclasses.KW_ONLY
    forget_activation: ActivationLike = SIGMOID

    def __check_init__(self) -> None:
        """Look up the activation."""
        convert(self, forget_activation=a_forget_activation)

    def sizes(self) -> tuple[int, ...]:
        """Return the features of q, k, v, ĩ, f̃ and õ."""
        return self.keys, self.keys, self.values, self.heads, self.heads, self.values

    def init_local(self, key: jax.Array) -> MLSTMBiases:
        """Draw b_i from N(0, 0.01); return b_f from 3 to 6, and b_o = 0."""
        b_i = 0.1 * jax.random.normal(key, (self.heads,))
        return MLSTMBiases(b_i, jnp.linspace(3.0, 6.0, self.heads, dtype=b_i.dtype), jnp.zeros(self.values))

    def initial_state(self, params: MatrixParams, batch: tuple[int, ...] = ()) -> MatrixState:
        """Return zeros."""
        return self.zeros(params, batch, columns=self.values // self.heads + 1, scaled=True)

    def update(self, local: MLSTMBiases, *parts: jax.Array) -> MemoryUpdate:
        """Return the update that writes (v, 1)."""
        q, k, v = map(self.split_heads, parts[:3])
        i, f = parts[3] + local.i, parts[4] + local.f
        log_f = f if self.forget_activation == EXP else jax.nn.log_sigmoid(f)
        value = jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)
        return MemoryUpdate(q, k * self.key_dim**-0.5, value, log_f[..., None], log_strength=i)

    def output(self, local: MLSTMBiases, read: jax.Array, log_scale: jax.Array, *parts: jax.Array) -> jax.Array:
        """Return h_t."""
        bound = jnp.exp(jnp.minimum(-log_scale, MOST))
        normalized = read[..., :-1] / jnp.maximum(jnp.abs(read[..., -1]), bound)[..., None]
        return jax.nn.sigmoid(parts[5] + local.o).astype(read.dtype) * self.merge_heads(normalized)
