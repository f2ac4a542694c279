"""The convolutional GRU."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from .._core.broadcasting import broadcasting
from .._core.cell import GatedParams
from .._core.checks import check_step
from .._core.fields import Checked, convert, size
from .._core.initializers import GlorotOrthogonal, Initializer
from .._core.recurrence import an_initializer
from .._core.trees import cast
from .convolution import check_image, convolve, draw_kernels, zero_image


@dataclasses.dataclass(frozen=True)
class ConvGRU(metaclass=Checked):
    """The GRU whose matmuls are convolutions; gates in the order r, z, n.

    r, z = σ(x ∗ W_x + h_{t-1} ∗ W_h + b), n = tanh(x ∗ W_xn + (r * h_{t-1}) ∗ W_hn + b_n),
    h_t = (1 - z) * h_{t-1} + z * n.

    Args:
        hidden: F, the number of channels of the state.
        image: (height, width), the size of an image.
        kernel: K, odd, the height and the width of the kernels.
        initializer: how the kernels are drawn.

    Images are flattened: inputs are (*batch, height * width * channels), the state is h (*batch, height * width * F).
    The kernels are w_x (K K C, 3, F) and w_h (K K F, 3, F), pixels in the order of rows. A step has two dependent
    convolutions, so it is not a `GatedCell`: use `Loop`, `Scan` or `Newton`.

    >>> cell = ConvGRU(4, image=(8, 6))
    >>> params = cell.init(jax.random.key(0), in_dim=8 * 6 * 3)
    >>> images = jnp.ones((5, 2, 8, 6, 3))
    >>> state, ys = unroll(cell, params, images.reshape(5, 2, -1))
    >>> ys.reshape(5, 2, 8, 6, 4).shape
    (5, 2, 8, 6, 4)

    Reference: Ballas, Yao, Pal and Courville, "Delving deeper into convolutional networks for learning video
    representations", ICLR 2016, section 3.1 (https://arxiv.org/abs/1511.06432).
    """

    hidden: int
    _: dataclasses.KW_ONLY
    image: tuple[int, int]
    kernel: int = 3
    initializer: Initializer = GlorotOrthogonal()

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, hidden=size, initializer=an_initializer)
        check_image(self)

    def init(self, key: jax.Array, in_dim: int) -> GatedParams:
        """Draw the kernels; raise ValueError unless `in_dim` is a number of pixels times channels."""
        return draw_kernels(self, key, in_dim, 3)

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return h_0 = 0, (*batch, height * width * F), in the dtype of the params."""
        return zero_image(self, params, batch)

    @broadcasting
    def step(self, params: GatedParams, state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return (h_t, h_t) from h_{t-1} and x_t (*batch, height * width * channels)."""
        check_step(self, params, state, x)
        u_r, u_z, u_n = cast(convolve(self, x, params.w_x, params.b), state.dtype)
        v_r, v_z = cast(convolve(self, state, params.w_h[:, :2]), state.dtype)
        r, z = jax.nn.sigmoid(u_r + v_r), jax.nn.sigmoid(u_z + v_z)
        (v_n,) = cast(convolve(self, r * state, params.w_h[:, 2:]), state.dtype)
        h = state + z * (jnp.tanh(u_n + v_n) - state)
        return h, h.astype(params.w_x.dtype)
