"""How cost grows with the sequence, the batch and the width; and the cost of a Python loop next to `select`."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from . import record, timing
from .peers.own import BASELINES, OWN, PythonLoop
from .peers.peer import Peer, Program
from .workload import Workload, draw

Row = dict[str, Any]
Calls = dict[str, tuple[int, float]]
"""By the name of a Python loop: its T, and the seconds of its first call."""
UNJITTED, JITTED, NAIVE = (peer.name for peer in BASELINES)
SELECT, FLAT = "jaxrnn select", ("jaxrnn Scan", "jaxrnn BPTT")
ONCE = 0.3  # of the limit: a Python loop whose first call takes longer is not called again
LOOP_BUDGET = 5  # budgets for the Python loop next to `select`
METHOD = (
    "in turn in one process (A B A B), median and quartiles; jax_cpu_enable_async_dispatch is off: handing a call over "
    "to another thread costs some 40 us, which is no part of a step (JAX's default is on)."
)
console = Console(highlight=False, soft_wrap=True)


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Time a step over T, B and H, forward and with gradients; then the Python loop next to `select`.

    Along T, B is 1 and I = H = 64; along B, T and I = H are 128; along H = I, T is 64 and B is 16.

    Args:
        cells: of elman, gru and lstm.
        names: the implementations, of `benchmarks/peers/own.py`.
        times: the T along T.
        batches: the B along B.
        hiddens: the H along H.
        loop: the (T, B, I, H) of the Python loop next to `select`; () leaves it out.
        budget: seconds of timing a workload, without compilation.
        limit: seconds a call of a Python loop may take; one that is expected to take longer is not started.
        json: the result file; by default in the folder of this hardware.
    """

    cells: tuple[str, ...] = ("lstm",)
    names: tuple[str, ...] = (UNJITTED, JITTED, NAIVE, *FLAT, SELECT)
    times: tuple[int, ...] = (16, 64, 256, 1024, 4096, 16384, 65536)
    batches: tuple[int, ...] = (1, 4, 16, 64, 256)
    hiddens: tuple[int, ...] = (16, 64, 256, 1024)
    loop: tuple[int, ...] = (1024, 32, 64, 128)
    budget: float = 2.0
    limit: float = 30.0
    json: pathlib.Path | None = None

    def __call__(self) -> None:
        """Measure, show each axis, write the file after each."""
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        peers, rows = choose(self.names), []
        for workloads in self._axes():
            for axis, line in workloads.items():
                last: Calls = {}
                found = [row for workload in line for row in measure(axis, workload, peers, last, self)]
                rows += found
                if found:
                    console.print(_table(axis, found))
                    self._write(rows)
        for cell in self.cells if self.loop else ():
            found = _loop(Workload(cell, *self.loop), self)
            rows += found
            console.print(_loop_table(found))
        for row in flatness(rows):
            console.print(_sentence(row), markup=False)
        console.print(f"wrote {self._write(rows)}", markup=False)

    def _write(self, rows: Sequence[Row]) -> pathlib.Path:
        return record.write("scaling", rows, self.json, limit=self.limit, flatness=flatness(rows), method=METHOD)

    def _axes(self) -> Iterator[dict[str, list[Workload]]]:
        """Yield, for each cell and kind, the workloads along each axis."""
        for cell in self.cells:
            for gradient in (False, True):
                yield {
                    "T": [Workload(cell, time, 1, 64, 64, gradient) for time in sorted(self.times)],
                    "B": [Workload(cell, 128, batch, 128, 128, gradient) for batch in sorted(self.batches)],
                    "H": [Workload(cell, 64, 16, hidden, hidden, gradient) for hidden in sorted(self.hiddens)],
                }


def choose(names: Sequence[str]) -> list[Peer]:
    """Return the implementations of these names."""
    known = {peer.name: peer for peer in (*BASELINES, *OWN)}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"names are of {', '.join(map(repr, known))}; got {', '.join(map(repr, unknown))}")
    return [known[name] for name in names]


def measure(axis: str, workload: Workload, peers: Sequence[Peer], last: Calls, how: Scaling) -> list[Row]:
    """Measure one workload: a row for each implementation.

    Args:
        axis: "T", "B" or "H".
        workload: what is computed.
        peers: the implementations.
        last: the first calls of Python loops on this axis so far; this measurement adds its own.
        how: the budget and the limit.
    """
    data = draw(workload)
    programs, rows, samples = {}, {}, {}
    for peer in peers:
        expected = expect(last.get(peer.name), workload.time)
        if expected > how.limit:
            rows[peer.name] = {"stopped": f"a call is expected to take {expected:.0f} s; the limit is {how.limit:g} s"}
            continue
        programs[peer.name] = peer.make(workload, data)
        if isinstance(peer, PythonLoop):
            if not peer.jitted:
                compile_operations(peer, workload)
            first = timing.seconds(programs[peer.name].call)
            last[peer.name] = (workload.time, first)
            samples |= {peer.name: [first]} if first > ONCE * how.limit else {}
    calls = {name: program.call for name, program in programs.items() if name not in samples}
    samples |= timing.interleave(calls, how.budget)
    for name, program in programs.items():
        rows[name] = figures(workload, program, samples[name])
        if name in last:
            rows[name]["first_seconds"] = last[name][1]
    about = {"axis": axis, "workload": dataclasses.asdict(workload)}
    return [{**about, "name": peer.name, **rows[peer.name]} for peer in peers]


