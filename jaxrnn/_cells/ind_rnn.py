"""The independently recurrent network: the recurrent weights are diagonal."""

from __future__ import annotations

import dataclasses

import jax

from .._core.activation import RELU, ActivationLike
from .._core.initializers import GlorotOrthogonal, Initializer, Shape
from .._core.recurrence import Diagonal, Recurrence
from .elman import Elman


@dataclasses.dataclass(frozen=True)
class IndRNNInit(GlorotOrthogonal):
    """`GlorotOrthogonal`, with diagonal recurrent weights from U(0, 1).

    With relu no unit explodes then, and weights near 1 keep a long memory.
    """

    def diagonal(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw from U(0, 1)."""
        return jax.random.uniform(key, shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndRNN(Elman):
    """h_t = f(x_t U + w * h_{t-1} + b): an `Elman` whose recurrence is `Diagonal()`.

    Args:
        hidden: H, the number of units.
        activation: f, elementwise, as in `Elman`.

    The state is h (*batch, H).

    >>> cell = IndRNN(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> params.w_h.shape
    (1, 4)

    Reference: Li et al., "Independently Recurrent Neural Network (IndRNN)", CVPR 2018, eq. 4 and section 3.2
    (https://arxiv.org/abs/1803.04831).
    """

    activation: ActivationLike = RELU
    recurrence: Recurrence = Diagonal()
    initializer: Initializer = IndRNNInit()
