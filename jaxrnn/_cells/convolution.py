"""Convolutions of images that are flattened to features, for `ConvLSTM` and `ConvGRU`."""

from __future__ import annotations

import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._core.cell import GatedParams
from .._core.fields import check_init, convert, show, size
from .._core.initializers import Initializer


class ConvCell(Protocol):
    """A cell of images."""

    @property
    def hidden(self) -> int:
        """The number of channels of the state."""

    @property
    def image(self) -> tuple[int, int]:
        """Height and width."""

    @property
    def kernel(self) -> int:
        """The height and the width of a kernel."""

    @property
    def initializer(self) -> Initializer:
        """How the weights are drawn."""


def check_image(cell: ConvCell) -> None:
    """Raise ValueError unless the image is two sizes and the kernel is odd."""
    kind = type(cell).__name__
    image = cell.image
    if not isinstance(image, tuple) or len(image) != 2:
        raise ValueError(f"{kind}.image must be a pair (height, width), such as (28, 28); got {show(image)}")
    object.__setattr__(cell, "image", tuple(size(n, f"{kind}.image") for n in image))
    convert(cell, kernel=size)
    if cell.kernel % 2 == 0:
        raise ValueError(
            f"{kind}.kernel must be odd, so that it has a centre; got {cell.kernel}. Use {cell.kernel - 1} or "
            f"{cell.kernel + 1}."
        )


def draw_kernels(cell: ConvCell, key: jax.Array, in_dim: int, gates: int) -> GatedParams:
    """Draw kernels w_x (K K C, G, F) of the inputs and w_h (K K F, G, F) of the state, and b (G, F)."""
    in_dim = check_init(cell, key, in_dim)
    (height, width), kind = cell.image, type(cell).__name__
    channels, rest = divmod(in_dim, height * width)
    if rest or not channels:
        raise ValueError(
            f"{kind} takes images of {height} x {width} pixels, flattened to height * width * channels features; got "
            f"in_dim={in_dim}, not {height * width} for every channel. Correct image=(height, width), or in_dim."
        )
    area = cell.kernel**2
    k_x, k_h, k_b = jax.random.split(key, 3)
    return GatedParams(
        cell.initializer.input(k_x, (area * channels, gates, cell.hidden)),
        cell.initializer.recurrent(k_h, (area * cell.hidden, gates, cell.hidden)),
        cell.initializer.bias(k_b, (gates, cell.hidden)),
    )


def convolve(cell: ConvCell, x: jax.Array, w: jax.Array, b: jax.Array | None = None) -> tuple[jax.Array, ...]:
    """Convolve images x (..., height * width * C) with kernels w (K K C, G, F): G arrays (..., height * width * F).

    Pixels outside the image are zero. b (G, F) is added.
    """
    height, width = cell.image
    rows, gates, hidden = w.shape
    channels = rows // cell.kernel**2
    check_pixels(cell, x, height * width * channels)
    batch = x.shape[:-1]
    images = x.astype(w.dtype).reshape(math.prod(batch), height, width, channels)
    kernels = w.reshape(cell.kernel, cell.kernel, channels, gates * hidden)
    out = lax.conv_general_dilated(images, kernels, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    out = out.reshape(*batch, height * width, gates, hidden)
    if b is not None:
        out = out + b
    return tuple(out[..., gate, :].reshape(*batch, height * width * hidden) for gate in range(gates))


def check_pixels(cell: ConvCell, x: Any, features: int) -> None:
    """Raise ValueError unless x is an array (..., features)."""
    if not isinstance(x, jax.Array | np.ndarray) or x.ndim == 0 or x.shape[-1] != features:
        got = x.shape if isinstance(x, jax.Array | np.ndarray) else show(x)
        raise ValueError(
            f"{type(cell).__name__} takes images flattened to {features} features, (..., height, width, channels) "
            f"reshaped to (..., {features}); got {got}. Use x.reshape(*x.shape[:-3], -1)."
        )


def zero_image(cell: ConvCell, params: GatedParams, batch: tuple[int, ...]) -> jax.Array:
    """Return zeros (*batch, height * width * F), in the dtype of the params."""
    height, width = cell.image
    return jnp.zeros((*batch, height * width * cell.hidden), None if params is None else params.b.dtype)
