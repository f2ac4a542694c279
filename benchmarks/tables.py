"""The tables of `scaling`, `memory`, `train` and `limit` files, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .result import Result, Row, distinct, figure, grid, median, shape, small, why_absent
from .workload import Workload

AXES = {"T": "time", "B": "batch", "H": "hidden"}
"""The field of a workload that grows along an axis."""


def notes(rows: Sequence[Row]) -> str:
    """Describe what is absent, and why."""
    absent = distinct(f"{row['name']}: {why_absent(row)}" for row in rows if why_absent(row))
    return f"\n\nAbsent ({'; '.join(absent)})." if absent else ""


def scaling(result: Result) -> str:
    """Write a table for each axis, cell and kind; seconds to compile over T; the loops; how flat a step is."""
    parts = []
    for axis, field in AXES.items():
        rows = [row for row in result.rows if row["axis"] == axis]
        for cell, kind in distinct((row["workload"].cell, row["workload"].kind) for row in rows):
            own = [row for row in rows if (row["workload"].cell, row["workload"].kind) == (cell, kind)]
            parts.append(f"**Over {axis}: {cell}, {kind}** ({beside(own, axis)}), ms a call\n\n" + along(own, field))
            if axis == "T":
                title = f"**Over T: {cell}, {kind}**, seconds to compile\n\n"
                parts.append(title + along(own, field, "compile_seconds", 1.0))
    return "\n\n".join([*parts, *loops(result), *flatness(result)])


def beside(rows: Sequence[Row], axis: str) -> str:
    """Describe what stays as it is along an axis."""
    fields = {"T": "time", "B": "batch", "I": "inputs", "H": "hidden"}
    kept = {name: {getattr(row["workload"], field) for row in rows} for name, field in fields.items() if name != axis}
    return ", ".join(
        f"{name}={values.pop()}" if len(values) == 1 else f"{name}={axis}" for name, values in kept.items()
    )


def along(rows: Sequence[Row], field: str, what: str = "seconds", scale: float = 1e3) -> str:
    """Write a line for each size, a column for each implementation which has this figure."""
    names = distinct(row["name"] for row in rows if why_absent(row) is None and row.get(what) is not None)
    found = {(getattr(row["workload"], field), row["name"]): row for row in rows if why_absent(row) is None}
    sizes = distinct(getattr(row["workload"], field) for row in rows)
    write = lambda row: "" if row is None else figure(median(row.get(what)), scale)
    lines = [[str(size), *(write(found.get((size, name))) for name in names)] for size in sizes]
    return grid(["", *names], lines) + (notes(rows) if what == "seconds" else "")


def loops(result: Result) -> list[str]:
    """Write the Python loops beside `select`."""
    parts = []
    rows = [row for row in result.timed if row["axis"] == "loop"]
    for workload in distinct(row["workload"] for row in rows):
        lines = [
            [row["name"], figure(median(row["seconds"]), 1e3), figure(median(row.get("ratio")))]
            for row in rows
            if row["workload"] == workload
        ]
        parts.append(f"**A Python loop: {workload}**\n\n{grid(['', 'ms', 'times select'], lines)}")
    return parts


def flatness(result: Result) -> list[str]:
    """Write how far the time of a step varies along T."""
    lines = [
        [
            f"{row['name']}, {row['cell']} {'forward+backward' if row['gradient'] else 'forward'}",
            "{} to {}".format(*row["times"]),
            f"{figure(row['smallest'], 1e6)} to {figure(row['largest'], 1e6)}",
            figure(row["ratio"]),
            "{} to {}".format(*map(figure, row["compile_seconds"])),
        ]
        for row in result.head.get("flatness", [])
    ]
    head = ["", "T", "µs a step", "largest over smallest", "compile, s"]
    return [f"**How flat a step is along T**\n\n{grid(head, lines)}"] if lines else []


def memory(result: Result) -> str:
    """Write a table for each workload: the compiler's plan, the process's growth, time."""
    parts = []
    head = ["", "plan, MB", "arrays of (T, B, H)", "process, MB", "arrays of (T, B, H)", "ms"]
    for workload in distinct(row["workload"] for row in result.rows):
        rows = [row for row in result.rows if row["workload"] == workload]
        lines = [
            [
                row["name"],
                figure(row.get("temporary_bytes"), 1e-6),
                figure(row.get("arrays")),
                figure(row.get("process_bytes"), 1e-6),
                figure(row.get("process_arrays")),
                figure(median(row.get("seconds")), 1e3),
            ]
            for row in rows
            if why_absent(row) is None
        ]
        parts.append(f"**{workload}**\n\n{grid(head, lines)}{notes(rows)}")
    return "\n\n".join(parts)


def train(result: Result) -> str:
    """Write training throughput, and the latency of one answer."""
    keys = ("data", "vocabulary", "labels", "samples", "batch_size", "utterances")
    parts = [", ".join(f"{key.replace('_', ' ')} {result.head[key]}" for key in keys if key in result.head)]
    for part in distinct(row["part"] for row in result.timed if "part" in row):
        rows = [row for row in result.timed if row.get("part") == part]
        columns = [column for column in COLUMNS if any(row.get(column[0]) is not None for row in rows)]
        lines = [[row["name"], *(write(row.get(field)) for field, _, write in columns)] for row in rows]
        parts.append(f"**{part}**\n\n{grid(['', *(head for _, head, _ in columns)], lines)}")
    return "\n\n".join(filter(None, parts)) + notes(result.rows)


COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("samples_per_second", "samples/s", lambda value: figure(median(value))),
    ("step_seconds", "ms a step", lambda value: figure(median(value), 1e3)),
    ("ratio", "time over jaxrnn's", lambda value: figure(median(value))),
    ("median_ms", "median, ms", figure),
    ("p99_ms", "99th percentile, ms", figure),
    ("compile_seconds", "compile, s", figure),
    ("error", "error", small),
)
"""Of a `train` file: a field, its heading, and how it is written."""


def limit(result: Result) -> str:
    """Write what the machine can do, and each time beside its bound."""
    able = result.head["machine"]
    lines = [[f"matmul, {dtype}, {name}", f"{figure(rate, 1e-9)} GFLOP/s"] for dtype, name, rate in rates(able)]
    lines += [[f"bandwidth, {place['name']}", f"{figure(place['bandwidth'], 1e-9)} GB/s"] for place in measured(able)]
    lines += [["a step of an empty `lax.scan`", f"{figure(able['scan_step'], 1e6)} µs"]]
    names = distinct(row["name"] for row in result.timed)
    table = []
    for workload in distinct(row["workload"] for row in result.timed):
        found = {row["name"]: row for row in result.timed if row["workload"] == workload}
        table.append(bounded(workload, found, names))
    head = ["", "bound, ms", "a step is limited by", *names]
    title = (
        "Milliseconds; in parentheses the bound as a percentage of the time (`benchmarks/limit.py` has the formula)."
    )
    return f"{grid(['', ''], lines)}\n\n{title}\n\n{grid(head, table)}{notes(result.rows)}"


def rates(able: Row) -> list[tuple[str, str, float]]:
    """Return (dtype, library, FLOP/s)."""
    return [(dtype, name, rate) for dtype, found in able["gemm"].items() for name, rate in found.items()]


def measured(able: Row) -> list[Row]:
    """Return the levels whose bandwidth was measured."""
    return [level for level in able["levels"] if level["bandwidth"] is not None]


def bounded(workload: Workload, found: dict[str, Row], names: Sequence[str]) -> list[str]:
    """Write a line of the `limit` table."""
    first = next(iter(found.values()))
    write = lambda row: "" if row is None else f"{figure(median(row['seconds']), 1e3)} ({figure(row['percent'])} %)"
    about = f"{workload.cell} {workload.kind} ({shape(workload)})"
    return [about, figure(first["bound_seconds"], 1e3), first["step_limited_by"], *(write(found.get(n)) for n in names)]


def long(result: Result) -> str:
    """Write the times of long sequences beside `Scan()`'s, how Newton's method went, and how errors grow with T."""
    affine, newton, error = ([row for row in result.rows if row["part"] == p] for p in ("affine", "newton", "error"))
    parts = ["Milliseconds; in parentheses the time over `Scan()`'s, and temporary megabytes."]
    for rows in (affine, newton):
        names = distinct(row["name"] for row in rows)
        lines = []
        for about in distinct(_about(row) for row in rows):
            found = {row["name"]: row for row in rows if _about(row) == about}
            lines.append([about, *(_long_cell(found.get(name)) for name in names)])
        parts.append(grid(["T, B, H", *names], lines))
    times = distinct(row["time"] for row in error)
    lines = [
        [f"{cell}, {name}", *(f"{row['error']:.0e}" for row in error if (row["cell"], row["name"]) == (cell, name))]
        for cell, name in distinct((row["cell"], row["name"]) for row in error)
    ]
    parts += ["Errors in float32.", grid(["", *(f"T={n:,}" for n in times)], lines)]
    return "\n\n".join([*parts, result.head["method"]])


def _about(row: Row) -> str:
    kind = "forward+backward" if row["gradient"] else "forward"
    return f"{row['cell']} ({row['time']:,}, {row['batch']}, {row['hidden']}) {kind}"


def _long_cell(row: Row | None) -> str:
    if row is None:
        return ""
    often = f"; {row['iterations']} iterations" if "iterations" in row else ""
    memory = "" if row["temporary_bytes"] is None else f", {figure(row['temporary_bytes'], 1e-6)} MB"
    return f"{figure(median(row['seconds']), 1e3)} ({figure(median(row['over_scan']))}{memory}{often})"
