"""Time next to a lower bound, which is computed from figures of the machine measured in the same run."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from . import machine, record, timing
from .machine import Machine
from .peers import PEERS
from .peers.peer import Peer, installed
from .suites import SUITES
from .workload import Workload, draw

Row = dict[str, Any]
NAMES = ("jaxrnn select", "torch", "naive lax.scan")


@dataclasses.dataclass(frozen=True)
class Limit:
    """Time workloads next to a lower bound: the least time that matmuls and memory of this machine need.

    Forward, with G gates, k arrays of state, s bytes an element, P the FLOP/s of a large matmul:

        t >= 2 G B T H I / P + T t_step,
        t_step = max(2 G B H² / P, G H² s / bandwidth, (G + k) B H s / bandwidth),

    where a bandwidth is that of the smallest level (L2, L3, memory; on an accelerator: on chip, memory) which holds
    what is moved: the recurrent weights, the activations of a step. With n heads H² is H² / n. A gradient has three
    times the FLOPs: the input projection three times, the chain of steps twice (forward and backward), and the gradient
    for the recurrent weights, 2 G B T H² / P, which need not wait for the chain. The activation functions, the latency
    of a step and the reading of inputs are left out: no implementation reaches the bound where they count.

    Args:
        suite: of quick, standard, deepbench and flashrnn.
        workloads: what is measured, in place of a suite.
        names: the implementations; () is all of them.
        budget: seconds of timing a workload, without compilation.
        json: the result file; by default `limit.json` in the folder of this hardware.
    """

    suite: str = "quick"
    workloads: tuple[Workload, ...] = ()
    names: tuple[str, ...] = NAMES
    budget: float = 3.0
    json: pathlib.Path | None = None

    def __call__(self) -> None:
        """Measure machine, workloads and machine again; show a table; write the file, after each workload too."""
        workloads, peers, found = self._workloads(), choose(self.names), []
        dtypes = [workload.dtype for workload in workloads]
        able = machine.measure(dtypes)
        for workload in workloads:
            found.append((workload, take(workload, peers, self.budget)))
            self._write(able, found)
        able = machine.best(able, machine.measure(dtypes))
        path = self._write(able, found)
        console = Console(highlight=False, soft_wrap=True)
        console.print(*sentences(able), sep="\n", markup=False)
        console.print(table(rows(able, found)))
        console.print(f"wrote {path}", markup=False)

    def _workloads(self) -> Sequence[Workload]:
        if self.suite not in SUITES:
            raise ValueError(f"suite is one of {', '.join(SUITES)}; got {self.suite!r}")
        return self.workloads or SUITES[self.suite]()

    def _write(self, able: Machine, found: Sequence[tuple[Workload, dict[str, Any]]]) -> pathlib.Path:
        return record.write("limit", rows(able, found), self.json, machine=dataclasses.asdict(able))


def recurrent_flops(workload: Workload) -> float:
    """FLOPs on the chain of dependence, a step: 2 G B H² / n."""
    return 2.0 * workload.gates * workload.batch * workload.hidden**2 / workload.heads


def projection_flops(workload: Workload) -> float:
    """FLOPs of the input projection, the whole sequence: 2 G B T H I."""
    return 2.0 * workload.gates * workload.batch * workload.time * workload.hidden * workload.inputs


def weight_bytes(workload: Workload) -> float:
    """Return the recurrent weights, read at every step: G H² s / n."""
    return workload.gates * workload.hidden**2 / workload.heads * _item(workload)


def activation_bytes(workload: Workload) -> float:
    """Return gates and state of a step: (G + k) B H s; k is 2 for an LSTM, else 1."""
    states = 2 if workload.cell == "lstm" else 1
    return (workload.gates + states) * workload.batch * workload.hidden * _item(workload)


def _item(workload: Workload) -> int:
    return jnp.dtype(workload.dtype).itemsize


def step_seconds(workload: Workload, able: Machine) -> dict[str, float]:
    """Return the least time of a step by each limit; the largest counts."""
    return {
        "matmul": recurrent_flops(workload) / able.peak(workload.dtype),
        "weights": able.move(weight_bytes(workload)),
        "activations": able.move(activation_bytes(workload)),
    }


def bound_seconds(workload: Workload, able: Machine) -> float:
    """Return the least time of a call, by the formula in `Limit`."""
    peak = able.peak(workload.dtype)
    projection = projection_flops(workload) / peak
    chain = workload.time * max(step_seconds(workload, able).values())
    if not workload.gradient:
        return projection + chain
    return 3 * projection + 2 * chain + workload.time * recurrent_flops(workload) / peak


def choose(names: Sequence[str]) -> list[Peer]:
    """Return the implementations of these names, all where there are none."""
    known = {peer.name: peer for peer in PEERS}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"names are of {', '.join(map(repr, known))}; got {', '.join(map(repr, unknown))}")
    return [known[name] for name in names or known]


def take(workload: Workload, peers: Sequence[Peer], budget: float) -> dict[str, Any]:
    """Time the implementations in turn: the samples of each, or a string that says why it is absent."""
    data, programs, found = draw(workload), {}, {}
    for peer in peers:
        why = peer.lacks(workload, jax.devices()[0].platform) if installed(peer) else "not installed"
        found[peer.name] = why
        if why is None:
            programs[peer.name] = peer.make(workload, data).call
            programs[peer.name]()  # whatever a library loads or compiles at its first call
    return found | timing.interleave(programs, budget)


def rows(able: Machine, found: Sequence[tuple[Workload, dict[str, Any]]]) -> list[Row]:
    """Return a row for each time, with its bound."""
    out = []
    for workload, samples in found:
        bound, steps = bound_seconds(workload, able), step_seconds(workload, able)
        limited = max(steps, key=lambda name: steps[name])
        for name, taken in samples.items():
            row: Row = {"workload": dataclasses.asdict(workload), "name": name}
            if isinstance(taken, str):
                out.append({**row, "absent": taken})
                continue
            seconds = timing.spread(taken)
            row |= {"seconds": seconds, "bound_seconds": bound, "step_limited_by": limited}
            out.append({**row, "percent": 100 * bound / seconds["median"]})
    return out


def sentences(able: Machine) -> list[str]:
    """Return the measured figures of the machine as sentences."""
    lines = [
        f"matmul, {dtype}: " + ", ".join(f"{rate / 1e9:,.0f} GFLOP/s through {name}" for name, rate in rates.items())
        for dtype, rates in able.gemm.items()
    ]
    measured = [(level.name, level.bandwidth) for level in able.levels if level.bandwidth is not None]
    lines.append("bandwidth: " + ", ".join(f"{name} {bandwidth / 1e9:,.0f} GB/s" for name, bandwidth in measured))
    return [*lines, f"a step of an empty lax.scan: {1e6 * able.scan_step:.2f} us"]


def table(found: Sequence[Row]) -> Table:
    """Return a line for each workload, a column for each implementation: ms, and the bound as a percentage of it."""
    names = list(dict.fromkeys(row["name"] for row in found))
    shown = Table("", "bound, ms", "step limited by", *names, box=None, header_style="bold")
    for at in range(0, len(found), len(names)):
        line = found[at : at + len(names)]
        timed = [row for row in line if "seconds" in row]
        cells = [
            f"{1e3 * row['seconds']['median']:.3g} ({row['percent']:.0f} %)" if row in timed else "-" for row in line
        ]
        first = [f"{1e3 * timed[0]['bound_seconds']:.3g}", timed[0]["step_limited_by"]] if timed else ["", ""]
        shown.add_row(str(Workload(**line[0]["workload"])), *first, *cells)
    return shown


def _cell(row: Row) -> str:
    return f"{1e3 * row['seconds']['median']:.3g} ({row['percent']:.0f} %)" if "seconds" in row else "-"
