"""Inputs with the time since the step before: an array x, or a pair (x, dt)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core.fields import show
from .._core.types import Inputs


def split_inputs(cell: Any, x: Inputs, dtype: Any) -> tuple[jax.Array, jax.Array | None]:
    """Return x (..., D), and dt (..., 1) in `dtype`, or None where the inputs are x alone.

    Raises:
        ValueError: for other inputs, and for a negative dt in an array of NumPy. Values on a device are not checked.
    """
    if isinstance(x, jax.Array | np.ndarray):
        return jnp.asarray(x), None
    if not isinstance(x, tuple) or len(x) != 2 or any(not isinstance(a, jax.Array | np.ndarray) for a in x):
        raise ValueError(
            f"{type(cell).__name__} takes an array x (..., D), or a pair (x, dt) of arrays (..., D) and (..., 1); got "
            f"{show(x)}"
        )
    x, dt = x
    if dt.shape != (*x.shape[:-1], 1):
        raise ValueError(
            f"{type(cell).__name__} takes one dt for every row and step, {(*x.shape[:-1], 1)} for x {x.shape}; got "
            f"{dt.shape}. Add the last axis: dt[..., None]."
        )
    if isinstance(dt, np.ndarray) and (dt < 0).any():
        raise ValueError(
            f"dt is the time since the step before, at least 0; got {dt.min()}. Sort the steps by time: dt = "
            "np.diff(times)."
        )
    return jnp.asarray(x), jnp.asarray(dt).astype(dtype)
