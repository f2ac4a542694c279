"""How far other processes on the same cores slow an implementation down: by their share, or by more."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pandas as pd

from . import record, timing
from .measure import milliseconds, prepare, show
from .peers import choose
from .result import Result, Row, distinct, figure, median
from .tables import grid
from .workload import Workload

BUSY = "while True: pass"
"""The program of another process: it asks for a whole core, always."""
SHAPES = ((128, 32, 64, 128), (256, 32, 128, 256))
METHOD = (
    "In turn in one process, first alone, then with other processes on the same cores, each of which asks for a whole "
    "core; slowdown is the median time with them over the median time without. Where n threads on n cores share them "
    "fairly with p processes, it is (n + p) / n; threads that wait for each other by spinning also wait for those that "
    "are not running."
)


@dataclasses.dataclass(frozen=True)
class Oversubscription:
    """Time implementations alone, and with busy processes on the same cores.

    Args:
        cells: of lstm, gru and elman.
        shapes: T, B, I, H of the workloads, each forward and with gradients.
        others: the numbers of busy processes; () is one, and one for each core.
        names: the implementations.
        budget: seconds of timing a workload once.
        json: the result file; by default in the folder of this hardware.
    """

    cells: tuple[str, ...] = ("lstm",)
    shapes: tuple[tuple[int, int, int, int], ...] = SHAPES
    others: tuple[int, ...] = ()
    names: tuple[str, ...] = ("jaxrnn select", "torch")
    budget: float = 3.0
    json: pathlib.Path | None = None

    def __call__(self) -> None:
        """Measure, show, and write the file after each workload."""
        rows: list[Row] = []
        others = self.others or distinct((1, len(os.sched_getaffinity(0))))
        for workload in (Workload(c, *s, g) for c in self.cells for s in self.shapes for g in (False, True)):
            found = measure(workload, others, self.names, self.budget)
            rows += found
            show(str(workload), [_line(row) for row in found])
            path = record.write("oversubscription", rows, self.json, method=METHOD)
        print(f"wrote {path}")


def measure(
    workload: Workload, others: tuple[int, ...] | list[int], names: tuple[str, ...], budget: float
) -> list[Row]:
    """Return a row for each implementation and number of busy processes, the first of which is none."""
    prepared, programs = prepare(workload, choose(names))
    calls = {name: program.call for name, program in programs.items()}
    rows: list[Row] = [row for row in prepared if "absent" in row]
    alone: dict[str, float] = {}
    for count in (0, *others):
        with busy(count):
            samples = timing.interleave(calls, budget)
        for name, taken in samples.items():
            seconds = timing.spread(taken)
            alone.setdefault(name, seconds["median"])
            row = {"workload": dataclasses.asdict(workload), "name": name, "others": count, "seconds": seconds}
            rows.append(row | {"slowdown": seconds["median"] / alone[name]})
    return rows


@contextlib.contextmanager
def busy(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Keep so many processes busy on the cores of this one; they end with the block."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield others
    finally:
        for other in others:
            other.kill()
            other.wait()


def _line(row: Row) -> dict[str, str]:
    if "absent" in row:
        return {"": f"{row['name']}: {row['absent']}"}
    texts = {"": row["name"], "other processes": str(row["others"]), "ms": milliseconds(row)}
    return texts | {"slowdown": f"{row['slowdown']:.2f}"}


def page(result: Result) -> str:
    """Return the Markdown of a result file: a line for each workload and number of processes."""
    lines: dict[str, dict[str, str]] = {}
    for row in result.timed:
        count = row["others"]
        label = f"{row['workload']}, {count or 'no'} other process{'' if count == 1 else 'es'}"
        text = figure(median(row["seconds"]), 1e3) + (f" ({figure(row['slowdown'])})" if count else "")
        lines.setdefault(label, {})[row["name"]] = text
    table = pd.DataFrame.from_dict(lines, orient="index")
    return f"Milliseconds, in parentheses the slowdown. {result.head['method']}\n\n{grid(table)}"
