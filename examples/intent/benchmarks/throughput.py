"""How fast they train: passes over the same batches, the implementations in turn."""

from __future__ import annotations

import importlib
import importlib.util
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks import timing
from jaxrnn import BPTT, Scan

from . import ours
from .task import Learner, Task

Row = dict[str, Any]
BASE = "jaxrnn"
FAR = 1e-3  # an error in the logits that no rounding explains


class Entry(NamedTuple):
    """An implementation; its module is imported where its package is installed.

    Attributes:
        name: as tables show it.
        package: what must be importable.
        make: makes it ready.
        compiles: whether the first batch of every shape compiles.
    """

    name: str
    package: str
    make: Callable[[Task], Learner]
    compiles: bool = True


def of_torch(layer: str, threads: int | None = None) -> Callable[[Task], Learner]:
    """Build torch's learner around `Packed` or `Padded`; on a machine that others use, more threads may be slower."""

    def make(task: Task) -> Learner:
        module = importlib.import_module(".torch", __package__)
        return module.Learner(task, getattr(module, layer), threads)

    return make


ENTRIES = (
    Entry(BASE, "jaxrnn", lambda task: ours.Learner(task, None)),
    Entry("torch, packed", "torch", of_torch("Packed"), compiles=False),
    Entry("torch, padded", "torch", of_torch("Padded"), compiles=False),
    Entry("torch, packed, 1 thread", "torch", of_torch("Packed", 1), compiles=False),
    Entry("torch, padded, 1 thread", "torch", of_torch("Padded", 1), compiles=False),
    Entry("flax nnx", "flax", lambda task: importlib.import_module(".flax", __package__).Learner(task)),
    Entry("jaxrnn Scan", "jaxrnn", lambda task: ours.Learner(task, Scan())),
    Entry("jaxrnn BPTT", "jaxrnn", lambda task: ours.Learner(task, BPTT())),
)


def measure(task: Task, budget: float) -> list[Row]:
    """Return a row for each: samples/s, seconds a step, how often `BASE` is as fast, error, seconds to compile."""
    rows, passes = [], {}
    for entry in ENTRIES:
        row: Row = {"part": "train", "name": entry.name, "library": entry.package}
        rows.append(row)
        if importlib.util.find_spec(entry.package) is None:
            row["absent"] = f"{entry.package} is not installed"
            continue
        learner = entry.make(task)
        row["error"] = error(task, learner)
        if not row["error"] < FAR:
            raise ValueError(f"{entry.name} is off by {row['error']:.1e}: it computes something else")
        first = first_calls(task, learner)
        row["compile_seconds"] = first if entry.compiles else None
        passes[entry.name] = Pass(task, learner)
    samples = timing.interleave(passes, budget)
    for row in rows:
        if row["name"] in samples:
            row |= figures(task, samples[row["name"]], samples[BASE])
            row["loss"] = passes[row["name"]].loss
    return rows


class Pass:
    """A call that trains on every batch once; it keeps the mean loss of the last time."""

    loss = float("nan")

    def __init__(self, task: Task, learner: Learner) -> None:
        self._task, self._learner = task, learner

    def __call__(self) -> None:
        """Train on every batch."""
        losses = [self._learner.step(batch) for batch in self._task.batches]
        self._learner.wait()
        self.loss = statistics.fmean(map(float, losses))


def error(task: Task, learner: Learner) -> float:
    """Return the largest difference from float64 among the logits of a ragged batch, its empty rows left out."""
    batch = task.ragged
    counts = batch.weights > 0
    return float(np.abs(learner.logits(batch) - task.reference(batch))[counts].max())


def first_calls(task: Task, learner: Learner) -> float:
    """Return what the first step of every shape takes, all together."""
    shapes = {batch.ids.shape: batch for batch in task.batches}

    def once(batch: Any) -> None:
        learner.step(batch)
        learner.wait()

    return sum(timing.seconds(lambda batch=batch: once(batch)) for batch in shapes.values())


def figures(task: Task, seconds: list[float], base: list[float]) -> Row:
    """Return the figures of seconds a pass; no ratio where one was timed once and the other in rounds."""
    in_turn = len(seconds) == len(base)
    return {
        "samples_per_second": timing.spread([task.samples / s for s in seconds]),
        "step_seconds": timing.spread([s / len(task.batches) for s in seconds]),
        "ratio": timing.ratio(seconds, base) if in_turn else None,
    }


def fastest(rows: list[Row]) -> dict[str, Row]:
    """Return the row of each library that was timed in turn and is its fastest."""
    found: dict[str, Row] = {}
    for row in sorted((r for r in rows if r.get("ratio")), key=lambda r: r["ratio"]["median"], reverse=True):
        found[row["library"]] = row
    return found
