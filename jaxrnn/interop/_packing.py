"""The order and the signs of the gates that another library packs into one matrix."""

from __future__ import annotations

import dataclasses

import numpy as np

from ._arrays import AnyArray


@dataclasses.dataclass(frozen=True)
class Packing:
    """The layout of a library's matrices (D, G * H), against (D, G, H) in jaxrnn.

    Args:
        order: for each gate of the library, its index in jaxrnn: (1, 0, 2) for z, r, n against r, z, n.
        negated: the gates of jaxrnn that are 1 - σ(·) in the library, so that all their weights change sign.

    Both methods take arrays of NumPy and of JAX, traced ones included, and are exact inverses of each other.

    >>> Packing((1, 0, 2)).pack(np.arange(3)[:, None])
    array([1, 0, 2])
    """

    order: tuple[int, ...]
    negated: tuple[int, ...] = ()

    def pack(self, w: AnyArray) -> AnyArray:
        """Return weights (D, G, H) as (D, G * H), or a bias (G, H) as (G * H,)."""
        ordered = self._with_signs(w)[..., np.array(self.order), :]
        return ordered.reshape(*w.shape[:-2], -1)

    def unpack(self, w: AnyArray) -> AnyArray:
        """Return weights (D, G * H) as (D, G, H), or a bias (G * H,) as (G, H)."""
        gates = w.reshape(*w.shape[:-1], len(self.order), -1)
        return self._with_signs(gates[..., np.argsort(self.order), :])

    def _with_signs(self, w: AnyArray) -> AnyArray:
        if not self.negated:
            return w
        signs = np.ones((len(self.order), 1), np.int8)
        signs[list(self.negated)] = -1
        signed: AnyArray = w * signs.astype(w.dtype)
        return signed
