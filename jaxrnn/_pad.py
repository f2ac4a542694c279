"""From lists of sequences to arrays, on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ._core.checks import host_array, is_number

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def pad(sequences: Sequence[ArrayLike], length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Pad sequences of different lengths to one array, on the host in NumPy, so a forked data loader may call it.

    Args:
        sequences: arrays (T_b, ...), equal in all but T_b; at least one. One without steps, such as [], fits any.
        length: T to pad to; None takes the longest. A few fixed lengths mean few compilations.

    Returns:
        xs (T, B, ...), zero where a sequence has ended, and lengths (B,) int32, as `unroll` takes them.

    Raises:
        ValueError: for no sequences, different features or dtypes, anything but numbers, or a sequence longer than
            `length`.

    >>> xs, lengths = pad([np.ones((2, 3)), np.ones((5, 3))])
    >>> xs.shape, lengths.tolist()
    ((5, 2, 3), [2, 5])
    """
    arrays = of_one_kind("pad", sequences)
    lengths = np.array([len(a) for a in arrays], np.int32)
    longest = int(lengths.max())
    if length is not None and length < longest:
        raise ValueError(
            f"pad to length={length}, but the longest sequence has {longest} steps. Truncate it, or pad to more."
        )
    return side_by_side(arrays, arrays[0], longest if length is None else length, len(arrays)), lengths


def of_one_kind(caller: str, sequences: Sequence[ArrayLike]) -> list[np.ndarray]:
    """Return sequences as arrays (T_b, ...) that agree in features and dtype, those without steps as the others.

    Raises:
        ValueError: for no sequences, for some that do not agree, and for anything but numbers.
    """
    arrays = [host_array(f"the sequences of {caller}", sequence) for sequence in sequences]
    kinds = {(a.shape[1:], a.dtype) for a in arrays if a.ndim == 0 or len(a)} or {
        (a.shape[1:], a.dtype) for a in arrays[:1]
    }
    fits = len(kinds) == 1 and all(a.ndim for a in arrays)
    if not fits or not is_number(next(iter(kinds))[1]):
        got = sorted({f"{a.dtype} {('T', *a.shape[1:]) if a.ndim else ()}" for a in arrays})
        raise ValueError(
            f"{caller} needs arrays of numbers (T, ...) of one kind, which agree in features and dtype; got "
            f"{', '.join(got) or 'none'}"
        )
    ((features, dtype),) = kinds
    if any(a.shape not in ((0,), (0, *features)) for a in arrays if not len(a)):
        raise ValueError(
            f"{caller}: a sequence without steps is [] or (0, {features}); got {[a.shape for a in arrays]}"
        )
    return [a if len(a) else np.zeros((0, *features), dtype) for a in arrays]


def side_by_side(arrays: Sequence[np.ndarray], like: np.ndarray, length: int, batch: int) -> np.ndarray:
    """Return arrays (T_b, ...) of the kind of `like` as one (length, batch, ...), padded with zeros."""
    padded = np.zeros((length, batch, *like.shape[1:]), like.dtype)
    for b, array in enumerate(arrays):
        padded[: len(array), b] = array
    return padded
