"""How a matrix cell comes from an input to the features that its update takes: by a matmul, or from layers below.

D input features, P features.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from .initializers import Initializer
from .recurrence import gates_of, input_weights
from .types import Key


@runtime_checkable
class Projection(Protocol):
    """How a matrix cell comes from an input to the P features that its `update` takes."""

    def init(self, key: Key, initializer: Initializer, in_dim: int, sizes: tuple[int, ...]) -> Any:
        """Draw the weights for parts of these sizes."""
        ...

    def __call__(self, w_x: Any, x: jax.Array) -> jax.Array:
        """Return the features (..., P) of x (..., D)."""
        ...


@dataclasses.dataclass(frozen=True)
class Projected:
    """The features are x W_x, one matmul."""

    def init(self, key: Key, initializer: Initializer, in_dim: int, sizes: tuple[int, ...]) -> jax.Array:
        """Draw W_x (D, P), each part separately."""
        keys = jax.random.split(key, len(sizes))
        parts = [input_weights(initializer, k, (in_dim, 1, n))[:, 0] for k, n in zip(keys, sizes, strict=True)]
        return jnp.concatenate(parts, axis=-1)

    def __call__(self, w_x: jax.Array, x: jax.Array) -> jax.Array:
        """Return x W_x."""
        return gates_of(x, w_x[:, None])[0]


@dataclasses.dataclass(frozen=True)
class Packed:
    """The features are x itself: layers below, such as a short convolution, compute them, in the order of `sizes`."""

    def init(self, key: Key, initializer: Initializer, in_dim: int, sizes: tuple[int, ...]) -> tuple[()]:
        """Return no weights; raise ValueError unless D = P."""
        if in_dim != sum(sizes):
            raise ValueError(
                f"Packed() takes the parts {sizes} as one array of {sum(sizes)} features; got in_dim={in_dim}. Compute "
                "them in a layer below, or use Projected()."
            )
        return ()

    def __call__(self, w_x: tuple[()], x: jax.Array) -> jax.Array:
        """Return x."""
        return x
