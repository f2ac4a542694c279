"""The activation functions of ONNX's recurrent operators, as values that compare, hash and pickle."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

Function: TypeAlias = Callable[[jax.Array], jax.Array]

_PLAIN: dict[str, Function] = {
    "Tanh": jnp.tanh,
    "Relu": jax.nn.relu,
    "Sigmoid": jax.nn.sigmoid,
    "Softsign": jax.nn.soft_sign,
    "Softplus": jax.nn.softplus,
}
_SCALED: dict[str, Callable[[jax.Array, float, float], jax.Array]] = {
    "Affine": lambda x, alpha, beta: alpha * x + beta,
    "LeakyRelu": lambda x, alpha, beta: jnp.where(x >= 0, x, alpha * x),
    "ThresholdedRelu": lambda x, alpha, beta: jnp.where(x >= alpha, x, 0),
    "ScaledTanh": lambda x, alpha, beta: alpha * jnp.tanh(beta * x),
    "HardSigmoid": lambda x, alpha, beta: jnp.clip(alpha * x + beta, 0, 1),
    "Elu": lambda x, alpha, beta: jnp.where(x >= 0, x, alpha * jnp.expm1(jnp.minimum(x, 0))),
}
# the defaults of alpha and beta: NaN where ONNX has none and the node must name one, None where f has no such number
_DEFAULTS: dict[str, tuple[float | None, float | None]] = {
    "Affine": (math.nan, math.nan),
    "LeakyRelu": (0.01, None),
    "ThresholdedRelu": (1.0, None),
    "ScaledTanh": (math.nan, math.nan),
    "HardSigmoid": (0.2, 0.5),
    "Elu": (1.0, None),
}
_NAMES = {name.lower(): name for name in (*_PLAIN, *_SCALED)}


@dataclasses.dataclass(frozen=True)
class Activation:
    """An activation function of ONNX: f(clip(x, -c, c); α, β).

    Args:
        name: as ONNX names it.
        alpha: α, if f has one.
        beta: β, if f has one.
        clip: c; None does not clip.

    >>> Activation("LeakyRelu", alpha=0.5)(jnp.array([-2.0, 2.0])).tolist()
    [-1.0, 2.0]
    """

    name: str
    alpha: float | None = None
    beta: float | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        """Check the name and the numbers."""
        if self.name not in _NAMES.values():
            raise ValueError(
                f"ONNX has the activations {', '.join(sorted(_NAMES.values()))} here; got {self.name[:32]!r}"
            )
        for key, default in zip(("alpha", "beta"), _DEFAULTS.get(self.name, (None, None)), strict=True):
            number = getattr(self, key)
            if (default is None) != (number is None) or (number is not None and not math.isfinite(number)):
                needed = "no" if default is None else "a finite"
                raise ValueError(f"the activation {self.name} needs {needed} {key}; got {key}={number}")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip is a threshold above 0, or left out for none; got clip={self.clip}")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply it, elementwise."""
        if self.clip is not None:
            x = jnp.clip(x, -self.clip, self.clip)
        if self.name in _PLAIN:
            return _PLAIN[self.name](x)
        return _SCALED[self.name](x, self.alpha or 0.0, self.beta or 0.0)  # f ignores a number that is None


_ACTIVATIONS: dict[Function, Activation] = {
    **{function: Activation(name) for name, function in _PLAIN.items()},
    jax.nn.leaky_relu: Activation("LeakyRelu", 0.01),
    jax.nn.elu: Activation("Elu", 1.0),
    jax.nn.hard_sigmoid: Activation("HardSigmoid", 1 / 6, 0.5),
    jax.nn.identity: Activation("Affine", 1.0, 0.0),
}


def to_function(activation: Activation) -> Function:
    """Return the function of JAX that equals an activation without parameters; any other activation unchanged.

    >>> to_function(Activation("Tanh")) is jnp.tanh
    True
    """
    return activation if activation.clip else _PLAIN.get(activation.name, activation)


def from_function(function: Function) -> Activation | None:
    """Return the activation of ONNX that equals a function of JAX; None if ONNX does not have it.

    >>> from_function(jax.nn.elu)
    Activation(name='Elu', alpha=1.0, beta=None, clip=None)
    """
    return function if isinstance(function, Activation) else _ACTIVATIONS.get(function)


def to_activations(names: list[str], alphas: list[float], betas: list[float], clip: float | None) -> list[Activation]:
    """Return the activations that a node names; each takes the next alpha and beta, if it has such a number.

    Raises:
        ValueError: for a name that ONNX does not have here, and for too few or too many numbers.

    Note: the default alpha of ThresholdedRelu is 1, as for ONNX's operator of that name; onnxruntime takes 0.

    >>> to_activations(["Tanh", "LeakyRelu"], [0.5], [], clip=None)[1]
    Activation(name='LeakyRelu', alpha=0.5, beta=None, clip=None)
    """
    rest = {"alpha": list(alphas), "beta": list(betas)}
    functions = []
    for given in names:
        name = _NAMES.get(given.lower(), given)
        numbers: dict[str, float | None] = {}
        for key, default in zip(rest, _DEFAULTS.get(name, (None, None)), strict=True):
            if default is not None and rest[key]:
                numbers[key] = rest[key].pop(0)
            elif default is not None and math.isnan(default):
                raise ValueError(f"{name} needs an {key}; the node has too few in activation_{key}")
            else:
                numbers[key] = default
        functions.append(Activation(name, **numbers, clip=clip))
    left = sum(map(len, rest.values()))
    if left and any(f.name in _SCALED for f in functions):
        raise ValueError(
            f"{left} numbers of activation_alpha and activation_beta are left over. Each function takes the next alpha "
            "and beta if it has such a number; leave out those of the others."
        )
    return functions
