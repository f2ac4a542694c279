"""What state-space models share: the initial values of a complex diagonal λ in ds/dt = λ s + u, and its discretization.

N complex states, each of which stands for two, itself and its conjugate.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from .._core.fields import Converter, convert, instance, positive
from .._core.trees import at_least_float32


@runtime_checkable
class Discretization(Protocol):
    """A way from ds/dt = λ s + u to s_t = a s_{t-1} + g u_t, for a step of length Δ."""

    def __call__(self, decay: jax.Array, frequency: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return a and g, complex, for λ = -decay + i frequency."""
        ...


@dataclasses.dataclass(frozen=True)
class ZeroOrderHold:
    """a = exp(Δ λ), g = (a - 1) / λ: exact where the inputs are constant during a step."""

    def __call__(self, decay: jax.Array, frequency: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return a and g."""
        shrink, angle = jnp.expm1(-step * decay), step * frequency
        real = shrink * jnp.cos(angle) - 2 * jnp.sin(angle / 2) ** 2  # of a - 1, exact where a is near 1
        minus_one = jax.lax.complex(real, (1 + shrink) * jnp.sin(angle))
        return 1 + minus_one, minus_one / jax.lax.complex(-decay, frequency)


@dataclasses.dataclass(frozen=True)
class Bilinear:
    """a = (1 + Δ λ / 2) / (1 - Δ λ / 2), g = Δ / (1 - Δ λ / 2): the trapezoidal rule."""

    def __call__(self, decay: jax.Array, frequency: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return a and g."""
        half = jax.lax.complex(-decay * step / 2, frequency * step / 2)
        return (1 + half) / (1 - half), step.astype(half.dtype) / (1 - half)


a_discretization: Converter = instance(Discretization, "ZeroOrderHold() or Bilinear()")


def convert_steps(cell: Any) -> None:
    """Check the fields `discretization`, `min_step` and `max_step` of a cell."""
    convert(cell, discretization=a_discretization, min_step=positive, max_step=positive)
    if cell.min_step > cell.max_step:
        name = type(cell).__name__
        raise ValueError(f"{name} needs min_step <= max_step; got {cell.min_step} and {cell.max_step}")


def draw_log_step(key: jax.Array, shape: tuple[int, ...], smallest: float, largest: float) -> jax.Array:
    """Draw log Δ uniformly between those of two steps."""
    return jax.random.uniform(key, shape, minval=math.log(smallest), maxval=math.log(largest))


@functools.cache
def hippo_legs(count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the frequencies (N,) of the normal part of HiPPO-LegS with 2 N states, and its eigenvectors (2 N, N).

    The real part of each eigenvalue is -1/2; of each conjugate pair this returns the one with a positive frequency.

    Reference: Gu, Gupta, Goel and Ré, "On the parameterization and initialization of diagonal state space models",
    2022, section 4 (https://arxiv.org/abs/2206.11893).
    """
    root = np.sqrt(2 * np.arange(2 * count) + 1)
    skew = np.outer(root, root) / 2
    skew = np.triu(skew, 1) - np.tril(skew, -1)  # the normal part without its diagonal, -1/2
    frequencies, vectors = np.linalg.eigh(-1j * skew)
    return frequencies[count:], vectors[:, count:]


def complex_zeros(shape: tuple[int, ...], params_dtype: np.dtype[Any] | None) -> jax.Array:
    """Return a complex state of zeros for params of a dtype; None stands for the default float dtype."""
    zeros = jnp.zeros(shape, None if params_dtype is None else at_least_float32(params_dtype))
    return jax.lax.complex(zeros, zeros)
