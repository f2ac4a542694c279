"""What each dtype and each precision of the matmuls costs in accuracy, over many steps, and in time."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxrnn import Native

from . import processor, record, timing
from .measure import milliseconds, show
from .peers import Peer, Program, installed
from .peers.own import own
from .peers.torch import TORCH
from .result import Result, Row, distinct, figure, median
from .tables import frame, grid, notes
from .workload import Answer, Workload, draw, reference


class Setting(NamedTuple):
    """A way to compute.

    Attributes:
        name: as tables show it.
        dtype: of params and inputs.
        options: the fields of `Native`; None for torch.
    """

    name: str
    dtype: str
    options: dict[str, Any] | None


SETTINGS = (
    Setting("float32", "float32", {}),
    Setting("float32, precision bfloat16_3x", "float32", {"precision": "bfloat16_3x"}),
    Setting("float32, precision bfloat16", "float32", {"precision": "bfloat16"}),
    Setting("float16", "float16", {}),
    Setting("bfloat16", "bfloat16", {}),
    Setting("torch float32", "float32", None),
    Setting("torch bfloat16", "bfloat16", None),
)
"""What is compared. Times are over those of the first."""
METHOD = (
    "Errors are from Scan() in float64 with the same weights and inputs, which are rounded to the dtype of the params "
    "before: the largest and the root of the mean square, relative to the largest entry of the array; of gradients "
    "the worst of all arrays. Times in turn in one process, over those of the first setting round by round."
)


@dataclasses.dataclass(frozen=True)
class Precision:
    """Measure errors and times of `Native` by the dtype of its params and the precision of its matmuls.

    Args:
        cells: of lstm, gru and elman.
        time: T.
        batch: B.
        inputs: I.
        hidden: H.
        budget: seconds of timing a cell and kind, without compilation.
        json: the result file; by default in the folder of this hardware.
    """

    cells: tuple[str, ...] = ("lstm", "gru", "elman")
    time: int = 1024
    batch: int = 8
    inputs: int = 64
    hidden: int = 128
    budget: float = 3.0
    json: pathlib.Path | None = None

    def __call__(self) -> None:
        """Measure, show, and write the file after each cell and kind."""
        rows: list[Row] = []
        for cell in self.cells:
            for gradient in (False, True):
                found = measure(Workload(cell, self.time, self.batch, self.inputs, self.hidden, gradient), self.budget)
                rows += found
                _show(found)
                path = record.write("precision", rows, self.json, method=METHOD, units=units())
        print(f"wrote {path}")


def units() -> str:
    """Return what the processor multiplies 16 bits with."""
    if "amx_bf16" in processor.describe()["vector_units"]:
        return "The processor has AMX, whose tiles multiply bfloat16."
    return (
        "The processor has no AMX: 16-bit weights are widened to float32 before they are multiplied, and params in "
        "float32 are multiplied in float32 whatever the precision."
    )


def measure(workload: Workload, budget: float, settings: Sequence[Setting] = SETTINGS) -> list[Row]:
    """Return a row for each setting: errors and times, or why there are none."""
    rows, programs = [], {}
    for setting in settings:
        own_workload = dataclasses.replace(workload, dtype=setting.dtype)
        row: Row = {"workload": dataclasses.asdict(own_workload), "name": setting.name}
        try:
            program = prepare(setting, own_workload)
            row |= errors(program.answer(program.call()), reference(own_workload))
            programs[setting.name] = program
        except Exception as failure:  # what a library refuses becomes its reason
            row["absent"] = str(failure)[:300]
        rows.append(row)
    samples = timing.interleave({name: program.call for name, program in programs.items()}, budget)
    for row in rows:
        if taken := samples.get(row["name"]):
            row["seconds"] = timing.spread(taken)
            if settings[0].name in samples:
                row["over_first"] = timing.ratio(taken, samples[settings[0].name])
    return rows


def prepare(setting: Setting, workload: Workload) -> Program:
    """Return the program of a setting; raise what `Native` or torch refuses it with."""
    peer: Peer = TORCH[0] if setting.options is None else own(setting.name, Native(**setting.options))
    if not installed(peer):
        raise ValueError(f"{peer.package} is not installed")
    return peer.make(workload, draw(workload))


def errors(answer: Answer, truth: Answer) -> dict[str, float]:
    """Return the largest and the root mean square error, relative to the largest entry, the worst of all arrays."""
    largest, squares = [], []
    for got, true in zip(answer, truth, strict=True):
        if true is not None:
            difference, scale = np.asarray(got, np.float64) - true, np.abs(true).max()
            largest.append(np.abs(difference).max() / scale)
            squares.append(np.sqrt(np.square(difference).mean()) / scale)
    return {"error": float(max(largest)), "rms": float(max(squares))}


def _show(rows: list[Row]) -> None:
    """Print the settings of one cell and kind, and which are absent."""
    workload = Workload(**rows[0]["workload"])
    show(str(workload), [_line(row) for row in rows if "absent" not in row])
    if missing := [f"{row['name']} ({row['absent']})" for row in rows if "absent" in row]:
        print(f"absent: {', '.join(missing)}")


def _line(row: Row) -> dict[str, str]:
    over = row.get("over_first")
    texts = {"": row["name"], "largest": f"{row['error']:.1e}", "rms": f"{row['rms']:.1e}", "ms": milliseconds(row)}
    return texts | ({"over the first": f"{over['median']:.2f}"} if over else {})


def page(result: Result) -> str:
    """Return the Markdown of a result file: a table for each cell and kind."""
    parts = [f"{result.head['units']} {result.head['method']}"]
    for cell, kind in distinct((row["workload"].cell, row["workload"].kind) for row in result.rows):
        own_rows = [row for row in result.rows if (row["workload"].cell, row["workload"].kind) == (cell, kind)]
        lines = {
            row["name"]: [
                f"{row['error']:.1e}",
                f"{row['rms']:.1e}",
                _time(row, "seconds", 1e3),
                _time(row, "over_first"),
            ]
            for row in own_rows
            if "error" in row
        }
        first = own_rows[0]["workload"]
        sizes = f"{first.time:,}, {first.batch}, {first.inputs}, {first.hidden}"
        heads = ["largest error", "rms error", "ms", f"time over {own_rows[0]['name']}'s"]
        table = pd.DataFrame.from_dict(lines, orient="index", columns=heads)
        parts.append(f"**{cell}, {kind}** ({sizes})\n\n{grid(table)}{notes(frame(own_rows))}")
    return "\n\n".join(parts)


def _time(row: Row, field: str, scale: float = 1.0) -> str:
    return figure(median(row.get(field)), scale)
