"""The benchmarks at sizes that fill an accelerator, a part a process: `python3 -m benchmarks.device peers`.

`benchmarks/device.sh` runs them all. Where JAX has no accelerator the sizes are tiny: a dry run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import jax

from . import record
from .compare import Peers
from .limit import Limit
from .long import Long
from .memory import Memory
from .scaling import Scaling
from .timing import keep_memory
from .workload import Workload

FLASHRNN = (1024, 16, 768, 768)
SHAPES = (FLASHRNN, (256, 256, 512, 512), (1024, 64, 256, 256), (128, 64, 512, 512))
LIBRARIES = ("flax nnx.RNN", "torch float32", "torch TF32", "torch bfloat16", "torch float16", "jax.experimental.rnn")
NAMES = ("naive lax.scan", "jaxrnn select", "jaxrnn Scan", "jaxrnn BPTT", *LIBRARIES)
DRIVERS = ("Scan()", "Scan(remat=Remat())", "BPTT()")
OWN = ("naive lax.scan", "jaxrnn Scan", "jaxrnn select")


def both(cell: str, shape: tuple[int, int, int, int], dtype: str = "float32", heads: int = 1) -> list[Workload]:
    """Forward, and forward and backward."""
    return [Workload(cell, *shape, gradient=gradient, dtype=dtype, heads=heads) for gradient in (False, True)]


def workloads() -> tuple[Workload, ...]:
    """Give what is measured, the most telling first: time may run out."""
    first = [w for cell in ("lstm", "gru") for dtype in ("float32", "bfloat16") for w in both(cell, FLASHRNN, dtype)]
    return (*first, *(w for shape in SHAPES[1:] for cell in ("lstm", "gru") for w in both(cell, shape)))


def peers() -> None:
    """Run `peers`."""
    Peers(workloads=workloads(), budget=1.0, names=NAMES)()


def scaling() -> None:
    """Run `scaling`."""
    times, batches, hiddens = (64, 512, 4096, 16384), (16, 256), (256, 1024)
    Scaling(names=OWN, times=times, batches=batches, hiddens=hiddens, loop=(), budget=0.5, limit=2.0)()


def memory() -> None:
    """Run `memory`."""
    time, batch, inputs, hidden = FLASHRNN
    Memory(("lstm",), (*DRIVERS, "torch float32"), time=time, batch=batch, inputs=inputs, hidden=hidden, budget=0.5)()


def limit() -> None:
    """Run `limit`: nothing of a narrower type than its workload."""
    chosen = tuple(w for shape in SHAPES[:2] for w in both("lstm", shape)) + tuple(both("lstm", FLASHRNN, "bfloat16"))
    Limit(workloads=chosen, names=("jaxrnn select", "torch TF32", "jax.experimental.rnn"), budget=0.5)()


def fused() -> None:
    """Run `fused`: one kernel for the time loop beside every other way, at FlashRNN's sizes, T from 64 to 16,384."""
    flash = [w for cell in ("lstm", "gru") for dtype in ("bfloat16", "float32") for w in both(cell, FLASHRNN, dtype)]
    heads = [w for n in (12, 48) for w in both("lstm", FLASHRNN, "bfloat16", n)]
    times = [w for time in (64, 16_384) for w in both("lstm", (time, *FLASHRNN[1:]), "bfloat16")]
    deepbench = [w for shape in ((25, 16, 512, 512), (150, 16, 256, 256)) for w in both("lstm", shape, "bfloat16")]
    names = ("naive lax.scan", "jaxrnn Fused", "jaxrnn Scan", "jaxrnn BPTT", *LIBRARIES)
    path = record.folder() / "fused.json"
    Peers(workloads=(*flash, *heads, *times, *deepbench), budget=0.5, rounds=10, names=names, json=path)()


def graphs() -> None:
    """Run `graphs`: loops over FlashRNN's size, for which device.sh asks XLA to put whole loops into CUDA graphs."""
    chosen = tuple(w for cell in ("lstm", "gru") for w in both(cell, FLASHRNN, "bfloat16"))
    names = ("naive lax.scan", "jaxrnn Scan", "jaxrnn BPTT")
    Peers(workloads=chosen, budget=0.5, rounds=10, names=names, json=record.folder() / "graphs.json")()


def long() -> None:
    """Run `long`: affine cells at Griffin's sizes, and Newton's method at those of DEER.

    Few, since XLA compiles for minutes: 28 programs of such lengths were not compiled in 70 s by 16 cores.
    """
    newton = {"units": (1, 16), "batches": (1,), "times": (1000, 10_000)}
    Long(cells=("rg_lru",), shapes=((1024, 8, 1536), (8192, 8, 1536)), **newton, error_times=(1000,), budget=0.3)()


TINY = (4, 2, 3, 5)
PARTS: dict[str, Callable[[], None]] = {
    "peers": peers,
    "scaling": scaling,
    "memory": memory,
    "limit": limit,
    "long": long,
    "fused": fused,
    "graphs": graphs,
}
DRY: dict[str, Callable[[], None]] = {
    "peers": lambda: Peers(workloads=tuple(both("lstm", TINY)), budget=0.01, names=("jaxrnn select", "torch"))(),
    "scaling": lambda: Scaling(names=OWN, times=(2, 4), batches=(1,), hiddens=(2,), loop=(), budget=0.01)(),
    "memory": lambda: Memory(("lstm",), ("BPTT()",), time=4, batch=2, inputs=3, hidden=5, budget=0.01)(),
    "limit": lambda: Limit(workloads=tuple(both("lstm", TINY)), names=("jaxrnn select",), budget=0.01)(),
    "fused": lambda: Peers(
        workloads=tuple(both("lstm", TINY)),
        budget=0.01,
        names=("jaxrnn Fused", "jaxrnn BPTT"),
        json=record.folder() / "fused.json",
    )(),
    "graphs": lambda: Peers(
        workloads=tuple(both("gru", TINY)),
        budget=0.01,
        names=("jaxrnn BPTT",),
        json=record.folder() / "graphs.json",
    )(),
    "long": lambda: Long(cells=("lru",), shapes=((8, 1, 4),), units=(2,), times=(8,), error_times=(8,), budget=0.01)(),
}
"""What runs on an accelerator, and what runs without one."""


def main(part: str) -> None:
    """Run one part."""
    if part not in PARTS:
        raise SystemExit(f"a part is one of {', '.join(PARTS)}; got {part!r}")
    keep_memory()
    (DRY if jax.default_backend() == "cpu" else PARTS)[part]()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
