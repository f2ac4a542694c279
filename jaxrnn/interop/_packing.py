"""How another library packs the gates of a cell into one matrix: their order, and their signs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Packing:
    """The gates of a library side by side in the columns of its matrices, (D, G * H), against ours, (D, G, H).

    Args:
        order: for each gate of the library, its index among ours: z, r, n against our r, z, n is (1, 0, 2).
        negated: our gates that are 1 - σ(·) in the library, so that all their weights change sign.

    Both methods take NumPy arrays and JAX arrays, traced ones included, and are exact inverses of each other.

    >>> Packing((1, 0, 2)).pack(np.arange(3)[:, None])
    array([1, 0, 2])
    """

    order: tuple[int, ...]
    negated: tuple[int, ...] = ()

    def pack(self, w: Any) -> Any:
        """Return our weights (D, G, H), or a bias (G, H), as (D, G * H), or (G * H,)."""
        ordered = self._signed(w)[..., np.array(self.order), :]
        return ordered.reshape(*w.shape[:-2], -1)

    def unpack(self, w: Any) -> Any:
        """Return weights (D, G * H), or a bias (G * H,), as ours (D, G, H), or (G, H)."""
        gates = w.reshape(*w.shape[:-1], len(self.order), -1)
        return self._signed(gates[..., np.argsort(self.order), :])

    def _signed(self, w: Any) -> Any:
        if not self.negated:
            return w
        signs = np.ones((len(self.order), 1), np.int8)
        signs[list(self.negated)] = -1
        return w * signs.astype(w.dtype)
