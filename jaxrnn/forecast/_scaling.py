"""Scaling per series: what a forecaster normalizes its inputs by, and a head its distribution."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .._core.broadcasting import broadcasting
from .._core.checks import as_flags, as_lengths, as_numbers
from .._core.exportable import exportable
from .._core.fields import Checked, convert, positive
from .._core.masks import length_mask

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int


@exportable
class Scale(NamedTuple):
    """The location and the scale of each series: x = loc + scale * z for a normalized z.

    Attributes:
        loc: (*batch, K), or None for zero.
        scale: (*batch, K), above 0.

    >>> scale = Scale(jnp.array([10.0]), jnp.array([2.0]))
    >>> scale.normalize(jnp.array([[12.0], [10.0]])).T, scale.denormalize(jnp.array([[1.0]]))
    (Array([[1., 0.]], dtype=float32), Array([[12.]], dtype=float32))
    """

    loc: Float[Array, "*batch K"] | None
    scale: Float[Array, "*batch K"]

    @broadcasting
    def normalize(self, xs: Float[ArrayLike, "... K"]) -> Float[Array, "... K"]:
        """Return (x - loc) / scale, for (*batch, K) and leading axes such as time."""
        return (jnp.asarray(xs) - (0 if self.loc is None else self.loc)) / self.scale

    @broadcasting
    def denormalize(self, ys: Float[ArrayLike, "... K"]) -> Float[Array, "... K"]:
        """Return loc + scale * y, for (*batch, K) and leading axes such as time."""
        return (0 if self.loc is None else self.loc) + self.scale * jnp.asarray(ys)


@runtime_checkable
class Scaling(Protocol):
    """How the scale of each series is computed from its past: a frozen value that holds no array."""

    def __call__(
        self,
        xs: Float[ArrayLike, "T *batch K"],
        lengths: Int[ArrayLike, "*batch"] | None = None,
        mask: Bool[ArrayLike, T * batch] | None = None,
    ) -> Scale:
        """Return the scale (*batch, K) of the series xs (T, *batch, K), over their valid steps."""
        ...


@dataclasses.dataclass(frozen=True)
class MeanScaling(metaclass=Checked):
    """scale = offset + mean_t |x_t|, without a location: for numbers above zero, such as counts.

    Args:
        offset: above 0, so that a series of zeros has a scale; 1 in the paper.

    >>> MeanScaling()(jnp.array([[2.0], [4.0], [100.0]]), lengths=None, mask=jnp.array([True, True, False])).scale
    Array([4.], dtype=float32)

    Reference: Salinas et al., "DeepAR: Probabilistic forecasting with autoregressive recurrent networks", 2020,
    section 3.3.
    """

    offset: float = 1.0

    def __check_init__(self) -> None:
        """Check the offset."""
        convert(self, offset=positive)

    def __call__(
        self,
        xs: Float[ArrayLike, "T *batch K"],
        lengths: Int[ArrayLike, "*batch"] | None = None,
        mask: Bool[ArrayLike, T * batch] | None = None,
    ) -> Scale:
        """Return the scale; that of a row without valid steps is the offset."""
        xs, valid = valid_steps(xs, lengths, mask)
        return Scale(None, self.offset + _mean(jnp.abs(xs), valid))


@dataclasses.dataclass(frozen=True)
class Standardization(metaclass=Checked):
    """loc = mean_t x_t, scale = sqrt(mean_t (x_t - loc)² + epsilon).

    Args:
        epsilon: above 0, so that a constant series has a scale.

    >>> scale = Standardization()(jnp.array([[1.0], [3.0]]))
    >>> scale.loc, scale.scale.round(3)
    (Array([2.], dtype=float32), Array([1.], dtype=float32))

    Reference: Kim et al., "Reversible instance normalization for accurate time-series forecasting against
    distribution shift", 2022, eq. 1-2. Its learned gain and bias are left out: the layers learn them.
    """

    epsilon: float = 1e-5

    def __check_init__(self) -> None:
        """Check epsilon."""
        convert(self, epsilon=positive)

    @broadcasting
    def __call__(
        self,
        xs: Float[ArrayLike, "T *batch K"],
        lengths: Int[ArrayLike, "*batch"] | None = None,
        mask: Bool[ArrayLike, T * batch] | None = None,
    ) -> Scale:
        """Return the scale; a row without valid steps has loc 0 and scale sqrt(epsilon)."""
        xs, valid = valid_steps(xs, lengths, mask)
        loc = _mean(xs, valid)
        return Scale(loc, jnp.sqrt(_mean((xs - loc) ** 2, valid) + self.epsilon))


@dataclasses.dataclass(frozen=True)
class LastValue(metaclass=Checked):
    """loc = the last valid x_t, scale = 1: a forecaster learns the change from there.

    >>> LastValue()(jnp.array([[1.0], [3.0], [9.0]]), mask=jnp.array([True, True, False])).loc
    Array([3.], dtype=float32)

    Reference: Zeng et al., "Are transformers effective for time series forecasting?", 2023, section 4 (NLinear).
    """

    def __call__(
        self,
        xs: Float[ArrayLike, "T *batch K"],
        lengths: Int[ArrayLike, "*batch"] | None = None,
        mask: Bool[ArrayLike, T * batch] | None = None,
    ) -> Scale:
        """Return the scale; a row without valid steps has loc 0."""
        xs, valid = valid_steps(xs, lengths, mask)
        steps = jnp.arange(len(xs), dtype=jnp.int32).reshape(-1, *[1] * (valid.ndim - 1))
        at = jnp.where(valid, steps, 0).max(axis=0)[None]
        loc = jnp.take_along_axis(xs, at[..., None], axis=0)[0]  # a row without valid steps is all zeros
        return Scale(loc, jnp.ones_like(loc))


def valid_steps(
    xs: ArrayLike, lengths: ArrayLike | None = None, mask: ArrayLike | None = None
) -> tuple[jax.Array, jax.Array]:
    """Return xs (T, *batch, ...) as floats with zeros in the padding, and the mask (T, *batch) of valid steps."""
    xs = jnp.asarray(as_numbers("xs", xs))
    if xs.ndim < 2:
        raise ValueError(f"series are (T, *batch, K); got {xs.shape}. For one series of numbers pass xs[:, None].")
    xs = xs if jnp.issubdtype(xs.dtype, jnp.floating) else xs.astype(jnp.zeros(()).dtype)
    num_steps, *batch = xs.shape[:-1]
    valid = step_mask(num_steps, tuple(batch), lengths, mask)
    return jnp.where(valid[..., None], xs, jnp.zeros_like(xs)), valid


def step_mask(num_steps: int, batch: tuple[int, ...], lengths: ArrayLike | None, mask: ArrayLike | None) -> jax.Array:
    """Return the mask (T, *batch) of the steps that lengths and mask both have."""
    valid = jnp.ones((num_steps, *batch), bool)
    if (ends := as_lengths(lengths, num_steps, batch)) is not None:
        valid = length_mask(ends, num_steps)
    if (flags := as_flags("mask", mask, num_steps, batch)) is not None:
        valid = valid & flags
    return valid


@broadcasting
def _mean(xs: jax.Array, valid: jax.Array) -> jax.Array:
    """Return the mean (*batch, K) over the valid steps of xs (T, *batch, K); 0 where there are none."""
    count = jnp.maximum(valid.sum(axis=0), 1).astype(xs.dtype)
    return jnp.where(valid[..., None], xs, jnp.zeros_like(xs)).sum(axis=0) / count[..., None]
