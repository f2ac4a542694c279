"""Gated linear attention: a matrix memory with a decay for every key feature."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax

from .._core.exportable import exportable
from .._core.fields import convert, positive, size
from .._core.matrix_cell import MatrixCell, MemoryUpdate
from .._core.recurrence import input_weights

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class GLADecay(NamedTuple):
    """The params of the decay of a GLA: its second matrix, and its bias."""

    w: Float[Array, "R NK"]
    b: Float[Array, " NK"]


@dataclasses.dataclass(frozen=True)
class GLA(MatrixCell):
    """S_t = diag(a_t) S_{t-1} + k_t v_tᵀ, o_t = S_tᵀ q_t, with a_t = σ(x_t W_1 W_2 + b)^{1/τ}.

    Args:
        heads: N.
        key_dim: K, the key features of a head; queries are divided by its root.
        value_dim: V, the value features of a head; None for K.
        rank: R, the features of x W_1.
        temperature: τ: a larger one remembers longer.

    The state is `MatrixState(memory)`: S (*batch, N, K, V).

    >>> cell = GLA(2, 4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (8,)

    Reference: Yang, Wang, Shen, Panda and Kim, "Gated linear attention transformers with hardware-efficient training",
    ICML 2024, eq. 3 and section 4.4 (https://arxiv.org/abs/2312.06635). The norm and the gate of the output are layers.
    """

    _: dataclasses.KW_ONLY
    rank: int = 16
    temperature: float = 16.0

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, rank=size, temperature=positive)

    def sizes(self) -> tuple[int, ...]:
        """Return the features of q, k, v and x W_1."""
        return self.keys, self.keys, self.values, self.rank

    def init_local(self, key: jax.Array) -> GLADecay:
        """Draw W_2 and b."""
        k_w, k_b = jax.random.split(key)
        w = input_weights(self.initializer, k_w, (self.rank, 1, self.keys))[:, 0]
        return GLADecay(w, self.initializer.bias(k_b, (1, self.keys))[0])

    def update(self, local: GLADecay, *parts: jax.Array) -> MemoryUpdate:
        """Return the update."""
        q, k, v = map(self.split_heads, parts[:3])
        log_decay = jax.nn.log_sigmoid(parts[3] @ local.w + local.b) / self.temperature
        return MemoryUpdate(q * self.key_dim**-0.5, k, v, self.split_heads(log_decay))
