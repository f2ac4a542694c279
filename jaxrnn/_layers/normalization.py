"""Normalization of the features of one step."""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.exportable import exportable
from .._core.fields import check_init, convert, positive, size
from .._core.recurrence import check_features
from .._core.trees import at_least_float32
from .stateless import Stateless

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class _Normalization(Stateless):
    """A normalization over all features, or over those of each group. It computes in at least float32."""

    _: dataclasses.KW_ONLY
    groups: int = 1
    epsilon: float = 1e-6

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, groups=size, epsilon=positive)

    def out_dim(self, in_dim: int) -> int:
        """Return `in_dim`; raise ValueError unless the groups divide it."""
        if in_dim % self.groups or not in_dim:
            raise ValueError(
                f"{self} needs a number of features that {self.groups} divides, 1 or more; got {in_dim}. Use another "
                "number of groups, or project the inputs."
            )
        return in_dim

    @abc.abstractmethod
    def normalize(self, x: jax.Array) -> jax.Array:
        """Normalize the last axis of x."""

    def scaled(self, scale: jax.Array, x: jax.Array) -> jax.Array:
        """Return scale * normalize(x), in at least float32."""
        check_features(x, scale)
        x = x.astype(at_least_float32(scale.dtype))
        if self.groups == 1:
            return self.normalize(x) * scale.astype(x.dtype)
        groups = x.reshape(*x.shape[:-1], self.groups, x.shape[-1] // self.groups)
        return self.normalize(groups).reshape(x.shape) * scale.astype(x.dtype)


@exportable
class LayerNormParams(NamedTuple):
    """The params of a `LayerNorm`."""

    scale: Float[Array, " D"]
    bias: Float[Array, " D"]


class LayerNorm(_Normalization):
    """y = scale * (x - mean(x)) / sqrt(var(x) + epsilon) + bias, over the features of each step.

    Args:
        groups: the number of equal groups of features; mean and variance are those of a group (a group norm).
        epsilon: added to the variance.

    Statistics are computed in at least float32; y has the dtype of the params. scale starts at one, bias at zero.

    >>> layer = LayerNorm()
    >>> layer.step(layer.init(jax.random.key(0), in_dim=2), (), jnp.array([1.0, 3.0]))[1].round(3).tolist()
    [-1.0, 1.0]

    Raises:
        ValueError: if the groups do not divide the number of features.

    Reference: Ba, Kiros and Hinton, "Layer normalization", 2016, eq. 4 (https://arxiv.org/abs/1607.06450); Wu and He,
    "Group normalization", 2018 (https://arxiv.org/abs/1803.08494).
    Note: epsilon is 1e-6 in flax and here, 1e-5 in torch and haiku, 1e-3 in Keras.
    """

    def init(self, key: jax.Array, in_dim: int) -> LayerNormParams:
        """Return a scale of ones and a bias of zeros; raise ValueError unless the groups divide `in_dim`."""
        in_dim = self.out_dim(check_init(self, key, in_dim))
        return LayerNormParams(jnp.ones(in_dim), jnp.zeros(in_dim))

    def normalize(self, x: jax.Array) -> jax.Array:
        """Subtract the mean and divide by the standard deviation."""
        x = x - x.mean(-1, keepdims=True)
        return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.epsilon)

    def apply(self, params: LayerNormParams, x: jax.Array) -> jax.Array:
        """Return y (..., D)."""
        scaled = self.scaled(params.scale, x)
        return (scaled + params.bias.astype(scaled.dtype)).astype(params.scale.dtype)


@exportable
class RMSNormParams(NamedTuple):
    """The params of an `RMSNorm`."""

    scale: Float[Array, " D"]


class RMSNorm(_Normalization):
    """y = scale * x / sqrt(mean(x²) + epsilon), over the features of each step.

    Args:
        groups: the number of equal groups of features, such as heads; the mean is that of a group.
        epsilon: added to the mean.

    The mean is computed in at least float32; y has the dtype of the params. scale starts at one.

    >>> layer = RMSNorm(groups=2)
    >>> layer.step(layer.init(jax.random.key(0), in_dim=2), (), jnp.array([2.0, -3.0]))[1].round(3).tolist()
    [1.0, -1.0]

    Raises:
        ValueError: if the groups do not divide the number of features.

    Reference: Zhang and Sennrich, "Root mean square layer normalization", 2019, eq. 4
    (https://arxiv.org/abs/1910.07467).
    Note: Griffin's published code stores scale - 1.
    """

    def init(self, key: jax.Array, in_dim: int) -> RMSNormParams:
        """Return a scale of ones; raise ValueError unless the groups divide `in_dim`."""
        return RMSNormParams(jnp.ones(self.out_dim(check_init(self, key, in_dim))))

    def normalize(self, x: jax.Array) -> jax.Array:
        """Divide by the root of the mean square."""
        return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.epsilon)

    def apply(self, params: RMSNormParams, x: jax.Array) -> jax.Array:
        """Return y (..., D)."""
        return self.scaled(params.scale, x).astype(params.scale.dtype)
