"""One gradient in a separate process, for `memory`: its memory and its time, printed as a line of JSON.

python -m benchmarks.memory_probe '{"name": "BPTT()", "budget": 1.0, "workload": {"cell": "lstm", ...}}'
"""

from __future__ import annotations

import ctypes
import gc
import json
import pathlib
import statistics
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn import BPTT, Native, Remat, Scan

from . import timing
from .peers.own import Own
from .peers.peer import Peer, Program
from .peers.torch import Torch
from .workload import Workload, draw

CALLS = 5  # that are watched, after one that loads code and takes scratch
MMAP_THRESHOLD = -3  # glibc's M_MMAP_THRESHOLD
AT_ONCE, AS_USUAL = 2**18, 2**25  # bytes from which freed memory goes back at once: while watched; glibc's own most
Grown = Callable[[], int]
"""Returns the bytes by which the peak has passed what was in use at the start."""

SUBJECTS: tuple[Peer, ...] = (
    Own("Scan()", Scan()),
    Own("Scan(hoist=32)", Scan(hoist=32)),
    Own("Scan(hoist=512)", Scan(hoist=512)),
    Own("Scan(remat=Remat(1))", Scan(remat=Remat(1))),
    Own("Scan(remat=Remat(8))", Scan(remat=Remat(8))),
    Own("Scan(remat=Remat())", Scan(remat=Remat())),
    Own("BPTT(8)", BPTT(8)),
    Own("BPTT()", BPTT()),
    Own("BPTT(64)", BPTT(64)),
    Own("Native()", Native()),
    Own("BPTT(keep_gates=True)", BPTT(keep_gates=True)),
    Torch(),
    Torch("torch float32", "float32"),
)
"""What is measured, by name."""


def measure(peer: Peer, workload: Workload, budget: float) -> dict[str, Any]:
    """Return a row's figures: the compiler's plan, the growth of the peak in a call, its seconds; or what it lacks."""
    if reason := peer.lacks(workload, jax.default_backend()):
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
    return watch_torch() if isinstance(peer, Torch) else watch_device()


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


def main(given: str) -> None:
    """Measure what the JSON asks for."""
    asked = json.loads(given)
    peer = {peer.name: peer for peer in SUBJECTS}[asked["name"]]
    print(json.dumps(measure(peer, Workload(**asked["workload"]), asked["budget"])))


if __name__ == "__main__":
    main(sys.argv[1])
