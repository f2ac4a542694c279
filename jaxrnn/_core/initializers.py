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

from .fields import Checked, convert, size

Shape = tuple[int, ...]

glorot_per_gate = jax.nn.initializers.glorot_uniform(in_axis=0, out_axis=2, batch_axis=1)
"""Glorot's uniform for weights (D, G, H), with fan-in D and fan-out H for each gate."""

lecun_normal = jax.nn.initializers.lecun_normal(in_axis=0, out_axis=2, batch_axis=1)
"""LeCun's normal for weights (D, G, H): cut at two standard deviations, 1 / sqrt(D) of it after the cut."""


def orthogonal_per_gate(key: jax.Array, shape: Shape) -> jax.Array:
    """Weights (R, G, H): each gate's (R, H) matrix has orthonormal rows or columns.

    Reference: Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", 2014 (https://arxiv.org/abs/1312.6120).
    Note: libraries differ here. flax's `OptimizedLSTMCell` draws one orthogonal (H, 4H) block, torch none at all.
    """
    rows, gates, hidden = shape
    draw = lambda k: jax.nn.initializers.orthogonal()(k, (rows, hidden))
    return jax.vmap(draw, out_axes=1)(jax.random.split(key, gates))


def orthogonal_packed(key: jax.Array, shape: Shape) -> jax.Array:
    """Weights (R, G, H): the gates side by side are one (R, G * H) matrix, with orthonormal rows where R <= G * H.

    A gate alone is then smaller than in `orthogonal_per_gate`: its entries have the variance 1 / (G * H), not 1 / H.
    """
    rows, gates, hidden = shape
    return jax.nn.initializers.orthogonal()(key, (rows, gates * hidden)).reshape(shape)


class Initializer(Protocol):
    """Where the weights of a gated cell begin. D in, R what is read of the state, G gates, H hidden.

    An optional method `projection(key, (H, P))` draws W_p of a `ProjectedLSTM`; without it `input` does, as (H, 1, P).
    """

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


def projection_weights(initializer: Initializer, key: jax.Array, shape: Shape) -> jax.Array:
    """Return W_p (H, P): drawn by the initializer's `projection` if it has one, else by its `input`."""
    draw = getattr(initializer, "projection", None)
    return draw(key, shape) if draw else initializer.input(key, (shape[0], 1, shape[1]))[:, 0]


