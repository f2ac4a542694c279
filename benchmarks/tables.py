"""The Markdown tables of result files, by pandas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from .plots import AXES
from .result import FLOAT32, SELECT, Result, Row, distinct, figure, geometric_mean, median, shape, small, why_absent

Write = Callable[[Any], str]


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the rows as a frame: dicts become columns such as `seconds.median`, and a workload its fields too."""
    table = pd.json_normalize([{**row, "why": why_absent(row)} for row in rows])
    if "workload" in table:
        fields = {"cell": "cell", "kind": "kind", "dtype": "dtype", **{field: field for field in AXES.values()}}
        workloads = {name: [getattr(w, field) for w in table.workload] for name, field in fields.items()}
        table = table.assign(**workloads, shape=table.workload.map(shape))
    optional = ("equation", "error", "tolerance", "compile_seconds", "over_select.median", "driver", "ratio.median")
    return table.reindex(columns=[*table.columns, *(name for name in optional if name not in table)])


def pivot(table: pd.DataFrame, rows: str, columns: str, value: str, write: Write = figure) -> pd.DataFrame:
    """Return a table of texts in the order of the file; a column without any value is left out."""
    known = table.dropna(subset=[value])
    texts = known.assign(text=known[value].map(write)).drop_duplicates([rows, columns], keep="last")
    found = texts.pivot(index=rows, columns=columns, values="text")
    return found.reindex(index=distinct(table[rows]), columns=distinct(known[columns]))


def grid(table: pd.DataFrame, corner: str = "") -> str:
    """Return a Markdown table: the index to the left, the columns aligned to the right."""
    lines = [
        [str(index), *row] for index, row in zip(table.index, table.astype(object).fillna("").to_numpy(), strict=True)
    ]
    rule = ["---", *["---:"] * len(table.columns)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in ([corner, *table.columns], rule, *lines))


def notes(table: pd.DataFrame) -> str:
    """Return what is absent, and why."""
    absent = table[table.why.notna()]
    found = distinct(absent.name + ": " + absent.why) if len(absent) else []
    return f"\n\nAbsent ({'; '.join(found)})." if found else ""


def peers(result: Result) -> str:
    """Return the summary, a table for each cell and kind, and what `select` chose."""
    table = frame(result.rows)
    kinds = [one_kind(part, *which) for which, part in table.groupby(["cell", "kind"])]
    return "\n\n".join(filter(None, [summary(table), *kinds, chosen(table)]))


def starred(table: pd.DataFrame) -> dict[str, str]:
    """Return the name of each implementation, with a star where its equation is another one."""
    return {name: name + (r"\*" if own.equation.notna().any() else "") for name, own in table.groupby("name")}


def footnotes(table: pd.DataFrame) -> str:
    """Return which equations are other ones, and what is absent, and why."""
    rows = table[table.equation.notna()]
    other = distinct(
        f"{name}: {cell}, {equation}" for name, cell, equation in rows[["name", "cell", "equation"]].values
    )
    note = rf"\* Another equation, and checked against it ({'; '.join(other)})."
    return (f"\n\n{note}" if other else "") + inaccurate(table) + notes(table)


def inaccurate(table: pd.DataFrame) -> str:
    """Return whose error is above the tolerance of the workload's dtype, and how large it is."""
    beyond = table[table.error > table.tolerance.astype(float)]
    if beyond.empty:
        return ""
    rows = beyond[["name", "cell", "shape", "error"]].values
    found = [f"{name}, {cell} ({shape}): {small(error)}" for name, cell, shape, error in rows]
    return f"\n\nErrors above the tolerance of the dtype: {'; '.join(found)}."


def summary(table: pd.DataFrame) -> str:
    """Return a line for each implementation: the geometric mean of its ratios over the shapes, its largest error."""
    timed = table[table.why.isna()]
    kinds = {f"{cell}<br>{kind}": part for (cell, kind), part in timed.groupby(["cell", "kind"])}
    lines = {}
    for name, own in timed.groupby("name", sort=False):
        line = {title: mean_ratio(part[part.name == name], part) for title, part in kinds.items()}
        line |= {f"largest error, {dtype}": "" for dtype in sorted(timed.dtype.unique())}
        line |= {f"largest error, {dtype}": small(part.error.max()) for dtype, part in own.groupby("dtype")}
        line["compile, s"] = figure(own.compile_seconds.astype(float).median())
        spreads = (own["seconds.high"] - own["seconds.low"]) / own["seconds.median"]
        lines[name] = line | {"spread, %": figure(100 * spreads.median())}
    text = (
        f"Time over {SELECT}'s, geometric mean over the shapes: above 1 is slower than jaxrnn. In parentheses, over how"
        " many shapes where not over all. Errors are against float64, relative to the largest entry of each array;"
        " compile is the median of seconds to compile; spread is the interquartile range in percent of the median,"
        " its median over the workloads."
    )
    found = pd.DataFrame(lines).T.rename(index=starred(timed))
    return f"{text}\n\n{grid(found)}{footnotes(timed)}"


