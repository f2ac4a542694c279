"""The benchmarks at sizes that fill an accelerator, a part a process: `python3 -m benchmarks.device peers`.

`benchmarks/device.sh` runs them all. Where JAX has no accelerator the sizes are tiny: a dry run. With a share,
`python3 -m benchmarks.device fused 3/6`, programs are only compiled, into JAX's cache, every sixth from the fourth on.
"""

from __future__ import annotations

import dataclasses
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
    """Return what is measured, the most important first, since time may run out."""
    first = [w for cell in ("lstm", "gru") for dtype in ("float32", "bfloat16") for w in both(cell, FLASHRNN, dtype)]
    return (*first, *(w for shape in SHAPES[1:] for cell in ("lstm", "gru") for w in both(cell, shape)))


def peers() -> Peers:
    """Every implementation."""
    return Peers(workloads=workloads(), budget=1.0, names=NAMES)


def scaling() -> Scaling:
    """How time grows with T, B and H."""
    times, batches, hiddens = (64, 512, 4096, 16384), (16, 256), (256, 1024)
    return Scaling(names=OWN, times=times, batches=batches, hiddens=hiddens, loop=(), budget=0.5, limit=2.0)


def memory() -> Memory:
    """Peak memory."""
    sizes = dict(zip(("time", "batch", "inputs", "hidden"), FLASHRNN, strict=True))
    return Memory(("lstm",), (*DRIVERS, "torch float32"), **sizes, budget=0.5)


def limit() -> Limit:
    """The lower bound, and implementations in a type at least as wide as that of the workload."""
    chosen = tuple(w for shape in SHAPES[:2] for w in both("lstm", shape)) + tuple(both("lstm", FLASHRNN, "bfloat16"))
    return Limit(workloads=chosen, names=("jaxrnn select", "torch TF32", "jax.experimental.rnn"), budget=0.5)


def fused() -> Peers:
    """One kernel for the time loop next to every other implementation, at FlashRNN's size."""
    flash = [w for cell in ("lstm", "gru") for dtype in ("bfloat16", "float32") for w in both(cell, FLASHRNN, dtype)]
    names = ("naive lax.scan", "jaxrnn Fused", "jaxrnn Scan", "jaxrnn BPTT", *LIBRARIES)
    return Peers(workloads=tuple(flash), budget=0.5, rounds=10, names=names, json=record.folder() / "fused.json")


def shapes() -> Peers:
    """`Fused` at FlashRNN's head dimensions from 16 to 256, DeepBench's sizes, T from 64 to 16,384."""
    heads = [w for n in (48, 24, 12, 6, 3) for w in both("lstm", FLASHRNN, "bfloat16", n)]
    times = [w for time in (64, 256, 4096, 16_384) for w in both("lstm", (time, *FLASHRNN[1:]), "bfloat16")]
    deepbench = ((25, 16, 512, 512), (25, 32, 1024, 1024), (150, 16, 256, 256), (187, 32, 1024, 1024))
    cells = ("lstm", "lstm", "lstm", "gru")
    others = [w for cell, shape in zip(cells, deepbench, strict=True) for w in both(cell, shape, "bfloat16")]
    names = ("jaxrnn Fused", "jaxrnn BPTT", "torch float16", "torch bfloat16")
    chosen = (*heads, *times, *others)
    return Peers(workloads=chosen, budget=0.3, rounds=10, names=names, json=record.folder() / "fused-shapes.json")


def bound() -> Limit:
    """The lower bound next to `Fused`."""
    cases = (("lstm", "bfloat16"), ("gru", "bfloat16"), ("lstm", "float32"))
    chosen = tuple(w for cell, dtype in cases for w in both(cell, FLASHRNN, dtype))
    return Limit(workloads=chosen, names=("jaxrnn Fused",), budget=0.3, json=record.folder() / "fused-bound.json")


def graphs() -> Peers:
    """Loops over FlashRNN's size, for which device.sh asks XLA to put whole loops into CUDA graphs."""
    chosen = tuple(w for cell in ("lstm", "gru") for w in both(cell, FLASHRNN, "bfloat16"))
    names = ("naive lax.scan", "jaxrnn Scan", "jaxrnn BPTT")
    return Peers(workloads=chosen, budget=0.5, rounds=10, names=names, json=record.folder() / "graphs.json")


def long() -> Long:
    """Affine cells at Griffin's sizes, and Newton's method at those of DEER.

    The list is short since XLA needs minutes to compile programs of such lengths.
    """
    newton = {"units": (1, 16), "batches": (1,), "times": (1000, 10_000)}
    return Long(cells=("rg_lru",), shapes=((1024, 8, 1536), (8192, 8, 1536)), **newton, error_times=(1000,), budget=0.3)


Command = Peers | Scaling | Memory | Limit | Long
PARTS: dict[str, Callable[[], Command]] = {
    part.__name__: part for part in (peers, scaling, memory, limit, long, fused, shapes, bound, graphs)
}


def tiny(command: Command) -> Command:
    """Return the command at tiny sizes for a dry run on a CPU; its figures mean nothing."""
    few = tuple(both("lstm", (4, 2, 3, 5)))
    match command:
        case Peers() | Limit():
            names = (*(name for name in command.names if name.startswith("jaxrnn")), "torch")
            return dataclasses.replace(command, workloads=few, budget=0.01, names=names)
        case Scaling():
            return dataclasses.replace(command, times=(2, 4), batches=(1,), hiddens=(2,), budget=0.01)
        case Memory():
            return Memory(("lstm",), ("BPTT()",), time=4, batch=2, inputs=3, hidden=5, budget=0.01)
    return Long(cells=("lru",), shapes=((8, 1, 4),), units=(2,), times=(8,), error_times=(8,), budget=0.01)


def main(part: str, share: str = "") -> None:
    """Run one part, or compile a share of its programs."""
    if part not in PARTS:
        raise SystemExit(f"a part is one of {', '.join(PARTS)}; got {part!r}")
    keep_memory()
    command = PARTS[part]()
    if jax.default_backend() == "cpu":
        command = tiny(command)
    if not share:
        command()
    elif isinstance(command, Peers):
        command.compile(*map(int, share.split("/")))
    else:
        raise SystemExit(f"only parts that time implementations are compiled ahead; got {part!r}")


if __name__ == "__main__":
    main(*sys.argv[1:] or [""])
