"""Memory that a gradient keeps, by driver and rematerialisation, and its time."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from . import record
from .memory_probe import SUBJECTS
from .peers.peer import Peer, installed
from .workload import Workload

Row = dict[str, Any]
console = Console(highlight=False, soft_wrap=True)


@dataclasses.dataclass(frozen=True)
class Memory:
    """Measure the memory of one gradient, by the compiler's plan and by the growth of a separate process.

    The process is watched after compilation and a first call, with weights and inputs in place, so that its growth is
    the temporary memory and the gradients. On a GPU the growth is of the device's memory, with what compiling tried.

    Args:
        cells: of elman, gru and lstm.
        names: the drivers, of `benchmarks/memory_probe.py`.
        time: T.
        batch: B.
        inputs: I.
        hidden: H.
        budget: seconds of timing a driver, without compilation.
        json: the result file; by default in the folder of this hardware.
    """

    cells: tuple[str, ...] = ("lstm", "gru", "elman")
    names: tuple[str, ...] = tuple(peer.name for peer in SUBJECTS)
    time: int = 512
    batch: int = 32
    inputs: int = 64
    hidden: int = 128
    budget: float = 1.0
    json: pathlib.Path | None = None

    def __call__(self) -> None:
        """Measure, show each cell, write the file."""
        known = {peer.name: peer for peer in SUBJECTS}
        if unknown := [name for name in self.names if name not in known]:
            raise ValueError(f"names are of {', '.join(known)}; got {', '.join(unknown)}")
        rows: list[Row] = []
        for cell in self.cells:
            workload = Workload(cell, self.time, self.batch, self.inputs, self.hidden, gradient=True)
            found = [probe(known[name], workload, self.budget) for name in self.names]
            rows += found
            console.print(_table(workload, found))
        path = record.write("memory", rows, self.json)
        console.print(f"wrote {path}", markup=False)


def probe(peer: Peer, workload: Workload, budget: float) -> Row:
    """Measure one driver in a new process, which does not preallocate the memory of a GPU."""
    about = {"workload": dataclasses.asdict(workload), "name": peer.name}
    if not installed(peer):
        return {**about, "absent": f"{peer.package} is not installed"}
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, "-m", "benchmarks.memory_probe", json.dumps({**about, "budget": budget})]
    done = subprocess.run(command, cwd=record.ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return {**about, **json.loads(done.stdout.splitlines()[-1])}


def _table(workload: Workload, rows: list[Row]) -> Table:
    """Return a line for each driver; an array is one of (T, B, H)."""
    table = Table(str(workload), box=None, header_style="bold")
    for head in ("plan, MB", "arrays", "process, MB", "arrays", "ms"):
        table.add_column(head, justify="right")
    for row in rows:
        if "absent" in row:
            table.add_row(row["name"], row["absent"])
            continue
        planned = ("", "") if row["arrays"] is None else (f"{row['temporary_bytes'] / 1e6:.1f}", f"{row['arrays']:.1f}")
        process = (f"{row['process_bytes'] / 1e6:.1f}", f"{row['process_arrays']:.1f}")
        table.add_row(row["name"], *planned, *process, f"{1e3 * row['seconds']['median']:.1f}")
    return table
