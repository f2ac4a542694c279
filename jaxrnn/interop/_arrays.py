"""Arrays of other libraries, as they are: nothing is narrowed on the way in."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def exact(array: Any) -> jax.Array:
    """Copy an array into JAX in its own dtype; what is JAX's already is left as it is.

    Raises:
        ValueError: for float64 while JAX is in its 32 bit mode, in which it would be rounded to float32.

    >>> exact(np.ones(2, np.float32)).dtype
    dtype('float32')
    """
    if isinstance(array, jax.Array):
        return array
    array = np.asarray(array)
    kept = jax.dtypes.canonicalize_dtype(array.dtype)
    if kept != array.dtype:
        raise ValueError(
            f"got {array.dtype} weights, which JAX would round to {kept}. Convert them under `with "
            "jax.enable_x64(True):`, or cast them to float32 yourself before."
        )
    return jnp.asarray(np.array(array))  # jnp.array may read its argument after it has returned (jax 0.10.2)


def split_gates(w: Any, gates: int, order: tuple[int, ...] | None = None) -> Any:
    """Turn weights (G * H, D), the rows of a gate together, into ours (D, G, H).

    Args:
        w: the weights, of NumPy or of JAX.
        gates: G.
        order: where each of our gates stands among theirs; None where both have the same order.

    >>> split_gates(np.ones((8, 3)), gates=4).shape
    (3, 4, 2)
    """
    blocks = w.reshape(gates, w.shape[0] // gates, w.shape[1])
    return (blocks if order is None else blocks[np.array(order)]).transpose(2, 0, 1)


def join_gates(w: Any) -> Any:
    """Turn our weights (D, G, H) into (G * H, D), the inverse of `split_gates`.

    >>> join_gates(np.ones((3, 4, 2))).shape
    (8, 3)
    """
    return w.transpose(1, 2, 0).reshape(-1, w.shape[0])