def mean_ratio(own: pd.DataFrame, every: pd.DataFrame) -> str:
    """Return the geometric mean of the ratios to `select`, and over how many shapes where not over all."""
    ratios, count = own["over_select.median"].dropna(), every.workload.nunique()
    part = "" if len(ratios) == count else f" ({len(ratios)} of {count})"
    return figure(geometric_mean(list(ratios))) + part if len(ratios) else ""


def one_kind(table: pd.DataFrame, cell: str, kind: str) -> str:
    """Return a line for each shape, a column for each implementation: ms, and the ratio to `select`."""
    timed = table[table.why.isna()]
    fastest = timed.groupby("shape")["seconds.median"].transform("min") == timed["seconds.median"]
    times = timed["seconds.median"].mul(1e3).map(figure).mask(fastest, lambda ms: "**" + ms + "**")
    ratios = (" (" + timed["over_select.median"].map(figure) + ")").mask(
        timed["over_select.median"].isna() | (timed.name == SELECT), ""
    )
    found = pivot(timed.assign(cell_text=times + ratios), "shape", "name", "cell_text", str)
    title = f"**{cell}, {kind}**: ms, in parentheses the ratio to {SELECT}; the fastest in bold."
    return f"{title}\n\n{grid(found.rename(columns=starred(timed)), 'T, B, I, H')}{footnotes(table)}"


def chosen(table: pd.DataFrame) -> str:
    """Return what `select` chose, next to the fastest of jaxrnn's drivers."""
    timed = table[table.why.isna()]
    ours = timed.name.str.startswith("jaxrnn ") & (timed.name != FLOAT32)
    own = timed[ours & timed["over_select.median"].notna()]
    lines = {}
    for row in timed[(timed.name == SELECT) & timed.driver.notna()].itertuples():
        rivals = own[own.workload == row.workload]
        best = rivals.loc[rivals["over_select.median"].idxmin()] if len(rivals) else None
        fastest = ["", ""] if best is None else [best["name"], figure(best["over_select.median"])]
        lines[f"{row.cell} {row.kind} ({row.shape})"] = [f"`{row.driver}`", *fastest]
    heads = ["`select` chose", "fastest of jaxrnn's", "its time over select's"]
    found = pd.DataFrame.from_dict(lines, orient="index", columns=heads)
    return f"**What `select` chose**\n\n{grid(found, 'workload')}" if lines else ""


def scaling(result: Result) -> str:
    """Return a table for each axis, cell and kind; seconds to compile over T; the loops; how flat a step is."""
    parts, table = [], frame(result.rows)
    for axis, field in AXES.items():
        for (cell, kind), own in table[table.axis == axis].groupby(["cell", "kind"], sort=False):
            found = pivot(own, field, "name", "seconds.median", lambda value: figure(value, 1e3))
            title = f"**Over {axis}: {cell}, {kind}** ({constant(own, axis)}), ms a call"
            parts.append(f"{title}\n\n{grid(found)}{notes(own)}")
            if axis == "T":
                title = f"**Over T: {cell}, {kind}**, seconds to compile"
                parts.append(f"{title}\n\n{grid(pivot(own, field, 'name', 'compile_seconds'))}")
    for workload, own in table[(table.axis == "loop") & table.why.isna()].groupby("workload", sort=False):
        figures = {"ms": own["seconds.median"].mul(1e3).map(figure), "times select": own["ratio.median"].map(figure)}
        found = pd.DataFrame(figures).set_axis(own.name)
        parts.append(f"**A Python loop: {workload}**\n\n{grid(found)}")
    return "\n\n".join([*parts, *flatness(result)])


def constant(table: pd.DataFrame, axis: str) -> str:
    """Return the sizes that are the same along an axis."""
    fields = {"T": "time", "B": "batch", "I": "inputs", "H": "hidden"}
    sizes = {name: {getattr(w, field) for w in table.workload} for name, field in fields.items() if name != axis}
    return ", ".join(f"{name}={found.pop() if len(found) == 1 else axis}" for name, found in sizes.items())


def flatness(result: Result) -> list[str]:
    """Return how far the time of a step varies along T."""
    lines = {
        f"{row['name']}, {row['cell']} {'forward+backward' if row['gradient'] else 'forward'}": [
            "{} to {}".format(*row["times"]),
            f"{figure(row['smallest'], 1e6)} to {figure(row['largest'], 1e6)}",
            figure(row["ratio"]),
            "{} to {}".format(*map(figure, row["compile_seconds"])),
        ]
        for row in result.head.get("flatness", [])
    }
    heads = ["T", "µs a step", "largest over smallest", "compile, s"]
    found = pd.DataFrame.from_dict(lines, orient="index", columns=heads)
    return [f"**How flat a step is along T**\n\n{grid(found)}"] if lines else []


