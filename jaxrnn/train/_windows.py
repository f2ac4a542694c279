"""Windows of time, for truncated back-propagation: the state passes from one to the next, the gradient does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from .._core.types import Inputs

if TYPE_CHECKING:
    from jaxtyping import Bool, Int


class Window(NamedTuple):
    """Consecutive steps of a longer sequence. The last window is padded, so that all have one shape.

    Attributes:
        xs: a pytree of arrays (W, B, ...), zero past the lengths.
        lengths: (B,) int32, the number of valid steps.
        resets: (W, B) bool, true at the first step of the first window: the state is reset there.
    """

    xs: Inputs
    lengths: Int[np.ndarray, " B"]
    resets: Bool[np.ndarray, "W B"]


def windows(xs: Inputs, window: int, lengths: Int[ArrayLike, " B"] | None = None) -> Iterator[Window]:
    """Cut sequences into windows of `window` steps.

    Args:
        xs: a pytree of arrays (T, B, ...): inputs, or (inputs, labels).
        window: W, at most T: a larger one is T.
        lengths: integers (B,), the lengths of the sequences; None if all have T steps.

    Returns:
        An iterator over ceil(T / W) windows of W steps.

    Raises:
        TypeError: if window is no integer.
        ValueError: if window < 1, or shapes do not fit.

    >>> [(w.xs.shape, w.lengths.tolist(), bool(w.resets.any())) for w in windows(np.ones((5, 2)), 3)]
    [((3, 2), [3, 3], True), ((3, 2), [2, 2], False)]

    Reference: Williams and Peng, "An efficient gradient-based algorithm for on-line training of recurrent network
    trajectories", 1990.
    """
    xs = jax.tree.map(np.asarray, xs)
    if not isinstance(window, int | np.integer):
        raise TypeError(f"window must be an integer; got {window!r}")
    axes = {leaf.shape[:2] for leaf in jax.tree.leaves(xs)}
    if window < 1 or len(axes) != 1 or any(len(axis) != 2 for axis in axes):
        raise ValueError(
            f"windows needs window >= 1 and arrays (T, B, ...) of one T and B; got {window}, {sorted(axes)}"
        )
    total, batch = axes.pop()
    ends = np.full(batch, total) if lengths is None else np.asarray(lengths)
    if ends.shape != (batch,) or ends.dtype.kind not in "iu" or (batch and not 0 <= ends.min() <= ends.max() <= total):
        raise ValueError(f"lengths must be {batch} integers between 0 and T={total}; got {ends}")
    size = min(window, total)
    return (_window(xs, start, size, ends) for start in range(0, total, max(size, 1)))


def _window(xs: Inputs, start: int, size: int, ends: np.ndarray) -> Window:
    """Return the window that begins at step `start`."""
    lengths = np.clip(ends - start, 0, size).astype(np.int32)
    valid = np.arange(size)[:, None] < lengths

    def cut(leaf: np.ndarray) -> np.ndarray:
        part = np.zeros((size, *leaf.shape[1:]), leaf.dtype)
        piece = leaf[start : start + size]
        part[: len(piece)] = piece
        part[~valid] = 0
        return part

    resets = np.zeros(valid.shape, bool)
    resets[:1] = start == 0
    return Window(jax.tree.map(cut, xs), lengths, resets)


def streams(tokens: ArrayLike, batch: int) -> np.ndarray:
    """Split one long sequence into `batch` sequences: (N, ...) to (N // batch, batch, ...). The remainder is dropped.

    Raises:
        ValueError: if tokens have no axis, batch is no integer >= 1, or N < batch.

    >>> streams(np.arange(7), 2).T.tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    tokens = np.asarray(tokens)
    if tokens.ndim == 0 or not isinstance(batch, int | np.integer) or batch < 1:
        raise ValueError(f"streams needs tokens (N, ...) and an integer batch >= 1; got {tokens.shape}, {batch!r}")
    steps = len(tokens) // batch
    if steps == 0:
        raise ValueError(f"{len(tokens)} tokens are too few for one step of a batch of {batch}")
    return np.moveaxis(tokens[: steps * batch].reshape(batch, steps, *tokens.shape[1:]), 0, 1).copy()
