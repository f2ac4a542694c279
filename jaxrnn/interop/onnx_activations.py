"""The activation functions of ONNX's recurrent operators, as values that compare and hash."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_PLAIN: dict[str, Callable[[jax.Array], jax.Array]] = {
    "Tanh": jnp.tanh,
    "Relu": jax.nn.relu,
    "Sigmoid": jax.nn.sigmoid,
    "Softsign": jax.nn.soft_sign,
    "Softplus": jax.nn.softplus,
}
_SCALED: dict[str, Callable[[jax.Array, Any, Any], jax.Array]] = {
    "Affine": lambda x, alpha, beta: alpha * x + beta,
    "LeakyRelu": lambda x, alpha, beta: jnp.where(x >= 0, x, alpha * x),
    "ThresholdedRelu": lambda x, alpha, beta: jnp.where(x >= alpha, x, 0),
    "ScaledTanh": lambda x, alpha, beta: alpha * jnp.tanh(beta * x),
    "HardSigmoid": lambda x, alpha, beta: jnp.clip(alpha * x + beta, 0, 1),
    "Elu": lambda x, alpha, beta: jnp.where(x >= 0, x, alpha * jnp.expm1(jnp.minimum(x, 0))),
}
# (alpha, beta) where the node gives none; REQUIRED where ONNX has no default, None where there is no such number
REQUIRED = "required"
_DEFAULTS: dict[str, tuple[Any, Any]] = {
    "Affine": (REQUIRED, REQUIRED),
    "LeakyRelu": (0.01, None),
    "ThresholdedRelu": (1.0, None),
    "ScaledTanh": (REQUIRED, REQUIRED),
    "HardSigmoid": (0.2, 0.5),
    "Elu": (1.0, None),
}
_NAMES = {name.lower(): name for name in (*_PLAIN, *_SCALED)}


@dataclasses.dataclass(frozen=True)
class Activation:
    """An activation function that has numbers of its own: f(clip(x, -c, c); α, β).

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

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply it, elementwise."""
        if self.clip is not None:
            x = jnp.clip(x, -self.clip, self.clip)
        return _PLAIN[self.name](x) if self.name in _PLAIN else _SCALED[self.name](x, self.alpha, self.beta)


def activations(
    names: list[str], alphas: list[float], betas: list[float], clip: float | None
) -> list[Callable[[jax.Array], jax.Array]]:
    """Give the functions that a node names; each takes the next alpha and beta, if it has such a number.

    Raises:
        ValueError: for a name that ONNX does not have here, and for too few or too many numbers.

    Note: ThresholdedRelu has alpha=1 where none is given, as ONNX's operator of that name; onnxruntime takes 0.

    >>> activations(["Tanh", "LeakyRelu"], [0.5], [], clip=None)[1]
    Activation(name='LeakyRelu', alpha=0.5, beta=None, clip=None)
    """
    rest = {"alpha": list(alphas), "beta": list(betas)}
    functions: list[Callable[[jax.Array], jax.Array]] = []
    for given in names:
        if given.lower() not in _NAMES:
            raise ValueError(f"ONNX has the activations {sorted(_NAMES.values())} here; got {given!r}")
        name = _NAMES[given.lower()]
        numbers = {}
        for key, default in zip(rest, _DEFAULTS.get(name, (None, None)), strict=True):
            numbers[key] = rest[key].pop(0) if default is not None and rest[key] else default
            if numbers[key] == REQUIRED:
                raise ValueError(f"{name} needs an {key}; the node has too few in activation_{key}")
        scaled = clip is not None or name in _SCALED
        functions.append(Activation(name, **numbers, clip=clip) if scaled else _PLAIN[name])
    left = {key: values for key, values in rest.items() if values}
    if left and any(isinstance(f, Activation) and f.name in _SCALED for f in functions):
        raise ValueError(
            f"the activations {names} take fewer numbers than the node has: {left} are left over. Each function takes "
            "the next alpha and beta if it has such a number; leave out those of the others."
        )
    return functions
