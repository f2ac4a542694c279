"""Initialisers: how the weights of a gated cell are drawn, each gate by itself.

Every array has the default float dtype (float32; float64 under `jax_enable_x64`). For bfloat16, cast the tree:
`jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import jax
import jax.numpy as jnp

Shape = tuple[int, ...]

glorot_per_gate = jax.nn.initializers.glorot_uniform(in_axis=0, out_axis=2, batch_axis=1)
"""Glorot's uniform for weights (D, G, H), with fan-in D and fan-out H for each gate."""


def orthogonal_per_gate(key: jax.Array, shape: Shape) -> jax.Array:
    """Weights (R, G, H): each gate's (R, H) matrix has orthonormal rows or columns.

    Reference: Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", 2014 (https://arxiv.org/abs/1312.6120).
    Note: libraries differ here. flax's `OptimizedLSTMCell` draws one orthogonal (H, 4H) block, torch none at all.
    """
    rows, gates, hidden = shape
    draw = lambda k: jax.nn.initializers.orthogonal()(k, (rows, hidden))
    return jax.vmap(draw, out_axes=1)(jax.random.split(key, gates))


class Initializer(Protocol):
    """Where the weights of a gated cell begin. D in, R what is read of the state, G gates, H hidden."""

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """W_x (D, G, H)."""
        ...

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """W_h (R, G, H)."""
        ...

    def diagonal(self, key: jax.Array, shape: Shape) -> jax.Array:
        """w_h (G, H) of a diagonal recurrence."""
        ...

    def bias(self, key: jax.Array, shape: Shape) -> jax.Array:
        """b (G, H), to which a cell adds its own offset (an LSTM's forget bias)."""
        ...


@dataclasses.dataclass(frozen=True)
class GlorotOrthogonal:
    """Glorot uniform input weights, orthogonal recurrent weights for each gate, zero bias: the default."""

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Glorot's uniform, each gate by itself."""
        return glorot_per_gate(key, shape)

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Orthogonal, each gate by itself."""
        return orthogonal_per_gate(key, shape)

    def diagonal(self, key: jax.Array, shape: Shape) -> jax.Array:
        """U(-1, 1): no unit explodes by itself."""
        return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)

    def bias(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Zeros."""
        return jnp.zeros(shape)


@dataclasses.dataclass(frozen=True)
class TorchUniform:
    """Everything from U(-1/sqrt(H), 1/sqrt(H)), as in `torch.nn.RNNBase.reset_parameters`.

    torch has two biases, added to each other; ours is drawn as their sum. An LSTM adds its `forget_bias` to
    that: `LSTM(H, forget_bias=0.0, initializer=TorchUniform())` begins exactly as torch's does.
    """

    def _uniform(self, key: jax.Array, shape: Shape) -> jax.Array:
        bound = 1 / math.sqrt(shape[-1])
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """U(-1/sqrt(H), 1/sqrt(H))."""
        return self._uniform(key, shape)

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """U(-1/sqrt(H), 1/sqrt(H))."""
        return self._uniform(key, shape)

    def diagonal(self, key: jax.Array, shape: Shape) -> jax.Array:
        """U(-1/sqrt(H), 1/sqrt(H))."""
        return self._uniform(key, shape)

    def bias(self, key: jax.Array, shape: Shape) -> jax.Array:
        """The sum of two draws of U(-1/sqrt(H), 1/sqrt(H))."""
        k_ih, k_hh = jax.random.split(key)
        return self._uniform(k_ih, shape) + self._uniform(k_hh, shape)
