"""`jax.vmap` over rows that share their weights, next to a batch axis: the time and the memory of one gradient."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import pandas as pd

import jaxrnn
from jaxrnn import (
    BPTT,
    LSTM,
    Associative,
    DiagonalJacobian,
    Driver,
    Fused,
    MinGRU,
    Native,
    Newton,
    Scan,
    available_drivers,
)

from . import record, timing
from .long import farthest
from .measure import milliseconds, show
from .peers.peer import compile_ahead
from .result import Result, Row, distinct, figure
from .tables import grid

BATCH, VMAP = "batch_axis", "vmap"
CELLS = {"lstm": LSTM, "min_gru": MinGRU}
DRIVERS: dict[str, tuple[str, Driver | None]] = {
    "select": ("lstm", None),
    "Native()": ("lstm", Native()),
    "BPTT()": ("lstm", BPTT()),
    "BPTT(keep_gates=True)": ("lstm", BPTT(keep_gates=True)),
    "Scan()": ("lstm", Scan()),
    "Newton(DiagonalJacobian())": ("lstm", Newton(DiagonalJacobian())),
    "Fused()": ("lstm", Fused()),
    "Associative()": ("min_gru", Associative()),
}
"""Each with the cell that it runs."""
METHOD = (
    "in turn in one process (A B A B), median and quartiles, the ratio round by round; gradients of the mean of "
    "sum(y^2) over rows, for params alone. vmap is over the leading axis of xs (B, T, I), the batch axis is that of xs "
    "(T, B, I). Memory is the compiler's plan; an array is one of (T, B, H)."
)


@dataclasses.dataclass(frozen=True)
class Vmap:
    """Measure a gradient for shared weights by `vmap` over rows and by a batch axis.

    Args:
        names: the drivers, of `DRIVERS`.
        time: T.
        rows: B.
        inputs: I.
        hidden: H.
        resets: the shares of steps with a reset.
        budget: seconds of timing a driver, without compilation.
        json: the result file; by default in the folder of this hardware.
    """

    names: tuple[str, ...] = tuple(DRIVERS)
    time: int = 64
    rows: int = 64
    inputs: int = 64
    hidden: int = 256
    resets: tuple[float, ...] = (0.0, 0.05)
    budget: float = 4.0
    json: pathlib.Path | None = None

    def __call__(self) -> None:
        """Measure, show, and write the file."""
        if unknown := set(self.names) - set(DRIVERS):
            raise ValueError(f"names are of {', '.join(DRIVERS)}; got {', '.join(sorted(unknown))}")
        rows: list[Row] = []
        for share in self.resets:
            found = [self.measure(name, share) for name in self.names]
            rows += found
            title = f"T={self.time} B={self.rows} I={self.inputs} H={self.hidden}, resets at {share:.0%} of the steps"
            show(title, [_line(row) for row in found])
        print(f"wrote {record.write('vmap', rows, self.json, method=METHOD)}")

    def measure(self, name: str, share: float) -> Row:
        """Return what both ways take, and the ratios of vmap to the batch axis; or why the driver is absent."""
        cell_name, driver = DRIVERS[name]
        row: Row = {"name": name, "cell": cell_name, "time": self.time, "rows": self.rows, "inputs": self.inputs}
        row |= {"hidden": self.hidden, "resets": share}
        if driver is not None and (reason := available_drivers()[type(driver).__name__]):
            return row | {"absent": reason}
        cell = CELLS[cell_name](self.hidden)
        params, xs, resets = drawn(cell, (self.time, self.rows, self.inputs), share)
        rows_first = lambda a: None if a is None else jnp.moveaxis(a, 1, 0)
        given = {BATCH: (params, xs, resets), VMAP: (params, rows_first(xs), rows_first(resets))}
        calls, answers = {}, {}
        for way, loss in {BATCH: by_batch, VMAP: by_vmap}.items():
            program, compiled_in, temporary = compile_ahead(
                jax.grad(functools.partial(loss, cell, driver)), *given[way]
            )
            row[way] = {"compile_seconds": compiled_in, "temporary_bytes": temporary}
            calls[way] = lambda program=program, way=way: jax.block_until_ready(program(*given[way]))
            answers[way] = calls[way]()
        samples = timing.interleave(calls, self.budget)
        array = 4 * self.time * self.rows * self.hidden
        for way in calls:
            planned = row[way]["temporary_bytes"]
            row[way] |= {"arrays": planned / array, "seconds": timing.spread(samples[way])}
        row["time_ratio"] = timing.ratio(samples[VMAP], samples[BATCH])
        row["memory_ratio"] = row[VMAP]["temporary_bytes"] / row[BATCH]["temporary_bytes"]
        return row | {"error": farthest(answers[VMAP], answers[BATCH])}


def drawn(cell: Any, shape: tuple[int, int, int], share: float) -> tuple[Any, jax.Array, jax.Array | None]:
    """Draw params, inputs (T, B, I) and resets (T, B) at a share of the steps; None for none."""
    k_params, k_xs, k_resets = jax.random.split(jax.random.key(0), 3)
    resets = jax.random.bernoulli(k_resets, share, shape[:2]) if share else None
    return cell.init(k_params, shape[2]), jax.random.normal(k_xs, shape), resets


def by_batch(cell: Any, driver: Driver | None, params: Any, xs: jax.Array, resets: jax.Array | None) -> jax.Array:
    """Return the mean over rows of sum(y^2); xs (T, B, I), resets (T, B)."""
    ys = jaxrnn.unroll(cell, params, xs, resets=resets, driver=driver)[1]
    return jnp.square(ys).sum() / xs.shape[1]


def by_vmap(cell: Any, driver: Driver | None, params: Any, xs: jax.Array, resets: jax.Array | None) -> jax.Array:
    """Return the same from xs (B, T, I) and resets (B, T), row by row."""
    row = lambda xs, resets: jnp.square(jaxrnn.unroll(cell, params, xs, resets=resets, driver=driver)[1]).sum()
    return jax.vmap(row)(xs, resets).mean()


def page(result: Result) -> str:
    """Return the Markdown of a result file: a table for each share of steps with a reset."""
    parts = [str(result.head["method"])]
    for share in distinct(row["resets"] for row in result.rows):
        rows = [row for row in result.rows if row["resets"] == share]
        lines = {}
        for row in rows:
            if "absent" not in row:
                times = [figure(1e3 * row[way]["seconds"]["median"]) for way in (BATCH, VMAP)]
                arrays = [f"{row[way]['arrays']:.1f}" for way in (BATCH, VMAP)]
                ratios = [f"{row['time_ratio']['median']:.2f}", f"{row['memory_ratio']:.2f}"]
                lines[f"{row['name']}, {row['cell']}"] = [*times, *arrays, *ratios]
        heads = ["batch axis, ms", "vmap, ms", "batch axis, arrays", "vmap, arrays", "time ratio", "memory ratio"]
        first = rows[0]
        sizes = f"T={first['time']} B={first['rows']} I={first['inputs']} H={first['hidden']}"
        table = pd.DataFrame.from_dict(lines, orient="index", columns=heads)
        parts.append(f"{sizes}, resets at {share:.0%} of the steps\n\n{grid(table)}")
    return "\n\n".join(parts)


def _line(row: Row) -> dict[str, str]:
    """Return the line of a driver."""
    line = {"": f"{row['name']}, {row['cell']}" + (f": {row['absent']}" if "absent" in row else "")}
    if "absent" in row:
        return line
    for way in (BATCH, VMAP):
        line |= {f"{way}, ms": milliseconds(row[way]), f"{way}, MB": f"{row[way]['temporary_bytes'] / 1e6:.1f}"}
    return line | {"time": f"{row['time_ratio']['median']:.2f}", "memory": f"{row['memory_ratio']:.2f}"}
