"""Time next to a lower bound, which is computed from figures of the machine measured in the same run."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import jax.numpy as jnp

from . import machine, record
from .machine import Machine
from .measure import compare, milliseconds, show, suite
from .peers import choose
from .result import Row
from .workload import Workload

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
        suite: of quick, standard, bfloat16, deepbench, flashrnn and tiny.
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
        workloads, peers = self.workloads or suite(self.suite), choose(self.names)
        dtypes = [workload.dtype for workload in workloads]
        able, rows = machine.measure(dtypes), []
        for workload in workloads:
            rows += compare(workload, peers, self.budget)
            self._write(able, rows)
        able = machine.best(able, machine.measure(dtypes))
        path = self._write(able, rows)
        print(*sentences(able), sep="\n")
        show("ms, and the bound as a percentage of it", table(rows))
        print(f"wrote {path}")

    def _write(self, able: Machine, rows: Sequence[Row]) -> pathlib.Path:
        """Set the bound of each time, and write the file."""
        for row in rows:
            if "seconds" in row:
                workload = Workload(**row["workload"])
                bound, steps = bound_seconds(workload, able), step_seconds(workload, able)
                row |= {"bound_seconds": bound, "step_limited_by": max(steps, key=steps.__getitem__)}
                row["percent"] = 100 * bound / row["seconds"]["median"]
        return record.write("limit", rows, self.json, machine=dataclasses.asdict(able))


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


def sentences(able: Machine) -> list[str]:
    """Return the measured figures of the machine as sentences."""
    lines = [
        f"matmul, {dtype}: " + ", ".join(f"{rate / 1e9:,.0f} GFLOP/s through {name}" for name, rate in rates.items())
        for dtype, rates in able.gemm.items()
    ]
    measured = [(level.name, level.bandwidth) for level in able.levels if level.bandwidth is not None]
    lines.append("bandwidth: " + ", ".join(f"{name} {bandwidth / 1e9:,.0f} GB/s" for name, bandwidth in measured))
    return [*lines, f"a step of an empty lax.scan: {1e6 * able.scan_step:.2f} us"]


def table(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return a line for each workload, a column for each implementation."""
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        line = lines.setdefault(str(Workload(**row["workload"])), {"": str(Workload(**row["workload"]))})
        if "seconds" in row:
            line |= {"bound, ms": f"{1e3 * row['bound_seconds']:.3g}", "step limited by": row["step_limited_by"]}
            line[row["name"]] = f"{milliseconds(row)} ({row['percent']:.0f} %)"
    return list(lines.values())
