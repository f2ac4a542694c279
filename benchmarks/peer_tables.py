"""The tables of a `peers` file, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from .result import SELECT, Result, Row, distinct, figure, geometric_mean, grid, median, shape, small, why_absent
from .workload import Workload

Kind = tuple[str, str]
"""A cell, and forward or forward+backward."""


def kind(row: Row) -> Kind:
    """Return the table that a row belongs to."""
    return row["workload"].cell, row["workload"].kind


def peers(result: Result) -> str:
    """Write the summary, a table for each cell and kind, and what `select` chose."""
    kinds = sorted({kind(row) for row in result.rows})
    parts = [summary(result, kinds)]
    parts += [one_kind([row for row in result.rows if kind(row) == which], which) for which in kinds]
    return "\n\n".join([*parts, chosen(result)] if choices(result) else parts)


def summary(result: Result, kinds: Sequence[Kind]) -> str:
    """Write a line for each implementation: the geometric mean of its ratios over the shapes, its largest error."""
    rows = result.timed
    dtypes = sorted({row["workload"].dtype for row in rows})
    head = ["", *(f"{cell}<br>{how}" for cell, how in kinds), *(f"largest error, {dtype}" for dtype in dtypes)]
    lines = []
    for name in distinct(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        cells = [mean_ratio([row for row in own if kind(row) == which], count(rows, which)) for which in kinds]
        errors = [largest_error([row for row in own if row["workload"].dtype == dtype]) for dtype in dtypes]
        lines.append([name + mark(own), *cells, *errors, compile_seconds(own), iqr(own)])
    return (
        f"Time over {SELECT}'s, geometric mean over the shapes: above 1 is slower than jaxrnn. In parentheses, over how"
        " many shapes where not over all. Errors are against float64, relative to the largest entry of each array;"
        " compile is the median of seconds to compile; spread is the interquartile range in percent of the median,"
        " its median over the workloads.\n\n" + grid([*head, "compile, s", "spread, %"], lines) + footnotes(rows)
    )


def count(rows: Sequence[Row], which: Kind) -> int:
    """Return how many workloads a table has."""
    return len({row["workload"] for row in rows if kind(row) == which})


def mean_ratio(rows: Sequence[Row], workloads: int) -> str:
    """Write the geometric mean of ratios to `select`."""
    ratios = [row["over_select"]["median"] for row in rows if row.get("over_select")]
    if not ratios:
        return ""
    return figure(geometric_mean(ratios)) + ("" if len(ratios) == workloads else f" ({len(ratios)} of {workloads})")


def largest_error(rows: Sequence[Row]) -> str:
    """Write the largest error."""
    return small(max((row["error"] for row in rows if row.get("error") is not None), default=None))


def compile_seconds(rows: Sequence[Row]) -> str:
    """Write the median of the seconds to compile."""
    found = [row["compile_seconds"] for row in rows if row.get("compile_seconds") is not None]
    return figure(statistics.median(found)) if found else ""


def iqr(rows: Sequence[Row]) -> str:
    """Write the median of interquartile range over median, in percent."""
    spreads = [row["seconds"] for row in rows]
    return figure(100 * statistics.median((s["high"] - s["low"]) / s["median"] for s in spreads))


def mark(rows: Sequence[Row]) -> str:
    """Mark an implementation that has another equation."""
    return r"\*" if any(row.get("equation") for row in rows) else ""


def footnotes(rows: Sequence[Row]) -> str:
    """Describe which equation is another, and what is absent, and why."""
    other = distinct(f"{row['name']}: {row['workload'].cell}, {row['equation']}" for row in rows if row.get("equation"))
    absent = distinct(f"{row['name']}: {why_absent(row)}" for row in rows if why_absent(row))
    notes = [rf"\* Another equation, and checked against it ({'; '.join(other)})."] if other else []
    notes += [f"Absent ({'; '.join(absent)})."] if absent else []
    return "".join(f"\n\n{note}" for note in notes)


def one_kind(rows: Sequence[Row], which: Kind) -> str:
    """Write a line for each shape, a column for each implementation: ms, and the ratio to `select`."""
    timed = [row for row in rows if why_absent(row) is None]
    names = distinct(row["name"] for row in timed)
    head = ["T, B, I, H", *(name + mark([row for row in timed if row["name"] == name]) for name in names)]
    lines = []
    for workload in distinct(row["workload"] for row in timed):
        found = {row["name"]: row for row in timed if row["workload"] == workload}
        fastest = min(median(row["seconds"]) for row in found.values())
        lines.append([shape(workload), *(cell(found.get(name), fastest) for name in names)])
    title = f"**{which[0]}, {which[1]}**: ms, in parentheses the ratio to {SELECT}; the fastest in bold."
    return f"{title}\n\n{grid(head, lines)}{footnotes(rows)}"


def cell(row: Row | None, fastest: float) -> str:
    """Write one time, and its ratio to `select`."""
    if row is None:
        return ""
    time = figure(median(row["seconds"]), 1e3)
    bold = f"**{time}**" if median(row["seconds"]) == fastest else time
    return (
        bold
        if row["name"] == SELECT or not row.get("over_select")
        else f"{bold} ({figure(median(row['over_select']))})"
    )


def choices(result: Result) -> list[Row]:
    """Return the rows that say what `select` chose."""
    return [row for row in result.timed if row["name"] == SELECT and row.get("driver")]


def chosen(result: Result) -> str:
    """Write what `select` chose, beside the fastest of jaxrnn's drivers, named."""
    lines = []
    for row in choices(result):
        rivals = [
            other
            for other in result.timed
            if other["workload"] == row["workload"] and other["name"].startswith("jaxrnn ") and other.get("over_select")
        ]
        first = min(rivals, key=lambda rival: median(rival["over_select"]), default=None)
        best = [first["name"], figure(median(first["over_select"]))] if first else ["", ""]
        workload: Workload = row["workload"]
        lines.append([f"{workload.cell} {workload.kind} ({shape(workload)})", f"`{row['driver']}`", *best])
    head = ["workload", "`select` chose", "fastest of jaxrnn's", "its time over select's"]
    return f"**What `select` chose**\n\n{grid(head, lines)}"
