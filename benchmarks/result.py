"""A result file, read back; and how its numbers are written."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .workload import Workload

Row = dict[str, Any]
"""A row of a result file; its workload, where it has one, is a `Workload`."""
SELECT = "jaxrnn select"
FLOAT32 = "jaxrnn float32"
"""What `select` takes in float32, next to the same in 16 bits."""
WHY_ABSENT = ("absent", "stopped")


class Result(NamedTuple):
    """A file that `record.write` wrote.

    Attributes:
        hardware: the name of its folder.
        name: of the file, without its ending.
        head: everything but the rows.
        rows: what was measured.
    """

    hardware: str
    name: str
    head: dict[str, Any]
    rows: list[Row]

    @property
    def benchmark(self) -> str:
        """The command that measured it: peers, scaling, memory, train, limit."""
        return self.head["benchmark"]

    @property
    def timed(self) -> list[Row]:
        """The rows that hold figures."""
        return [row for row in self.rows if why_absent(row) is None]


def read(path: pathlib.Path) -> Result:
    """Read a file."""
    head = json.loads(path.read_text())
    if missing := {"benchmark", "command", "date", "commit", "hardware", "versions", "rows"} - head.keys():
        raise ValueError(f"{path} is no result file of `python -m benchmarks`: it has no {', '.join(sorted(missing))}")
    rows = head.pop("rows")
    for row in rows:
        if "workload" in row:
            row["workload"] = Workload(**row["workload"])
    return Result(path.parent.name, path.stem, head, rows)


def read_all(results: pathlib.Path) -> dict[str, list[Result]]:
    """Read `<results>/<hardware>/*.json`: by hardware, sorted."""
    found: dict[str, list[Result]] = {}
    for path in sorted(results.glob("*/*.json")):
        found.setdefault(path.parent.name, []).append(read(path))
    return found


def why_absent(row: Row) -> str | None:
    """Return why a row holds no figures; None where it does."""
    return next((row[key] for key in WHY_ABSENT if row.get(key)), None)


def distinct(items: Iterable[Any]) -> list[Any]:
    """Return every item once, in the order they came."""
    return list(dict.fromkeys(items))


def median(value: Any) -> Any:
    """Return the median of a spread; a number is its own, and so is None."""
    return value["median"] if isinstance(value, dict) else value


def geometric_mean(values: Sequence[float]) -> float:
    """Return exp of the mean logarithm."""
    return math.exp(sum(map(math.log, values)) / len(values))


def figure(value: float | None, scale: float = 1.0) -> str:
    """Write a number to three figures; nothing for None."""
    if value is None or math.isnan(value):
        return ""
    value *= scale
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def small(value: float | None) -> str:
    """Write an error: one figure and its power of ten."""
    return "" if value is None or math.isnan(value) else f"{value:.0e}".replace("e-0", "e-")


def shape(workload: Workload) -> str:
    """Write (T, B, I, H), and what is unusual."""
    sizes = f"{workload.time}, {workload.batch}, {workload.inputs}, {workload.hidden}"
    heads = f", {workload.heads} heads" if workload.heads > 1 else ""
    return sizes + heads + ("" if workload.dtype == "float32" else f", {workload.dtype}")


def kind(row: Row) -> tuple[str, str]:
    """Return the cell of a row, and whether it is forward, or forward+backward."""
    return row["workload"].cell, row["workload"].kind
