"""Activation functions by name, as values that compare, hash and pickle, which the jitted functions of JAX do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .fields import show

_FUNCTIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "celu": jax.nn.celu,
    "selu": jax.nn.selu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "mish": jax.nn.mish,
    "softplus": jax.nn.softplus,
    "soft_sign": jax.nn.soft_sign,
    "log_sigmoid": jax.nn.log_sigmoid,
    "hard_tanh": jax.nn.hard_tanh,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "hard_silu": jax.nn.hard_silu,
    "identity": jax.nn.identity,
    "exp": jnp.exp,
    "sin": jnp.sin,
}
_NAMES = [
    *((function, name) for name, function in _FUNCTIONS.items()),
    (jax.lax.tanh, "tanh"),
    (jax.lax.logistic, "sigmoid"),
]
_ALIASES = {
    "swish": "silu",
    "hard_swish": "hard_silu",
    "softsign": "soft_sign",
    "linear": "identity",
    "exponential": "exp",
}


@dataclasses.dataclass(frozen=True)
class Activation:
    """An activation function of `jax.nn`, elementwise.

    Two are equal if they have the same name, whether given by name or as a function:

    >>> Elman(4, activation="relu") == Elman(4, activation=jax.nn.relu)
    True
    >>> Elman(4, activation="relu").activation(jnp.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    name: str

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the function elementwise."""
        return _FUNCTIONS[self.name](x)

    def __repr__(self) -> str:
        return repr(self.name)


ActivationLike: TypeAlias = Any
"""A name of an activation, or a function of an array that applies elementwise; once a cell is made, a function."""

TANH, SIGMOID, RELU = Activation("tanh"), Activation("sigmoid"), Activation("relu")


def activation(given: object, what: str = "an activation") -> ActivationLike:
    """Return the `Activation` for a name or a function of `jax.nn`; return any other callable unchanged.

    Names are those of `jax.nn`, with their definitions there: "gelu" is the tanh approximation, "leaky_relu" has the
    slope 0.01. "swish", "hard_swish", "softsign", "linear" and "exponential" are Keras's names for "silu", "hard_silu",
    "soft_sign", "identity" and "exp".

    Raises:
        ValueError: for an unknown name, and for a value that cannot be applied to JAX arrays.
    """
    if isinstance(given, str):
        name = _ALIASES.get(given, given)
        if name in _FUNCTIONS:
            return Activation(name)
    elif callable(given) and not isinstance(given, type | np.ufunc):
        names = [name for function, name in _NAMES if function is given]
        return Activation(names[0]) if names else given
    raise ValueError(
        f"{what} must be one of {', '.join(sorted([*_FUNCTIONS, *_ALIASES]))}, or a function of JAX arrays; got "
        f"{show(given)}"
    )


def function_of(activation: ActivationLike) -> ActivationLike:
    """Return the function of JAX for an `Activation`, for other libraries; return any other value unchanged."""
    return _FUNCTIONS[activation.name] if isinstance(activation, Activation) else activation


class HasActivations(Protocol):
    """A cell with two activations."""

    @property
    def activation(self) -> ActivationLike:
        """The activation of candidates and memories."""

    @property
    def gate_activation(self) -> ActivationLike:
        """The activation of gates."""


def is_standard(cell: HasActivations) -> bool:
    """Return whether the gates of a cell are sigmoid and its other activation is tanh."""
    return bool(cell.activation == TANH and cell.gate_activation == SIGMOID)
