"""Memory that a gradient keeps, by driver and rematerialisation, and its time.

Each gradient runs in a separate process, which prints its figures as a line of JSON:

    python -m benchmarks.memory '{"name": "BPTT()", "budget": 1.0, "workload": {"cell": "lstm", ...}}'
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrnn import BPTT, Native, Remat, Scan

from . import record, timing
from .measure import absent, milliseconds, show
from .peers import Peer, Program, choose
from .peers.own import own
from .peers.torch import TORCH
from .result import Row
from .workload import Workload, draw

CALLS = 5  # that are watched, after one that loads code and takes scratch
MMAP_THRESHOLD = -3  # glibc's M_MMAP_THRESHOLD
AT_ONCE, AS_USUAL = 2**18, 2**25  # bytes from which freed memory goes back at once: while watched; glibc's own most
Grown = Callable[[], int]
"""Returns the bytes by which the peak has passed what was in use at the start."""

DRIVERS = {
    "Scan()": Scan(),
    "Scan(hoist=32)": Scan(hoist=32),
    "Scan(hoist=512)": Scan(hoist=512),
    "Scan(remat=Remat(1))": Scan(remat=Remat(1)),
    "Scan(remat=Remat(8))": Scan(remat=Remat(8)),
    "Scan(remat=Remat())": Scan(remat=Remat()),
    "BPTT(8)": BPTT(8),
    "BPTT()": BPTT(),
    "BPTT(64)": BPTT(64),
    "Native()": Native(),
    "BPTT(keep_gates=True)": BPTT(keep_gates=True),
}
SUBJECTS: tuple[Peer, ...] = (*(own(name, driver) for name, driver in DRIVERS.items()), *TORCH[:2])
"""What is measured, by name."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Measure the memory of one gradient, by the compiler's plan and by the growth of a separate process.

    The process is watched after compilation and a first call, with weights and inputs in place, so that its growth is
    the temporary memory and the gradients. On a GPU the growth is of the device's memory, with what compiling tried.

    Args:
        cells: of elman, gru and lstm.
        names: the drivers, of `SUBJECTS`.
        time: T.
        batch: B.
        inputs: I.
        hidden: H.
        budget: seconds of timing a driver, without compilation.
        json: the result file; by default in the folder of this hardware.
        dtypes: of params and inputs; an array of (T, B, H) is counted in the same dtype.
    """

    cells: tuple[str, ...] = ("lstm", "gru", "elman")
    names: tuple[str, ...] = tuple(peer.name for peer in SUBJECTS)
    time: int = 512
    batch: int = 32
    inputs: int = 64
    hidden: int = 128
    budget: float = 1.0
    json: pathlib.Path | None = None
    dtypes: tuple[str, ...] = ("float32",)

    def __call__(self) -> None:
        """Measure, show each cell, write the file."""
        peers, rows = choose(self.names, SUBJECTS), []
        sizes = self.time, self.batch, self.inputs, self.hidden
        for cell, dtype in itertools.product(self.cells, self.dtypes):
            workload = Workload(cell, *sizes, gradient=True, dtype=dtype)
            found = [probe(peer, workload, self.budget) for peer in peers]
            rows += found
            show(str(workload), [_line(row) for row in found])
        print(f"wrote {record.write('memory', rows, self.json)}")


def _line(row: Row) -> dict[str, str]:
    """Return the line of a driver; an array is one of (T, B, H)."""
    line = {"": row["name"] + (f": {row['absent']}" if "absent" in row else "")}
    for what, size, arrays in (("plan", "temporary_bytes", "arrays"), ("process", "process_bytes", "process_arrays")):
        known = row.get(size) is not None
        line[f"{what}, MB"] = f"{row[size] / 1e6:.1f}" if known else ""
        line[f"{what}, arrays"] = f"{row[arrays]:.1f}" if known else ""
    return line | {"ms": milliseconds(row)}


def probe(peer: Peer, workload: Workload, budget: float) -> Row:
    """Measure one driver in a new process, which does not preallocate the memory of a GPU."""
    about: Row = {"workload": dataclasses.asdict(workload), "name": peer.name}
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, "-m", "benchmarks.memory", json.dumps({**about, "budget": budget})]
    done = subprocess.run(command, cwd=record.ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return {**about, **json.loads(done.stdout.splitlines()[-1])}


def measure(peer: Peer, workload: Workload, budget: float) -> Row:
    """Return the compiler's plan, the growth of the peak in a call and its seconds; or why there are none."""
    if reason := absent(peer, workload):
        return {"absent": reason}
    program = peer.make(workload, draw(workload))
    size = growth(peer, program)
    samples = timing.interleave({peer.name: program.call}, budget)[peer.name]
    array = workload.time * workload.batch * workload.hidden * jnp.dtype(workload.dtype).itemsize
    planned = program.temporary_bytes
    return {
        "temporary_bytes": planned,
        "arrays": None if planned is None else planned / array,
        "process_bytes": size,
        "process_arrays": size / array,
        "seconds": timing.spread(samples),
        "compile_seconds": program.compile_seconds,
    }


def growth(peer: Peer, program: Program) -> int:
    """Return the bytes by which a call raises the peak: the median of a few, each watched by itself."""
    _give_back_from(AT_ONCE)
    program.call()
    sizes = []
    for _ in range(CALLS):
        grown = watch(peer)
        program.call()
        sizes.append(grown())
    _give_back_from(AS_USUAL)
    return int(statistics.median(sizes))


def _give_back_from(size: int) -> None:
    """Tell glibc from which size on freed memory goes back to the system; what it would keep hides the next call's."""
    ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, size)


def watch(peer: Peer) -> Grown:
    """Watch the memory in which the peer computes: the GPU's where there is one, or the process's."""
    if jax.default_backend() == "cpu":
        return watch_process()
    return watch_torch() if peer.package == "torch" else watch_device()


def watch_process() -> Grown:
    """Watch the resident memory of this process (Linux): give back what is free, and start its peak over."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    return lambda: resident("VmHWM") - before


def resident(field: str) -> int:
    """Read the bytes of a field of /proc/self/status: VmRSS, resident now, or VmHWM, its peak."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def watch_device() -> Grown:
    """Watch what JAX has on its device. This peak cannot be started over: it takes in what compiling tried out."""
    device = jax.devices()[0]
    before = device.memory_stats()["bytes_in_use"]
    return lambda: device.memory_stats()["peak_bytes_in_use"] - before


def watch_torch() -> Grown:
    """Watch what torch has on its device."""
    import torch

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    return lambda: torch.cuda.max_memory_allocated() - before


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    subject = choose((asked["name"],), SUBJECTS)[0]
    print(json.dumps(measure(subject, Workload(**asked["workload"]), asked["budget"])))
