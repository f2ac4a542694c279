"""Initializers of the weights of gated cells.

Every array has the default float dtype (float32; float64 under `jax_enable_x64`). For bfloat16, cast the params:
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
"""Glorot uniform for weights (D, G, H), with fan-in D and fan-out H for each gate."""

lecun_normal = jax.nn.initializers.lecun_normal(in_axis=0, out_axis=2, batch_axis=1)
"""LeCun normal for weights (D, G, H): truncated at two standard deviations, with standard deviation 1 / sqrt(D)."""


def orthogonal_per_gate(key: jax.Array, shape: Shape) -> jax.Array:
    """Draw weights (R, G, H) whose (R, H) matrix of each gate has orthonormal rows or columns.

    Reference: Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", 2014 (https://arxiv.org/abs/1312.6120).
    Note: libraries differ. flax's `OptimizedLSTMCell` draws one orthogonal (H, 4H) block, torch no orthogonal weights.
    """
    rows, gates, hidden = shape
    draw = lambda k: jax.nn.initializers.orthogonal()(k, (rows, hidden))
    return jax.vmap(draw, out_axes=1)(jax.random.split(key, gates))


def orthogonal_packed(key: jax.Array, shape: Shape) -> jax.Array:
    """Draw weights (R, G, H) as one (R, G * H) matrix of all gates, with orthonormal rows where R <= G * H.

    Entries have variance 1 / (G * H); those of `orthogonal_per_gate` have 1 / H.
    """
    rows, gates, hidden = shape
    return jax.nn.initializers.orthogonal()(key, (rows, gates * hidden)).reshape(shape)


class Initializer(Protocol):
    """How the weights of a gated cell are drawn. D input features, R features of read(s), G gates, H hidden units.

    An optional method `projection(key, (H, P))` draws W_p of a `ProjectedLSTM`; without it, `input` draws (H, 1, P).
    """

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw W_x (D, G, H)."""
        ...

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw W_h (R, G, H)."""
        ...

    def diagonal(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw w_h (G, H) of a diagonal recurrence."""
        ...

    def bias(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw b (G, H); the cell adds its `bias_offset` (the forget bias of an LSTM)."""
        ...


def projection_weights(initializer: Initializer, key: jax.Array, shape: Shape) -> jax.Array:
    """Draw W_p (H, P) by the initializer's `projection` if it has one, else by its `input`."""
    draw = getattr(initializer, "projection", None)
    return draw(key, shape) if draw else initializer.input(key, (shape[0], 1, shape[1]))[:, 0]


class _ZeroBias:
    """Zero biases, and weights of a diagonal recurrence from U(-1, 1): the base of most initializers."""

    def diagonal(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw from U(-1, 1), so that no unit explodes."""
        return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)

    def bias(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Return zeros."""
        return jnp.zeros(shape)


@dataclasses.dataclass(frozen=True)
class GlorotOrthogonal(_ZeroBias):
    """Glorot uniform input weights, orthogonal recurrent weights for each gate, zero bias: the default."""

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw Glorot uniform weights, each gate separately."""
        return glorot_per_gate(key, shape)

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw orthogonal weights, each gate separately."""
        return orthogonal_per_gate(key, shape)


@dataclasses.dataclass(frozen=True)
class TorchUniform:
    """U(-1/sqrt(H), 1/sqrt(H)) for all params, as in `torch.nn.RNNBase.reset_parameters`.

    torch adds two biases; b is drawn as their sum. An LSTM adds its `forget_bias` to it:
    `LSTM(H, forget_bias=0.0, initializer=TorchUniform())` has exactly the distribution of torch. A `GRU` has it except
    for the two biases of n, each of which is drawn as such a sum here.
    """

    def _uniform(self, key: jax.Array, shape: Shape, hidden: int | None = None) -> jax.Array:
        bound = 1 / math.sqrt(hidden or shape[-1])
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw from U(-1/sqrt(H), 1/sqrt(H))."""
        return self._uniform(key, shape)

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw from U(-1/sqrt(H), 1/sqrt(H))."""
        return self._uniform(key, shape)

    def diagonal(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw from U(-1/sqrt(H), 1/sqrt(H))."""
        return self._uniform(key, shape)

    def projection(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw from U(-1/sqrt(H), 1/sqrt(H))."""
        return self._uniform(key, shape, shape[0])

    def bias(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw the sum of two variables from U(-1/sqrt(H), 1/sqrt(H))."""
        k_ih, k_hh = jax.random.split(key)
        return self._uniform(k_ih, shape) + self._uniform(k_hh, shape)


@dataclasses.dataclass(frozen=True)
class FlaxInit(_ZeroBias):
    """The initialization of all cells of `flax.linen`, and of `LSTMCell` and `SimpleCell` of `flax.nnx`.

    LeCun normal input weights, orthogonal recurrent weights for each gate, zero bias. The forget bias of flax is zero
    too: use `LSTM(H, forget_bias=0.0, initializer=FlaxInit())`.
    """

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw LeCun normal weights, with fan-in D."""
        return lecun_normal(key, shape)

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw orthogonal weights, each gate separately."""
        return orthogonal_per_gate(key, shape)


@dataclasses.dataclass(frozen=True)
class NnxInit(_ZeroBias):
    """The initialization of `OptimizedLSTMCell` and `GRUCell` of `flax.nnx`, which keep all gates in one matrix.

    LeCun normal input weights, one orthogonal block of recurrent weights for all gates, zero bias. For an
    `OptimizedLSTMCell` use `LSTM(H, forget_bias=0.0, initializer=NnxInit())`.
    """

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw LeCun normal weights, with fan-in D."""
        return lecun_normal(key, shape)

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw one orthogonal matrix for all gates."""
        return orthogonal_packed(key, shape)


@dataclasses.dataclass(frozen=True)
class KerasInit(_ZeroBias):
    """The initialization of `SimpleRNN`, `LSTM` and `GRU` of Keras.

    Glorot uniform input weights with fan-out G * H, one orthogonal block of recurrent weights for all gates, zero bias.
    The forget bias of 1 that Keras calls `unit_forget_bias` is the default of `LSTM`: use
    `LSTM(H, initializer=KerasInit())`.
    """

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw one Glorot uniform matrix for all gates."""
        packed = shape[0], shape[1] * shape[2]
        return jax.nn.initializers.glorot_uniform()(key, packed).reshape(shape)

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw one orthogonal matrix for all gates."""
        return orthogonal_packed(key, shape)


@dataclasses.dataclass(frozen=True)
class HaikuInit(_ZeroBias, metaclass=Checked):
    """The initialization of `hk.LSTM` and `hk.VanillaRNN`, which is that of `hk.Linear`.

    A normal distribution of standard deviation 1 / sqrt(fan-in), truncated at two of those; zero bias.

    Args:
        features: D, the number of input features, for an LSTM: `hk.LSTM` has one matrix for x and h, so the fan-in of
            both is D + H. None takes the fan-in of each matrix, as in `hk.VanillaRNN`.

    Haiku adds 1 to the forget gate, as `LSTM` does by default. For `hk.LSTM` use
    `LSTM(H, initializer=HaikuInit(features=D))`, for `hk.VanillaRNN`
    `Elman(H, activation=jax.nn.relu, initializer=HaikuInit())`; for `hk.GRU` see `HaikuGRUInit`.

    Raises:
        ValueError: if `features` is neither None nor an int of 1 or more, or differs from the cell's number of input
            features.
    """

    features: int | None = None

    def __check_init__(self) -> None:
        """Check the number of features."""
        if self.features is not None:
            convert(self, features=size)

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw from a truncated normal, with fan-in D or D + H."""
        if self.features not in (None, shape[0]):
            raise ValueError(f"{self} is for {self.features} input features; got {shape[0]}. Use features={shape[0]}.")
        return self._draw(key, shape, shape[0], shape[2])

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw from a truncated normal, with fan-in H or D + H."""
        return self._draw(key, shape, shape[0], shape[0])

    def projection(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw from a truncated normal, with fan-in H."""
        return jax.nn.initializers.truncated_normal(1 / math.sqrt(shape[0]))(key, shape)

    def _draw(self, key: jax.Array, shape: Shape, rows: int, hidden: int) -> jax.Array:
        fan_in = rows if self.features is None else self.features + hidden
        return jax.nn.initializers.truncated_normal(1 / math.sqrt(fan_in))(key, shape)


@dataclasses.dataclass(frozen=True)
class HaikuGRUInit(_ZeroBias):
    """The initialization of `hk.GRU`: LeCun normal input and recurrent weights, zero bias.

    Use `ResetBeforeGRU(H, initializer=HaikuGRUInit())`.
    """

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw LeCun normal weights, with fan-in D."""
        return lecun_normal(key, shape)

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw LeCun normal weights, with fan-in H."""
        return lecun_normal(key, shape)
