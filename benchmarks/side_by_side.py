"""Processors side by side: a column each, every figure from one result file of one machine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from . import processor
from .result import FLOAT32, SELECT, Result, Row, distinct, figure, geometric_mean, median, shape
from .tables import grid
from .workload import Workload

Found = dict[str, list[Result]]
"""The result files of each machine."""
UTTERANCES = ((16, 1, 128, 128), (128, 1, 64, 64))
"""(T, B, I, H) of one short sequence."""


class Comparison(NamedTuple):
    """A table: a line for each workload, a column for each processor.

    Attributes:
        title: what a figure is.
        file: the name of the result files, without their ending.
        value: from a row to its figure; None for a row that is left out.
        mean: whether a line for each cell and kind has the geometric mean over the workloads.
        each: whether each workload has a line.
    """

    title: str
    file: str
    value: Callable[[Row], float | None]
    mean: bool = True
    each: bool = True


def time_over(name: str, shapes: Sequence[tuple[int, int, int, int]] = (), cells: Sequence[str] = ()) -> Any:
    """Return the `value` of a `Comparison`: the time of an implementation over jaxrnn's, of some workloads or all."""

    def value(row: Row) -> float | None:
        workload = row["workload"]
        known = (not shapes or workload.shape in shapes) and (not cells or workload.cell in cells)
        return median(row.get("over_select")) if row["name"] == name and known else None

    return value


def share(row: Row) -> float | None:
    """Return the bound as a percentage of jaxrnn's time."""
    return row["percent"] if row["name"] == SELECT else None


COMPARISONS = (
    Comparison("torch over jaxrnn, float32: above 1 jaxrnn is faster", "peers", time_over("torch")),
    Comparison("torch over jaxrnn, bfloat16: above 1 jaxrnn is faster", "bfloat16", time_over("torch")),
    Comparison("jaxrnn in float32 over jaxrnn in bfloat16: above 1 bfloat16 is faster", "bfloat16", time_over(FLOAT32)),
    Comparison(
        "onnxruntime over jaxrnn, one utterance: above 1 jaxrnn is faster",
        "peers",
        time_over("onnxruntime", UTTERANCES, ("lstm", "gru")),
        mean=False,
    ),
    Comparison(
        "The lower bound as a percentage of jaxrnn's time: of the matmul rate, for many rows",
        "limit",
        share,
        mean=False,
    ),
)


def column(result: Result) -> str:
    """Return the heading of a machine."""
    about = result.head["hardware"]
    return f"{processor.name(about)}, {about['cores']} cores"


def chosen(found: Found, file: str) -> list[Result]:
    """Return the result of that name of each machine without an accelerator."""
    every = itertools.chain.from_iterable(found.values())
    return [result for result in every if result.name == file and result.head["hardware"]["platform"] == "cpu"]


def page(found: Found) -> str:
    """Return the section of docs/benchmarks.md; nothing where there is no result."""
    parts = [f"**{about.title}**\n\n{text}" for about in COMPARISONS if (text := table(found, about))]
    introduction = (
        "A column is one machine, and no figure is taken over machines. The sections below say what each machine is, "
        "and from which command, commit and day its figures are."
    )
    return "\n\n".join(["## Processors side by side", introduction, *parts, ""]) if parts else ""


def table(found: Found, about: Comparison) -> str:
    """Return the Markdown table of a comparison; nothing where no machine has a figure."""
    columns = {column(result): values(result, about) for result in chosen(found, about.file)}
    columns = {head: own for head, own in columns.items() if own}
    every = distinct(workload for own in columns.values() for workload in own)
    parts = []
    for cell, kind in sorted({(workload.cell, workload.kind) for workload in every}):
        kinds = [workload for workload in every if (workload.cell, workload.kind) == (cell, kind)]
        means = {head: mean({w: own[w] for w in kinds if w in own}, len(kinds)) for head, own in columns.items()}
        parts += [(f"{cell} {kind}, **geometric mean**", means)] if about.mean else []
        for workload in kinds if about.each else ():
            texts = {head: figure(own.get(workload)) for head, own in columns.items()}
            parts.append((f"{cell} {kind}, {shape(workload)}", texts))
    frame = pd.DataFrame([texts for _, texts in parts], index=[label for label, _ in parts])
    return grid(frame, "T, B, I, H") if parts else ""


def values(result: Result, about: Comparison) -> dict[Workload, float]:
    """Return the figures of one machine."""
    return {row["workload"]: value for row in result.timed if (value := about.value(row)) is not None}


def mean(found: dict[Workload, float], count: int) -> str:
    """Write the geometric mean, and over how many workloads where a machine has not measured all."""
    part = "" if len(found) == count else f" ({len(found)} of {count})"
    return figure(geometric_mean(list(found.values()))) + part if found else ""
