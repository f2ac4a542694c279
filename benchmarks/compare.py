"""The command `peers`: every implementation of every workload of a suite, checked, then timed in turn."""

from __future__ import annotations

import dataclasses
import gc
import pathlib

import jax
from rich.progress import track

from . import record, timing
from .measure import absent, compare, milliseconds, show, suite
from .peers import choose
from .result import Row
from .workload import Workload, draw

METHOD = (
    "in turn in one process (A B A B), freed memory kept, one sample a round, the mean of the calls of a turn; "
    "over_select is taken round by round; median and quartiles. Python loops and onnxruntime have separate rounds, "
    "after the others. Loss sum(h^2), gradients for params and inputs, the input projection included. error: the "
    "largest difference from float64, relative to the largest entry of the array."
)
CACHED = " Programs may come from JAX's cache, compiled by other processes: compile_seconds says nothing."


@dataclasses.dataclass(frozen=True)
class Peers:
    """Time every implementation of every workload of a suite, in turn, and check each against float64.

    Args:
        suite: quick, standard, deepbench or flashrnn.
        json: the result file; by default `peers.json` in the folder of this hardware.
        budget: seconds of timing a workload at most (but never fewer than 3 rounds).
        rounds: the most rounds of a workload.
        names: the implementations; all by default.
        workloads: what is measured, in place of a suite.
    """

    suite: str = "standard"
    json: pathlib.Path | None = None
    budget: float = 4.0
    rounds: int = timing.ROUNDS
    names: tuple[str, ...] = ()
    workloads: tuple[Workload, ...] = ()

    def __call__(self) -> None:
        """Measure, print a table a workload, write the file."""
        workloads, peers = self.workloads or suite(self.suite), choose(self.names)
        rows: list[Row] = []
        shape = workloads[0].shape
        for workload in track(workloads, "workloads", transient=True):
            if workload.shape != shape:
                jax.clear_caches()
                gc.collect()
                shape = workload.shape
            found = compare(workload, peers, self.budget, self.rounds, check=True)
            rows += found
            method = METHOD + (CACHED if jax.config.jax_compilation_cache_dir else "")
            path = record.write("peers", rows, self.json, suite=self.suite, method=method)
            _show(workload, found)
        print(f"results  {path}")

    def compile(self, share: int, of: int) -> None:
        """Only compile, each `of`-th program from the `share`-th on, into JAX's cache; torch compiles nothing."""
        workloads, peers = self.workloads or suite(self.suite), choose(self.names)
        for workload, peer in [(w, p) for w in workloads for p in peers][share::of]:
            if peer.package != "torch" and not absent(peer, workload):
                try:
                    peer.make(workload, draw(workload))
                except Exception as failure:  # the measurement reports it again
                    print(f"{peer.name} {workload} failed: {failure}"[:300])


def _show(workload: Workload, rows: list[Row]) -> None:
    """Print the rows of a workload, the fastest first."""
    timed = sorted((row for row in rows if "seconds" in row), key=lambda row: row["seconds"]["median"])
    show(str(workload), [_line(row) for row in timed])
    if missing := [f"{row['name']} ({row['absent']})" for row in rows if "absent" in row]:
        print(f"absent: {', '.join(missing)}")


def _line(row: Row) -> dict[str, str]:
    over, took = row.get("over_select"), row["compile_seconds"]
    return {
        "implementation": row["name"],
        "ms": milliseconds(row),
        "over select": "" if over is None else f"{over['median']:.2f} ({over['low']:.2f} to {over['high']:.2f})",
        "compile s": "" if took is None else f"{took:.2f}",
        "error": f"{row['error']:.0e}",
        "": row["equation"] or row["driver"] or "",
    }
