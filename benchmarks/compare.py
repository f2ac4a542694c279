"""The command `peers`: every implementation of every workload of a suite, checked, then timed in turn."""

from __future__ import annotations

import dataclasses
import gc
import pathlib

import jax
from rich.progress import track

from . import record, timing
from .measure import absent, compare, milliseconds, peers_of, show, suite
from .result import Row
from .workload import Workload, draw

METHOD = (
    "in turn in one process (A B A B), freed memory kept, one sample a round, the mean of the calls of a turn, which "
    "follow 30 ms of calls of the same program that are not timed; "
    "over_select is taken round by round; median and quartiles. Python loops and onnxruntime have separate rounds, "
    "after the others. Loss sum(h^2), gradients for params and inputs, the input projection included. error: the "
    "largest difference from float64 with the same weights and inputs, relative to the largest entry of the array. "
    "jaxrnn float32: what select takes, in float32, where the workload is in 16 bits."
)
CACHED = " Programs may come from JAX's cache, compiled by other processes: compile_seconds says nothing."


@dataclasses.dataclass(frozen=True)
class Peers:
    """Time every implementation of every workload of a suite, in turn, and check each against float64.

    Args:
        suite: quick, standard, bfloat16, deepbench, flashrnn or tiny.
        json: the result file; by default in the folder of this hardware: `peers.json` of the suite standard, otherwise
            named after the suite.
        budget: seconds of timing a workload at most (but never fewer than 3 rounds).
        rounds: the most rounds of a workload.
        names: the implementations; by default those of the suite, or all.
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
        workloads, peers = self.workloads or suite(self.suite), peers_of(self.suite, self.names)
        rows: list[Row] = []
        shape = workloads[0].shape
        path = self.json or record.folder() / f"{'peers' if self.suite == 'standard' else self.suite}.json"
        for workload in track(workloads, "workloads", transient=True):
            if workload.shape != shape:
                jax.clear_caches()
                gc.collect()
                shape = workload.shape
            found = compare(workload, peers, self.budget, self.rounds, check=True)
            rows += found
            method = METHOD + (CACHED if jax.config.jax_compilation_cache_dir else "")
            record.write("peers", rows, path, suite=self.suite, method=method)
            _show(workload, found)
        print(f"results  {path}")

    def compile(self, share: int, of: int) -> None:
        """Only compile, each `of`-th program from the `share`-th on, into JAX's cache; torch compiles nothing."""
        workloads, peers = self.workloads or suite(self.suite), peers_of(self.suite, self.names)
        for workload, peer in [(w, p) for w in workloads for p in peers][share::of]:
            if peer.package != "torch" and not absent(peer, workload):
                try:
                    peer.make(workload, draw(workload))
                except Exception as failure:  # the measurement reports it again
                    print(f"{peer.name} {workload} failed: {failure}"[:300])


def _show(workload: Workload, rows: list[Row]) -> None:
    """Print the rows of a workload, the fastest first."""
    timed = sorted((row for row in rows if "seconds" in row), key=lambda row: row["seconds"]["median"])
    show(
        f"{workload} (!: error above {workload.tolerance:g})" if workload.tolerance else str(workload),
        [*map(_line, timed)],
    )
    if missing := [f"{row['name']} ({row['absent']})" for row in rows if "absent" in row]:
        print(f"absent: {', '.join(missing)}")


def _line(row: Row) -> dict[str, str]:
    over, took = row.get("over_select"), row["compile_seconds"]
    return {
        "implementation": row["name"],
        "ms": milliseconds(row),
        "over select": "" if over is None else f"{over['median']:.2f} ({over['low']:.2f} to {over['high']:.2f})",
        "compile s": "" if took is None else f"{took:.2f}",
        "error": f"{row['error']:.0e}" + ("!" if row["tolerance"] and row["error"] > row["tolerance"] else ""),
        "": row["equation"] or row["driver"] or "",
    }
