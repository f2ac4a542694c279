"""The command `peers`: every implementation of every workload of a suite, checked, then timed in turn."""

from __future__ import annotations

import dataclasses
import gc
import pathlib
from typing import Any

import jax
from rich.console import Console
from rich.progress import track
from rich.table import Table

from jaxrnn import select

from . import record, timing
from .peers import PEERS, Peer, Program, installed
from .peers.onnxruntime import OnnxRuntime
from .peers.own import BASELINES, PythonLoop
from .suites import SUITES
from .workload import Data, Workload, draw, error, reference

console = Console()
BASE = "jaxrnn select"
FAR = {"float32": 0.1, "bfloat16": 0.3}  # larger than any rounding error, also of TF32 and of a relu that grows
APART = (*(peer for peer in BASELINES if isinstance(peer, PythonLoop)), OnnxRuntime())
"""Measured after the others, since they slow the next one: garbage to collect, threads that keep spinning."""
SPINNING = ("torch",)
"""Peers whose threads keep spinning for a moment."""


@dataclasses.dataclass(frozen=True)
class Peers:
    """Time every implementation of every workload of a suite, in turn, and check each against float64.

    Args:
        suite: quick, standard, deepbench or flashrnn.
        json: the result file; by default `peers.json` in the folder of this hardware.
        budget: seconds of timing a workload at most (but never fewer than 3 rounds).
        rounds: the most rounds of a workload.
        names: the implementations; all by default.
    """

    suite: str = "standard"
    json: pathlib.Path | None = None
    budget: float = 4.0
    rounds: int = timing.ROUNDS
    names: tuple[str, ...] = ()
    workloads: tuple[Workload, ...] = ()

    def __call__(self) -> None:
        """Measure, print a table a workload, write the file."""
        workloads, peers = self._chosen()
        rows: list[dict[str, Any]] = []
        shape = workloads[0].shape
        for workload in track(workloads, "workloads", console=console, transient=True):
            if workload.shape != shape:
                jax.clear_caches()
                gc.collect()
                shape = workload.shape
            rows += compare(workload, peers, self.budget, self.rounds)
            method = METHOD + (CACHED if jax.config.jax_compilation_cache_dir else "")
            path = record.write("peers", rows, self.json, suite=self.suite, method=method)
            _show(workload, rows)
        console.print(f"results  {path}", markup=False)

    def compile(self, share: int, of: int) -> None:
        """Only compile, each `of`-th program from the `share`-th on, into JAX's cache; torch compiles nothing."""
        workloads, peers = self._chosen()
        for workload, peer in [(w, p) for w in workloads for p in peers][share::of]:
            if peer.package != "torch" and installed(peer) and not peer.lacks(workload, jax.default_backend()):
                try:
                    peer.make(workload, draw(workload))
                except Exception as failure:  # the measurement reports it again
                    console.print(f"{peer.name} {workload} failed: {failure}"[:300], markup=False)

    def _chosen(self) -> tuple[tuple[Workload, ...], list[Peer]]:
        """Return the workloads and the implementations to measure."""
        peers = [peer for peer in PEERS if not self.names or peer.name in self.names]
        if missing := set(self.names) - {peer.name for peer in peers}:
            raise SystemExit(f"no such implementation: {sorted(missing)}. There are {[peer.name for peer in PEERS]}")
        return self.workloads or _suite(self.suite), peers


METHOD = (
    "in turn in one process (A B A B), freed memory kept, one sample a round, the mean of the calls of a turn; "
    "over_select is taken round by round; median and quartiles. Python loops and onnxruntime have separate rounds, "
    "after the others. Loss sum(h^2), gradients for params and inputs, the input projection included. error: the "
    "largest difference from float64, relative to the largest entry of the array."
)
CACHED = " Programs may come from JAX's cache, compiled by other processes: compile_seconds says nothing."


def _suite(name: str) -> tuple[Workload, ...]:
    """Return the workloads of a suite."""
    if name not in SUITES:
        raise SystemExit(f"no suite {name!r}; there are {', '.join(SUITES)}")
    return tuple(SUITES[name]())


def compare(workload: Workload, peers: list[Peer], budget: float, rounds: int) -> list[dict[str, Any]]:
    """Return a row for every implementation: its measurements, or why it is absent."""
    platform, data = jax.default_backend(), draw(workload)
    rows, programs = [], {}
    for peer in peers:
        about: dict[str, Any] = {"workload": dataclasses.asdict(workload), "name": peer.name}
        if not installed(peer):
            rows.append(about | {"absent": f"{peer.package} is not installed"})
        elif reason := peer.lacks(workload, platform):
            rows.append(about | {"absent": reason})
        else:
            try:
                programs[peer.name] = _checked(peer, workload, data, about)
            except Exception as failure:  # any error of a library, such as out of memory, becomes its reason
                about = {"workload": about["workload"], "name": peer.name, "absent": f"failed: {failure}"[:300]}
                console.print(f"{peer.name} {about['absent']}", markup=False)
            rows.append(about)
    calls = {name: program.call for name, program in programs.items()}
    apart = {peer.name: calls.pop(peer.name) for peer in APART if peer.name in calls}
    samples = timing.interleave(calls, budget, rounds, SPINNING) | timing.interleave(apart, budget / 4, rounds)
    for row in rows:
        if row["name"] in samples:
            row["seconds"] = timing.spread(samples[row["name"]])
            if BASE in samples:
                row["over_select"] = timing.ratio(samples[row["name"]], samples[BASE])
    return rows


def _checked(peer: Peer, workload: Workload, data: Data, about: dict[str, Any]) -> Program:
    """Compile a program and check it; add what is known of it to `about`."""
    program = peer.make(workload, data)
    equation = peer.equation(workload)
    about |= {"equation": equation, "compile_seconds": program.compile_seconds}
    about |= {"temporary_bytes": program.temporary_bytes, "driver": _driver(workload) if peer.name == BASE else None}
    about["error"] = error(program.answer(program.call()), reference(workload, equation))
    if not about["error"] < FAR[workload.dtype]:
        raise ValueError(f"off by {about['error']:.1e} from float64: it computes another function")
    return program


def _driver(workload: Workload) -> str:
    """Return the driver that `select` chooses."""
    shape = (workload.time, workload.batch, workload.inputs)
    return str(select(workload.own_cell(), shape, workload.dtype, jax.default_backend()))


def _show(workload: Workload, rows: list[dict[str, Any]]) -> None:
    """Print the rows of a workload, the fastest first."""
    mine = [row for row in rows if row["workload"] == dataclasses.asdict(workload)]
    table = Table("implementation", "ms", "over select", "compile s", "error", "", box=None, title=str(workload))
    for row in sorted((r for r in mine if "seconds" in r), key=lambda r: r["seconds"]["median"]):
        over, took = row.get("over_select"), row["compile_seconds"]
        table.add_row(
            row["name"],
            f"{1e3 * row['seconds']['median']:.3f}",
            "" if over is None else f"{over['median']:.2f} ({over['low']:.2f} to {over['high']:.2f})",
            "" if took is None else f"{took:.2f}",
            f"{row['error']:.0e}",
            row["equation"] or row["driver"] or "",
        )
    console.print(table)
    if absent := [f"{row['name']} ({row['absent']})" for row in mine if "absent" in row]:
        console.print(f"absent: {', '.join(absent)}", markup=False)
