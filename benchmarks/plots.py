"""The pictures of result files. Which there are is known without matplotlib; drawing imports it."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from .result import SELECT, Result, Row, distinct, geometric_mean, kind, median

Draw = Callable[[Any], None]
"""Draws on a matplotlib figure."""
AXES = {"T": "time", "B": "batch", "H": "hidden"}
"""The field of a workload that grows along an axis."""
SIZE = (4.6, 3.6)  # inches of a panel
DPI = 120
MARKERS = "osv^D<>Pp*Xdh"


def pictures(result: Result) -> dict[str, Draw]:
    """Return the pictures of a result file: file names, and what draws them."""
    found: dict[str, Draw] = {}
    stem = f"{result.hardware}-{result.name}"
    if result.benchmark == "peers" and any(row.get("over_select") for row in result.timed):
        found[f"{stem}.png"] = functools.partial(ratios, result)
    if result.benchmark == "long":
        found[f"{stem}-error.png"] = functools.partial(errors, [row for row in result.rows if row["part"] == "error"])
    if result.benchmark == "scaling":
        for axis, field in AXES.items():
            if rows := [row for row in result.timed if row["axis"] == axis]:
                found[f"{stem}-{axis}.png"] = functools.partial(lines, rows, axis, field, "seconds", "ms a call", 1e3)
        if rows := [row for row in result.timed if row["axis"] == "T" and row.get("compile_seconds") is not None]:
            draw = functools.partial(lines, rows, "T", "time", "compile_seconds", "seconds to compile", 1.0)
            found[f"{stem}-compile.png"] = draw
    return found


def save(draw: Draw, path: pathlib.Path) -> None:
    """Draw a picture and write it; the same bytes from the same rows and the same matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(dpi=DPI, layout="constrained")
    FigureCanvasAgg(picture)
    draw(picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, metadata={"Software": None})


def panels(picture: Any, kinds: Sequence[tuple[str, str]], height: float = SIZE[1]) -> list[Any]:
    """Return a panel for each cell and kind: a row for each cell, titled."""
    cells, hows = distinct(cell for cell, _ in kinds), distinct(how for _, how in kinds)
    picture.set_size_inches(SIZE[0] * len(hows), height * len(cells))
    axes = picture.subplots(len(cells), len(hows), squeeze=False)
    for row, cell in zip(axes, cells, strict=True):
        for panel, how in zip(row, hows, strict=True):
            panel.set_title(f"{cell}, {how}", fontsize=9)
            panel.tick_params(labelsize=8)
            panel.grid(True, which="major", alpha=0.3)
    return [axes[cells.index(cell), hows.index(how)] for cell, how in kinds]


def lines(rows: Sequence[Row], axis: str, field: str, what: str, label: str, scale: float, picture: Any) -> None:
    """Draw a figure of the rows over an axis: a line for each implementation, logarithmic but for seconds."""
    names, kinds = distinct(row["name"] for row in rows), distinct(map(kind, rows))
    for panel, which in zip(panels(picture, kinds), kinds, strict=True):
        for at, name in enumerate(names):
            own = [row for row in rows if kind(row) == which and row["name"] == name]
            xs = [getattr(row["workload"], field) for row in own]
            ys = [scale * median(row[what]) for row in own]
            panel.plot(xs, ys, f"C{at % 10}", marker=MARKERS[at % len(MARKERS)], ms=4, lw=1.2, label=name)
        if axis == "T" and what == "seconds":
            guide(panel, [row for row in rows if kind(row) == which])
        panel.set(xscale="log", xlabel=axis, ylabel=label)
        plain(panel.xaxis)
        if what == "compile_seconds":
            panel.set_ylim(0.0)
        else:
            panel.set_yscale("log")
            plain(panel.yaxis)
        panel.legend(fontsize=6)


def errors(rows: Sequence[Row], picture: Any) -> None:
    """Draw the error of each driver over T, a panel a cell."""
    cells = distinct(row["cell"] for row in rows)
    for panel, cell in zip(panels(picture, [(cell, "float32") for cell in cells]), cells, strict=True):
        for at, name in enumerate(distinct(row["name"] for row in rows)):
            own = [row for row in rows if (row["cell"], row["name"]) == (cell, name)]
            xs, ys = [row["time"] for row in own], [row["error"] for row in own]
            panel.plot(xs, ys, f"C{at}", marker=MARKERS[at], ms=4, lw=1.2, label=name)
        panel.set(xscale="log", yscale="log", xlabel="T", ylabel="error, as a share of the largest entry")
        panel.legend(fontsize=6)


def guide(panel: Any, rows: Sequence[Row]) -> None:
    """Draw the line of a cost in proportion to T, through the last point of `select` (or of what there is)."""
    own = [row for row in rows if row["name"] == SELECT] or rows
    last = max(own, key=lambda row: row["workload"].time)
    times = sorted({row["workload"].time for row in rows})
    step = 1e3 * median(last["seconds"]) / last["workload"].time
    panel.plot(times, [step * time for time in times], "k:", lw=1, label="in proportion to T")


def ratios(result: Result, picture: Any) -> None:
    """Draw each implementation's time over `select`'s: a dot for each shape, a bar at their geometric mean."""
    rows = [row for row in result.timed if row.get("over_select")]
    names, kinds = distinct(row["name"] for row in rows), sorted(set(map(kind, rows)))
    height = 0.9 + 0.2 * len(names)
    for panel, which in zip(panels(picture, kinds, height), kinds, strict=True):
        for at, name in enumerate(names):
            own = [row for row in rows if kind(row) == which and row["name"] == name]
            if found := [row["over_select"]["median"] for row in own]:
                panel.plot(found, [at] * len(found), "C0o", ms=3, alpha=0.6)
                panel.plot([geometric_mean(found)], [at], "C3|", ms=10, mew=2)
        panel.axvline(1.0, color="k", lw=0.8)
        panel.set_yticks(range(len(names)), names, fontsize=7)
        panel.set(xscale="log", xlabel=f"time over {SELECT}'s", ylim=(len(names) - 0.5, -0.5))
        plain(panel.xaxis)


def plain(axis: Any) -> None:
    """Label a logarithmic axis with 1, 2, 5, 10 as they are."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
    axis.label.set_size(8)
    axis.set_tick_params(labelsize=6)
