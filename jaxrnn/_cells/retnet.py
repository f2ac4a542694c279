"""The retention of RetNet: a matrix memory whose heads forget at fixed rates."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from .._core.matrix_cell import MatrixCell, MemoryUpdate
from .._core.types import Params


@dataclasses.dataclass(frozen=True)
class RetNet(MatrixCell):
    """S_t = γ S_{t-1} + k_t v_tᵀ, o_t = S_tᵀ q_t, with γ = 1 - 2^{-5-n} for head n.

    Args:
        heads: N.
        key_dim: K, the key features of a head; keys are divided by its root.
        value_dim: V, the value features of a head; None for K.

    The state is `MatrixState(memory)`: S (*batch, N, K, V).

    >>> cell = RetNet(2, 4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (8,)

    Reference: Sun et al., "Retentive network: a successor to transformer for large language models", 2023, eq. 6 to 8
    (https://arxiv.org/abs/2307.08621).
    Note: without the rotation of queries and keys by their position, which a cell does not know. The norm of each head
    and the gate of its output are layers (`RMSNorm`, `Product`).
    """

    def sizes(self) -> tuple[int, ...]:
        """Return the features of q, k and v."""
        return self.keys, self.keys, self.values

    def update(self, local: Params, *parts: jax.Array) -> MemoryUpdate:
        """Return the update."""
        q, k, v = map(self.split_heads, parts)
        log_gamma = jnp.asarray(np.log1p(-(2.0 ** (-5 - np.arange(self.heads)))), q.dtype)
        return MemoryUpdate(q, k * self.key_dim**-0.5, v, jnp.broadcast_to(log_gamma[:, None], (*q.shape[:-1], 1)))
