"""Which driver to take where the user names none: one table, each row citing what was measured."""

from __future__ import annotations

import math
from typing import Any

from .cell import GatedCell
from .drivers import BPTT, Driver, Scan

SHORTEST = {"cpu": 8, "gpu": 32, "tpu": 32}
"""The steps from which on `BPTT` is taken. On a CPU it is as fast from 8 on; elsewhere it is for memory, unmeasured."""


def select(cell: Any, xs_shape: tuple[Any, ...], dtype: Any, platform: str) -> Driver:
    """Choose the driver that `unroll(driver=None)` takes for one leaf cell.

    What hoists is read off `benchmarks/results/cpu-2-cores/peers.json` (docs/benchmarks.md) at (T, B, I, H), whose
    shortest T is 16; the 8 steps are of a trial that left no file.

    Args:
        cell: the cell, no composite: `unroll` asks for each leaf of a composite by itself.
        xs_shape: (T, *batch, D).
        dtype: of the inputs.
        platform: "cpu", "gpu" or "tpu".

    Returns:
        `Scan()` for a plain cell, a symbolic T (`jax.export`) and a few steps. Else `BPTT`: on a CPU it keeps the
        gates, the faster way (an LSTM's gradient then takes 7.7 arrays of (T, B, H), where `Scan()` takes 14 and
        `BPTT()` 4.2), and projects inputs ahead where that pays; elsewhere it is `BPTT()`. `BPTT` ends forward mode:
        for `jax.jvp` and `jax.jacfwd` name `Scan()`.

    >>> select(LSTM(8), (100, 32, 4), jnp.float32, "cpu")
    BPTT(chunk=32, keep_gates=True, hoist=0)
    >>> select(LSTM(8), (100, 32, 4), jnp.float32, "gpu")
    BPTT(chunk=32, keep_gates=False, hoist=0)
    >>> select(LSTM(8), (4, 32, 4), jnp.float32, "cpu")
    Scan(unroll=1, hoist=0, remat=None)
    """
    length, *batch, features = xs_shape
    if not isinstance(cell, GatedCell) or not isinstance(length, int) or length < SHORTEST.get(platform, 32):
        return Scan()
    if platform != "cpu":
        return BPTT()
    rows = math.prod(batch)
    chunk = 128 if rows == 1 else 32
    return BPTT(chunk, keep_gates=True, hoist=chunk if _hoists(cell, rows, features) else 0)


def _hoists(cell: GatedCell, rows: Any, features: int) -> bool:
    """Whether projecting a chunk of inputs at once pays on a CPU: for one row, a large projection, or one feature.

    (128, 1, 64, 64), (150, 16, 256, 256) and, with more gates than one, (784, 100, 1, 128) gain; (128, 32, 64, 128)
    gains in one run and loses as much in the next.
    """
    return rows == 1 or features >= cell.hidden or (features == 1 and cell.gates > 1)
