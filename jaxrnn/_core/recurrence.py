"""Structures of the recurrent weights W_h: dense, diagonal, block diagonal."""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from .checks import is_number
from .fields import Checked, convert, instance, number, size
from .initializers import Initializer
from .sharding import contract_sharded, merge_rows, sharded
from .trees import DType, cast


@runtime_checkable
class _Draws(Initializer, Protocol):
    """An `Initializer` that `isinstance` can check."""


an_initializer = instance(_Draws, "GlorotOrthogonal() or TorchUniform()")


def input_weights(initializer: Initializer, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw W_x (D, G, H). Without input features it is empty, since no initializer has a scale for D = 0."""
    return initializer.input(key, shape) if shape[0] else jnp.zeros(shape)


def gates_of(x: jax.Array, w: jax.Array) -> tuple[jax.Array, ...]:
    """Multiply x (..., D) by w (D, G, H) in the dtype of w: one GEMM, whose result is split into G arrays (..., H)."""
    check_features(x, w)
    if sharded(w):
        return contract_sharded(x.astype(w.dtype), w)
    in_dim, gates, hidden = w.shape
    packed = merge_rows(x.astype(w.dtype)) @ w.reshape(in_dim, gates * hidden)
    return tuple(jnp.split(packed.reshape(*x.shape[:-1], gates * hidden), gates, axis=-1))


def biased_gates(x: jax.Array, w: jax.Array, b: jax.Array, dtype: DType | None = None) -> tuple[jax.Array, ...]:
    """Return x w + b, G arrays (..., H), from x (..., D), w (D, G, H) and b (G, H); in `dtype`, if not None."""
    gates = tuple(gate + b_g for gate, b_g in zip(gates_of(x, w), b, strict=True))
    return cast(gates, dtype)


def check_features(x: jax.Array, w: jax.Array) -> None:
    """Raise ValueError unless x is one array (..., D) of numbers, with no imaginary part that weights (D, ...) lose."""
    if not isinstance(x, jax.Array | np.ndarray):
        raise ValueError(
            f"a cell takes one array (..., D); got a {type(x).__name__}. Use jnp.stack for a list or a tuple of steps."
        )
    if not is_number(x.dtype):
        raise ValueError(f"a cell takes an array of numbers; got {x.dtype} {x.shape}")
    if jnp.iscomplexobj(x) and not jnp.iscomplexobj(w):
        raise ValueError(
            f"the imaginary part of {x.dtype} inputs would be lost in {w.dtype} weights. Pass both parts as features: "
            "jnp.concatenate([x.real, x.imag], axis=-1)."
        )
    if x.ndim == 0 or x.shape[-1] != w.shape[0]:
        raise ValueError(
            f"the weights {w.shape} take {w.shape[0]} features in the last axis; got an array of shape {x.shape}. "
            f"Use params of init(key, in_dim={x.shape[-1] if x.ndim else 1}), or correct the input."
        )


@runtime_checkable
class Recurrence(Protocol):
    """A structure of W_h: how the weights are drawn, and how they are applied to r = read(s)."""

    def init(self, key: jax.Array, initializer: Initializer, gates: int, hidden: int) -> jax.Array:
        """Draw the weights."""
        ...

    def __call__(self, w: jax.Array, r: jax.Array) -> tuple[jax.Array, ...]:
        """Apply the weights to r (..., H): G arrays (..., H)."""
        ...


@dataclasses.dataclass(frozen=True)
class Dense:
    """v = r W with W (H, G, H): every unit depends on every unit."""

    def init(self, key: jax.Array, initializer: Initializer, gates: int, hidden: int) -> jax.Array:
        """Draw W (H, G, H)."""
        return initializer.recurrent(key, (hidden, gates, hidden))

    def __call__(self, w: jax.Array, r: jax.Array) -> tuple[jax.Array, ...]:
        """Apply W to r (..., H): G arrays (..., H)."""
        return gates_of(r, w)


@dataclasses.dataclass(frozen=True)
class Diagonal:
    """v = r * w with w (G, H): every unit depends on itself only.

    Reference: Li et al., "Independently Recurrent Neural Network (IndRNN)", CVPR 2018, eq. 4
    (https://arxiv.org/abs/1803.04831).
    """

    def init(self, key: jax.Array, initializer: Initializer, gates: int, hidden: int) -> jax.Array:
        """Draw w (G, H)."""
        return initializer.diagonal(key, (gates, hidden))

    def __call__(self, w: jax.Array, r: jax.Array) -> tuple[jax.Array, ...]:
        """Apply W to r (..., H): G arrays (..., H)."""
        return tuple(r.astype(w.dtype) * w_g for w_g in w)


@dataclasses.dataclass(frozen=True)
class Heads(metaclass=Checked):
    """v = r W with W block diagonal, (N, H/N, G, H/N): every unit depends on the units of its head.

    Args:
        heads: N, a divisor of H.

    Reference: Beck et al., "xLSTM", 2024, section 2.2 (https://arxiv.org/abs/2405.04517).
    """

    heads: int

    def __check_init__(self) -> None:
        """Check the number of heads."""
        convert(self, heads=size)

    def dim(self, hidden: int) -> int:
        """Return the number of units of a head; raise ValueError if the heads do not divide `hidden`."""
        if hidden % self.heads:
            raise ValueError(
                f"Heads({self.heads}) needs a hidden size that {self.heads} divides; got hidden={hidden}. "
                f"Use hidden={hidden - hidden % self.heads or self.heads}, or another number of heads."
            )
        return hidden // self.heads

    def init(self, key: jax.Array, initializer: Initializer, gates: int, hidden: int) -> jax.Array:
        """Draw W (N, H/N, G, H/N), each head separately."""
        dim = self.dim(hidden)
        draw = lambda k: initializer.recurrent(k, (dim, gates, dim))
        return jax.vmap(draw)(jax.random.split(key, self.heads))

    def __call__(self, w: jax.Array, r: jax.Array) -> tuple[jax.Array, ...]:
        """Apply W to r (..., H): G arrays (..., H)."""
        heads, dim, gates, _ = w.shape
        rows = merge_rows(r.astype(w.dtype))
        v = jnp.einsum("...nd,ndgk->g...nk", rows.reshape(*rows.shape[:-1], heads, dim), w)
        return tuple(v.reshape(gates, *r.shape))


@dataclasses.dataclass(frozen=True)
class Dale(metaclass=Checked):
    """v = r diag(σ) |W| with W (H, G, H): Dale's law, a unit excites all units or inhibits all.

    The first units are excitatory, σ = 1, and the others inhibitory, σ = -1, whatever the weights become in training:
    the effective weights are those of the absolute values. r should not be negative, as it is with the activation
    "relu" or "softplus". The inhibitory weights are drawn larger, so that excitation and inhibition balance.

    Args:
        excitatory: the fraction of excitatory units, from 0 to 1; their number is rounded.

    Reference: Song, Yang and Wang, "Training excitatory-inhibitory recurrent neural networks for cognitive tasks: a
    simple and flexible framework", PLOS Computational Biology 12, 2016
    (https://doi.org/10.1371/journal.pcbi.1004792), with the absolute value in the place of the rectified W, so that no
    weight loses its gradient.
    """

    excitatory: float = 0.8

    def __check_init__(self) -> None:
        """Check the fraction."""
        convert(self, excitatory=number)
        if not 0 <= self.excitatory <= 1:
            raise ValueError(
                f"Dale.excitatory is the fraction of excitatory units, from 0 to 1; got {self.excitatory}. Use 0.8 for "
                "four in five."
            )

    def signs(self, hidden: int) -> jax.Array:
        """Return σ (H,): 1 for excitatory units, -1 for inhibitory ones."""
        return jnp.where(jnp.arange(hidden) < round(self.excitatory * hidden), 1.0, -1.0)

    def init(self, key: jax.Array, initializer: Initializer, gates: int, hidden: int) -> jax.Array:
        """Draw W (H, G, H), not negative, whose excitatory and inhibitory rows have the same sum on average."""
        w = jnp.abs(initializer.recurrent(key, (hidden, gates, hidden)))
        count = round(self.excitatory * hidden)
        ratio = count / (hidden - count) if 0 < count < hidden else 1.0
        return w * jnp.where(self.signs(hidden) < 0, ratio, 1.0)[:, None, None]

    def __call__(self, w: jax.Array, r: jax.Array) -> tuple[jax.Array, ...]:
        """Apply diag(σ) |W| to r (..., H): G arrays (..., H)."""
        return gates_of(r, jnp.abs(w) * self.signs(w.shape[0]).astype(w.dtype)[:, None, None])


a_recurrence = instance(Recurrence, "Dense(), Diagonal() or Heads(4)")
