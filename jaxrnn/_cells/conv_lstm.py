"""The convolutional LSTM."""

from __future__ import annotations

import dataclasses

import jax

from .._core.cell import GatedCell, GatedParams
from .._core.fields import convert, number
from .._core.recurrence import Dense
from .convolution import check_image, convolve, draw_kernels, zero_image
from .lstm import LSTM, LSTMState, forget_offset


@dataclasses.dataclass(frozen=True)
class ConvLSTM(GatedCell):
    """The LSTM whose matmuls are convolutions, its gates in the order i, f, g, o.

    u = x ∗ W_x + b, v = h_{t-1} ∗ W_h, and the gates of `LSTM`, for every pixel and channel.

    Args:
        hidden: F, the number of channels of the state.
        image: (height, width), the size of an image.
        kernel: K, odd, the height and the width of the kernels.
        forget_bias: added by `init` to b of the forget gate.

    Images are flattened: inputs are (*batch, height * width * channels), the state is `LSTMState(h, c)`, each (*batch,
    height * width * F). The kernels are w_x (K K C, 4, F) and w_h (K K F, 4, F), pixels in the order of rows. The
    recurrence is `Dense()`.

    >>> cell = ConvLSTM(4, image=(8, 6))
    >>> params = cell.init(jax.random.key(0), in_dim=8 * 6 * 3)
    >>> images = jnp.ones((5, 2, 8, 6, 3))
    >>> state, ys = unroll(cell, params, images.reshape(5, 2, -1))
    >>> ys.reshape(5, 2, 8, 6, 4).shape
    (5, 2, 8, 6, 4)

    Reference: Shi, Chen, Wang, Yeung, Wong and Woo, "Convolutional LSTM network: a machine learning approach for
    precipitation nowcasting", NeurIPS 2015, eq. 3 (https://arxiv.org/abs/1506.04214), without the peepholes.
    Note: flax orders the gates i, g, f, o and adds 1 inside its forget gate.
    """

    hidden: int
    _: dataclasses.KW_ONLY
    image: tuple[int, int]
    kernel: int = 3
    forget_bias: float = 1.0
    gates = 4

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, forget_bias=number)
        check_image(self)
        if self.recurrence != Dense():
            raise ValueError(f"ConvLSTM takes recurrence=Dense(), for its kernels; got {self.recurrence}")

    def init(self, key: jax.Array, in_dim: int) -> GatedParams:
        """Draw the kernels; raise ValueError unless `in_dim` is a number of pixels times channels."""
        drawn = draw_kernels(self, key, in_dim, 4)
        return drawn._replace(b=drawn.b + forget_offset(self.forget_bias))

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> LSTMState:
        """Return h_0 = c_0 = 0, each (*batch, height * width * F), in the dtype of the params."""
        zeros = zero_image(self, params, batch)
        return LSTMState(zeros, zeros)

    def read(self, s: LSTMState) -> jax.Array:
        """Return h, which the kernels are applied to."""
        return s.h

    def project(self, params: GatedParams, x: jax.Array) -> tuple[jax.Array, ...]:
        """Return u, 4 arrays (..., height * width * F)."""
        return convolve(self, x, params.w_x, params.b)

    def recur(self, params: GatedParams, s: LSTMState) -> tuple[jax.Array, ...]:
        """Return v, 4 arrays (..., height * width * F)."""
        return convolve(self, s.h, params.w_h)

    def gate(self, s: LSTMState, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> LSTMState:
        """Apply the gates of an LSTM."""
        return LSTM(self.hidden).gate(s, u, v)
