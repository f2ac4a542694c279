"""How cost grows with the sequence, the batch and the width; and the cost of a Python loop next to `select`."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import jax

from . import record, timing
from .measure import compare, milliseconds, prepare, show
from .peers import choose
from .peers.own import BASELINES, LOOPS, OWN
from .peers.peer import Peer, Supports
from .plots import AXES
from .result import SELECT, Row
from .workload import Workload, draw

Calls = dict[str, tuple[int, float]]
"""By the name of a Python loop: its T, and the seconds of its first call."""
UNJITTED, JITTED, NAIVE = (peer.name for peer in BASELINES)
FLAT = ("jaxrnn Scan", "jaxrnn BPTT")
PEERS = (dataclasses.replace(LOOPS[0], supports=Supports(heads=True)), *BASELINES[1:], *OWN)
"""However slow a Python loop is, `limit` decides whether it is measured."""
ONCE = 0.3  # of the limit: a Python loop whose first call takes longer is not called again
LOOP_BUDGET = 5  # budgets for the Python loop next to `select`
METHOD = (
    "in turn in one process (A B A B), median and quartiles; jax_cpu_enable_async_dispatch is off: handing a call over "
    "to another thread costs some 40 us, which is no part of a step (JAX's default is on)."
)


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
        peers, rows = choose(self.names, PEERS), []
        for axis, workloads in self._axes():
            last: Calls = {}
            found = [row for workload in workloads for row in measure(axis, workload, peers, last, self)]
            rows += found
            if found:
                show(f"us a step: {workloads[0].cell} {workloads[0].kind} along {axis}", _lines(axis, found))
                self._write(rows)
        for cell in self.cells if self.loop else ():
            rows += self._loop(Workload(cell, *self.loop))
        for row in flatness(rows):
            print(_sentence(row))
        print(f"wrote {self._write(rows)}")

    def _loop(self, workload: Workload) -> list[Row]:
        """Measure and show the Python loops and `select`; each row has its ratio to `select`."""
        peers = choose((UNJITTED, JITTED, SELECT), PEERS)
        rows = compare(workload, peers, LOOP_BUDGET * self.budget, apart=())
        for row in rows:
            row |= {"axis": "loop", "ratio": row.pop("over_select"), **per_step(workload, row["seconds"])}
        shown = [(row["name"], milliseconds(row), f"{row['ratio']['median']:.2f}") for row in rows]
        show(str(workload), [dict(zip(("", "ms", "times select"), texts, strict=True)) for texts in shown])
        return rows

    def _write(self, rows: Sequence[Row]) -> pathlib.Path:
        return record.write("scaling", rows, self.json, limit=self.limit, flatness=flatness(rows), method=METHOD)

    def _axes(self) -> Iterator[tuple[str, list[Workload]]]:
        """Yield, for each cell and kind, each axis and the workloads along it."""
        for cell in self.cells:
            for gradient in (False, True):
                yield "T", [Workload(cell, time, 1, 64, 64, gradient) for time in sorted(self.times)]
                yield "B", [Workload(cell, 128, batch, 128, 128, gradient) for batch in sorted(self.batches)]
                yield "H", [Workload(cell, 64, 16, hidden, hidden, gradient) for hidden in sorted(self.hiddens)]


def measure(axis: str, workload: Workload, peers: Sequence[Peer], last: Calls, how: Scaling) -> list[Row]:
    """Measure one workload: a row for each implementation.

    Args:
        axis: "T", "B" or "H".
        workload: what is computed.
        peers: the implementations.
        last: the first calls of Python loops on this axis so far; this measurement adds its own.
        how: the budget and the limit.
    """
    loops, rows, able = [loop.name for loop in LOOPS], {}, []
    for peer in peers:
        expected = expect(last.get(peer.name), workload.time)
        if expected > how.limit:
            reason = f"a call is expected to take {expected:.0f} s; the limit is {how.limit:g} s"
            about = {"workload": dataclasses.asdict(workload), "name": peer.name}
            rows[peer.name] = {**about, "stopped": reason}
            continue
        able.append(peer)
        if peer.name == UNJITTED:  # two steps compile the operations before the loop's first call
            short = dataclasses.replace(workload, time=2)
            peer.make(short, draw(short)).call()
    found, programs = prepare(workload, able)
    rows |= {row["name"]: row for row in found}
    first = {name: rows[name]["first_seconds"] for name in loops if name in programs}
    last |= {name: (workload.time, seconds) for name, seconds in first.items()}
    samples = {name: [seconds] for name, seconds in first.items() if seconds > ONCE * how.limit}
    calls = {name: program.call for name, program in programs.items() if name not in samples}
    samples |= timing.interleave(calls, how.budget)
    for name, taken in samples.items():
        rows[name]["seconds"] = timing.spread(taken)
        rows[name] |= per_step(workload, rows[name]["seconds"])
    return [{"axis": axis, **rows[peer.name]} for peer in peers]


def per_step(workload: Workload, seconds: dict[str, float]) -> Row:
    """Return the seconds a step, and the number of rounds."""
    return {"seconds_per_step": seconds["median"] / workload.time, "rounds": seconds["samples"]}


def expect(last: tuple[int, float] | None, time: int) -> float:
    """Return the seconds of a loop over `time` steps, in proportion to the last one; 0 where there was none."""
    return 0.0 if last is None else last[1] * time / last[0]


def flatness(rows: Sequence[Row]) -> list[Row]:
    """Return, for Scan and BPTT along T from 64 on, how far the time of a step varies, and the seconds to compile."""
    lines: dict[tuple[str, str, bool], list[Row]] = {}
    for row in rows:
        workload = row["workload"]
        if row["axis"] == "T" and row["name"] in FLAT and "seconds_per_step" in row and workload["time"] >= 64:
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


def _lines(axis: str, rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return a line for each workload, a column for each implementation."""
    lines: dict[int, dict[str, str]] = {}
    for row in rows:
        size = row["workload"][AXES[axis]]
        text = f"{1e6 * row['seconds_per_step']:.2f}" if "seconds_per_step" in row else "stopped"
        lines.setdefault(size, {"": f"{axis}={size}"})[row["name"]] = text
    return list(lines.values())