class _ZeroBias:
    """What most initialisers have in common: a bias of zero, and for a diagonal recurrence weights from U(-1, 1)."""

    def diagonal(self, key: jax.Array, shape: Shape) -> jax.Array:
        """U(-1, 1): no unit explodes by itself."""
        return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)

    def bias(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Zeros."""
        return jnp.zeros(shape)


@dataclasses.dataclass(frozen=True)
class GlorotOrthogonal(_ZeroBias):
    """Glorot uniform input weights, orthogonal recurrent weights for each gate, zero bias: the default."""

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Glorot's uniform, each gate by itself."""
        return glorot_per_gate(key, shape)

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Orthogonal, each gate by itself."""
        return orthogonal_per_gate(key, shape)


@dataclasses.dataclass(frozen=True)
class TorchUniform:
    """Everything from U(-1/sqrt(H), 1/sqrt(H)), as in `torch.nn.RNNBase.reset_parameters`.

    torch has two biases, added to each other; ours is drawn as their sum. An LSTM adds its `forget_bias` to
    that: `LSTM(H, forget_bias=0.0, initializer=TorchUniform())` begins exactly as torch's does. A `GRU` does but for
    the biases of n, two in torch's GRU as in ours, each of which is drawn as such a sum here.
    """

    def _uniform(self, key: jax.Array, shape: Shape, hidden: int | None = None) -> jax.Array:
        bound = 1 / math.sqrt(hidden or shape[-1])
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

    def projection(self, key: jax.Array, shape: Shape) -> jax.Array:
        """U(-1/sqrt(H), 1/sqrt(H))."""
        return self._uniform(key, shape, shape[0])

    def bias(self, key: jax.Array, shape: Shape) -> jax.Array:
        """The sum of two draws of U(-1/sqrt(H), 1/sqrt(H))."""
        k_ih, k_hh = jax.random.split(key)
        return self._uniform(k_ih, shape) + self._uniform(k_hh, shape)


@dataclasses.dataclass(frozen=True)
class FlaxInit(_ZeroBias):
    """As `flax.linen` draws all its cells, and `flax.nnx` its `LSTMCell` and `SimpleCell`.

    LeCun's normal for input weights, orthogonal recurrent weights for each gate, zero bias. Flax's forget bias is zero
    too: `LSTM(H, forget_bias=0.0, initializer=FlaxInit())` begins exactly as flax's does.
    """

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """LeCun's normal, with fan-in D."""
        return lecun_normal(key, shape)

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Orthogonal, each gate by itself."""
        return orthogonal_per_gate(key, shape)


@dataclasses.dataclass(frozen=True)
class NnxInit(_ZeroBias):
    """As `flax.nnx` draws its `OptimizedLSTMCell` and `GRUCell`, which keep all gates in one matrix.

    LeCun's normal for input weights, one orthogonal block for the recurrent weights of all gates, zero bias:
    `LSTM(H, forget_bias=0.0, initializer=NnxInit())` begins exactly as an `OptimizedLSTMCell`.
    """

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """LeCun's normal, with fan-in D."""
        return lecun_normal(key, shape)

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Orthogonal, all gates together."""
        return orthogonal_packed(key, shape)


@dataclasses.dataclass(frozen=True)
class KerasInit(_ZeroBias):
    """As Keras draws `SimpleRNN`, `LSTM` and `GRU`.

    Glorot's uniform for input weights, with fan-out G * H, one orthogonal block for the recurrent weights of all gates,
    zero bias. Keras' `unit_forget_bias` is the default of `LSTM`: `LSTM(H, initializer=KerasInit())` begins exactly as
    Keras' does.
    """

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Glorot's uniform, all gates together."""
        packed = shape[0], shape[1] * shape[2]
        return jax.nn.initializers.glorot_uniform()(key, packed).reshape(shape)

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Orthogonal, all gates together."""
        return orthogonal_packed(key, shape)


@dataclasses.dataclass(frozen=True)
class HaikuInit(_ZeroBias, metaclass=Checked):
    """As haiku draws `hk.LSTM` and `hk.VanillaRNN`, whose matrices are those of `hk.Linear`.

    A normal of the standard deviation 1 / sqrt(fan-in), cut at two of those; zero bias.

    Args:
        features: D, the number of input features, for an LSTM: `hk.LSTM` has one matrix for x and h, so its fan-in is
            D + H for both. None takes each matrix by itself, as `hk.VanillaRNN` does.

    Haiku adds 1 to the forget gate, as `LSTM` does by default: `LSTM(H, initializer=HaikuInit(features=D))` begins
    exactly as `hk.LSTM`, `Elman(H, activation=jax.nn.relu, initializer=HaikuInit())` as `hk.VanillaRNN`. For `hk.GRU`
    see `HaikuGRUInit`.

    Raises:
        ValueError: if the features are neither None nor an int of 1 or more, or if the cell takes another number of
            features.
    """

    features: int | None = None

    def __check_init__(self) -> None:
        """Check the number of features."""
        if self.features is not None:
            convert(self, features=size)

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """A cut normal, with fan-in D or D + H."""
        if self.features not in (None, shape[0]):
            raise ValueError(f"{self} is for {self.features} input features; got {shape[0]}. Use features={shape[0]}.")
        return self._draw(key, shape, shape[0], shape[2])

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """A cut normal, with fan-in H or D + H."""
        return self._draw(key, shape, shape[0], shape[0])

    def projection(self, key: jax.Array, shape: Shape) -> jax.Array:
        """A cut normal, with fan-in H."""
        return jax.nn.initializers.truncated_normal(1 / math.sqrt(shape[0]))(key, shape)

    def _draw(self, key: jax.Array, shape: Shape, rows: int, hidden: int) -> jax.Array:
        fan_in = rows if self.features is None else self.features + hidden
        return jax.nn.initializers.truncated_normal(1 / math.sqrt(fan_in))(key, shape)


@dataclasses.dataclass(frozen=True)
class HaikuGRUInit(_ZeroBias):
    """As haiku draws `hk.GRU`: LeCun's normal for input and recurrent weights, zero bias.

    `ResetBeforeGRU(H, initializer=HaikuGRUInit())` begins exactly as `hk.GRU`.
    """

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """LeCun's normal, with fan-in D."""
        return lecun_normal(key, shape)

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """LeCun's normal, with fan-in H."""
        return lecun_normal(key, shape)