def number(axis: str, workload: Workload) -> int:
    """Return what grows along an axis."""
    return {"T": workload.time, "B": workload.batch, "H": workload.hidden}[axis]


def compile_operations(loop: PythonLoop, workload: Workload) -> None:
    """Run two steps, so that the operations of a step are compiled before the loop's first call."""
    short = dataclasses.replace(workload, time=2)
    loop.make(short, draw(short)).call()


def expect(last: tuple[int, float] | None, time: int) -> float:
    """Return the seconds of a loop over `time` steps, in proportion to the last one; 0 where there was none."""
    return 0.0 if last is None else last[1] * time / last[0]


def figures(workload: Workload, program: Program, samples: Sequence[float]) -> Row:
    """Return what a row says about one program."""
    return {
        "seconds": timing.spread(samples),
        "seconds_per_step": statistics.median(samples) / workload.time,
        "compile_seconds": program.compile_seconds,
        "temporary_bytes": program.temporary_bytes,
        "rounds": len(samples),
    }


def _loop(workload: Workload, how: Scaling) -> list[Row]:
    """Measure the Python loops and `select`; each row has its ratio to `select`."""
    peers = choose((UNJITTED, JITTED, SELECT))
    data = draw(workload)
    programs = {peer.name: peer.make(workload, data) for peer in peers}
    for program in programs.values():
        program.call()
    calls = {name: program.call for name, program in programs.items()}
    samples = timing.interleave(calls, LOOP_BUDGET * how.budget)
    about = {"axis": "loop", "workload": dataclasses.asdict(workload)}
    ratios = {name: timing.ratio(taken, samples[SELECT]) for name, taken in samples.items()}
    return [
        {**about, "name": name, **figures(workload, program, samples[name]), "ratio": ratios[name]}
        for name, program in programs.items()
    ]


def flatness(rows: Sequence[Row]) -> list[Row]:
    """Return, for Scan and BPTT along T from 64 on, how far the time of a step varies, and the seconds to compile."""
    lines: dict[tuple[str, str, bool], list[Row]] = {}
    for row in rows:
        workload = row["workload"]
        if row["axis"] == "T" and row["name"] in FLAT and workload["time"] >= 64:
            lines.setdefault((workload["cell"], row["name"], workload["gradient"]), []).append(row)
    found = []
    for (cell, name, gradient), line in lines.items():
        steps = [row["seconds_per_step"] for row in line]
        found.append(
            {
                **{"cell": cell, "name": name, "gradient": gradient},
                "times": [line[0]["workload"]["time"], line[-1]["workload"]["time"]],
                **{"smallest": min(steps), "largest": max(steps), "ratio": max(steps) / min(steps)},
                "compile_seconds": [line[0]["compile_seconds"], line[-1]["compile_seconds"]],
            }
        )
    return found


def _sentence(row: Row) -> str:
    kind = "forward+backward" if row["gradient"] else "forward"
    (first, last), (short, long) = row["times"], row["compile_seconds"]
    return (
        f"{row['name']}, {row['cell']} {kind}, T={first} to {last}: {1e6 * row['smallest']:.2f} to "
        f"{1e6 * row['largest']:.2f} us a step, ratio {row['ratio']:.3f}; compiled in {short:.2f} s and {long:.2f} s"
    )


def _table(axis: str, rows: Sequence[Row]) -> Table:
    """Microseconds a step: a line for each workload, a column for each implementation."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    first = Workload(**rows[0]["workload"])
    title = f"us a step: {first.cell} {first.kind} along {axis}"
    table = Table("", title=title, title_justify="left", box=None, header_style="bold")
    for name in names:
        table.add_column(name, justify="right")
    for at in range(0, len(rows), len(names)):
        line = rows[at : at + len(names)]
        cells = ["stopped" if "stopped" in row else f"{1e6 * row['seconds_per_step']:.2f}" for row in line]
        table.add_row(f"{axis}={number(axis, Workload(**line[0]['workload']))}", *cells)
    return table


def _loop_table(rows: Sequence[Row]) -> Table:
    table = Table(str(Workload(**rows[0]["workload"])), "ms", "times select", box=None, header_style="bold")
    for row in rows:
        table.add_row(row["name"], f"{1e3 * row['seconds']['median']:.2f}", f"{row['ratio']['median']:.2f}")
    return table
