"""An affine map of the features, with an activation."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax

from .._core.activation import Activation, ActivationLike, activation
from .._core.exportable import exportable
from .._core.fields import check_init, convert, one_of, size
from .._core.initializers import GlorotOrthogonal, Initializer
from .._core.recurrence import an_initializer, gates_of, input_weights
from .stateless import Stateless

if TYPE_CHECKING:
    from jaxtyping import Array, Float

IDENTITY = Activation("identity")


def activation_or_none(given: object, what: str) -> ActivationLike:
    """Return an activation; the identity for None."""
    return IDENTITY if given is None else activation(given, what)


@exportable
class LinearParams(NamedTuple):
    """The params of a `Linear` layer.

    Attributes:
        w: weights.
        b: bias; None for a layer without.
    """

    w: Float[Array, "D K"]
    b: Float[Array, " K"] | None


@dataclasses.dataclass(frozen=True)
class Linear(Stateless):
    """y_t = activation(x_t W + b): a layer without a state. Inputs are cast to the dtype of W, which is that of y.

    Args:
        features: K, the number of output features.
        bias: whether there is a b.
        activation: by name (`"relu"`, `"gelu"`, ...) or as a function; None for none.
        initializer: how the weights are drawn; its `input` draws W, as for one gate, and its `bias` b.

    >>> stack = Stack((Linear(8, activation="relu"), GRU(8), Linear(2)))
    >>> params = stack.init(jax.random.key(0), in_dim=3)
    >>> unroll(stack, params, jnp.ones((5, 4, 3)))[1].shape
    (5, 4, 2)

    Raises:
        ValueError: for inputs of another number of features than the params.

    Note: `flax.linen.Dense` draws LeCun normal weights: `initializer=FlaxInit()`. `torch.nn.Linear` draws W and b from
    U(-1/sqrt(D), 1/sqrt(D)).
    """

    features: int
    _: dataclasses.KW_ONLY
    bias: bool = True
    activation: ActivationLike = None
    initializer: Initializer = GlorotOrthogonal()

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, features=size, bias=one_of(True, False), activation=activation_or_none)
        convert(self, initializer=an_initializer)

    def init(self, key: jax.Array, in_dim: int) -> LinearParams:
        """Draw W and b."""
        in_dim = check_init(self, key, in_dim)
        k_w, k_b = jax.random.split(key)
        w = input_weights(self.initializer, k_w, (in_dim, 1, self.features))[:, 0]
        return LinearParams(w, self.initializer.bias(k_b, (1, self.features))[0] if self.bias else None)

    def out_dim(self, in_dim: int) -> int:
        """Return K."""
        return self.features

    def apply(self, params: LinearParams, x: jax.Array) -> jax.Array:
        """Return y (..., K)."""
        (y,) = gates_of(x, params.w[:, None])
        return self.activation(y if params.b is None else y + params.b)