def memory(result: Result) -> str:
    """Return a table for each workload: the compiler's plan, the growth of the process, time."""
    columns = (
        ("temporary_bytes", "plan, MB", 1e-6),
        ("arrays", "arrays of (T, B, H)", 1.0),
        ("process_bytes", "process, MB", 1e-6),
        ("process_arrays", "arrays of (T, B, H)", 1.0),
        ("seconds.median", "ms", 1e3),
    )
    parts = []
    for workload, rows in frame(result.rows).groupby("workload", sort=False):
        own = rows[rows.why.isna()]
        texts = [own[field].mul(scale).map(figure).rename(head) for field, head, scale in columns]
        found = pd.concat(texts, axis=1).set_axis(own.name)
        parts.append(f"**{workload}**\n\n{grid(found)}{notes(rows)}")
    return "\n\n".join(parts)


def train(result: Result) -> str:
    """Return training throughput, and the latency of one answer."""
    keys = ("data", "vocabulary", "labels", "samples", "batch_size", "utterances")
    parts = [", ".join(f"{key.replace('_', ' ')} {result.head[key]}" for key in keys if key in result.head)]
    table = frame(result.rows)
    for part, own in table[table.why.isna()].groupby("part", sort=False):
        columns = {head: own[field].map(write) for field, head, write in COLUMNS if field in own and own[field].any()}
        parts.append(f"**{part}**\n\n{grid(pd.DataFrame(columns).set_axis(own.name))}")
    return "\n\n".join(filter(None, parts)) + notes(table)


COLUMNS: tuple[tuple[str, str, Write], ...] = (
    ("samples_per_second.median", "samples/s", figure),
    ("step_seconds.median", "ms a step", lambda value: figure(value, 1e3)),
    ("ratio.median", "time over jaxrnn's", figure),
    ("median_ms", "median, ms", figure),
    ("p99_ms", "99th percentile, ms", figure),
    ("compile_seconds", "compile, s", figure),
    ("error", "error", small),
)
"""Of a `train` file: a field, its heading, and how it is written."""


def limit(result: Result) -> str:
    """Return what the machine can do, and each time next to its bound."""
    able, table = result.head["machine"], frame(result.rows)
    lines = {
        f"matmul, {dtype}, {library}": f"{figure(rate, 1e-9)} GFLOP/s"
        for dtype, found in able["gemm"].items()
        for library, rate in found.items()
    }
    levels = [level for level in able["levels"] if level["bandwidth"] is not None]
    lines |= {f"bandwidth, {level['name']}": f"{figure(level['bandwidth'], 1e-9)} GB/s" for level in levels}
    lines["a step of an empty `lax.scan`"] = f"{figure(able['scan_step'], 1e6)} µs"
    timed = table[table.why.isna()]
    timed = timed.assign(
        about=timed.cell + " " + timed.kind + " (" + timed["shape"] + ")",
        text=timed["seconds.median"].mul(1e3).map(figure) + " (" + timed.percent.map(figure) + " %)",
    )
    first = timed.drop_duplicates("about").set_index("about")
    found = pivot(timed, "about", "name", "text", str)
    found.insert(0, "bound, ms", first.bound_seconds.mul(1e3).map(figure))
    found.insert(1, "a step is limited by", first.step_limited_by)
    title = (
        "Milliseconds; in parentheses the bound as a percentage of the time (`benchmarks/limit.py` has the formula)."
    )
    return f"{grid(pd.DataFrame({'': lines}))}\n\n{title}\n\n{grid(found)}{notes(table)}"


def long(result: Result) -> str:
    """Return the times of long sequences over `Scan()`'s, how Newton's method converged, and how errors grow with T."""
    parts = ["Milliseconds; in parentheses the time over `Scan()`'s, and temporary megabytes."]
    rows = [{**row, "about": _about(row), "text": _long_cell(row)} for row in result.rows if row["part"] != "error"]
    for part in ("affine", "newton"):
        own = frame([row for row in rows if row["part"] == part])
        parts.append(grid(pivot(own, "about", "name", "text", str), "T, B, H"))
    error = frame([row for row in result.rows if row["part"] == "error"])
    error = error.assign(about=error.cell + ", " + error.name, steps=error.time.map("T={:,}".format))
    found = pivot(error, "about", "steps", "error", lambda value: f"{value:.0e}")
    return "\n\n".join([*parts, "Errors in float32.", grid(found), result.head["method"]])


def _about(row: Row) -> str:
    kind = "forward+backward" if row["gradient"] else "forward"
    return f"{row['cell']} ({row['time']:,}, {row['batch']}, {row['hidden']}) {kind}"


def _long_cell(row: Row) -> str:
    often = f"; {row['iterations']} iterations" if "iterations" in row else ""
    memory = "" if row["temporary_bytes"] is None else f", {figure(row['temporary_bytes'], 1e-6)} MB"
    return f"{figure(median(row['seconds']), 1e3)} ({figure(median(row['over_scan']))}{memory}{often})"
