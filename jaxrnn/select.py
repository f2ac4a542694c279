"""Which driver to take where the user names none: one table, each row citing what was measured."""

from __future__ import annotations

from typing import Any

from .cell import GatedCell
from .drivers import BPTT, Driver, Scan

SHORT = 32
"""Below it `BPTT` saves little memory and makes Elman's gradient slower, LSTM and GRU about tie; above, memory counts.

A judgement, no clean crossing: benchmarks/results/cpu-2-cores/select.json.
"""


def select(cell: Any, xs_shape: tuple[Any, ...], dtype: Any, platform: str) -> Driver:
    """Choose the driver that `unroll(driver=None)` takes for one leaf cell.

    Args:
        cell: the cell, no composite: `unroll` asks for each leaf of a composite by itself.
        xs_shape: (T, *batch, D).
        dtype: of the inputs.
        platform: "cpu", "gpu" or "tpu".

    Returns:
        `BPTT()` for a gated cell over 32 steps or more: a third of the memory of `Scan()`. `Scan()` over fewer,
        where memory is small and Elman is slower under `BPTT`; for a plain cell; and for a symbolic T (`jax.export`).
        `BPTT` ends forward mode: for `jax.jvp` and `jax.jacfwd` name `Scan()`.

    >>> select(LSTM(8), (100, 32, 4), jnp.float32, "cpu")
    BPTT(chunk=32, keep_gates=False, hoist=0)
    >>> select(LSTM(8), (16, 32, 4), jnp.float32, "cpu")
    Scan(unroll=1, hoist=0, remat=None)
    """
    if not isinstance(cell, GatedCell) or not isinstance(xs_shape[0], int) or xs_shape[0] < SHORT:
        return Scan()
    return BPTT()
