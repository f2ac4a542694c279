"""How long one utterance takes: one after the other, by one implementation after the other."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any, NamedTuple

import numpy as np

from benchmarks import timing

from .task import Answer, Task

Row = dict[str, Any]
FAR = 1e-3  # an error in a probability that no rounding explains


class Entry(NamedTuple):
    """An implementation.

    Attributes:
        name: as tables show it.
        packages: what must be importable.
        module: of this folder, whose `answering(task)` gives an `Answer`.
    """

    name: str
    packages: tuple[str, ...]
    module: str


ENTRIES = (
    Entry("jaxrnn", ("jaxrnn",), ".ours"),
    Entry("torch", ("torch",), ".torch"),
    Entry("onnxruntime", ("onnxruntime", "onnx"), ".onnx"),
)


def measure(task: Task) -> list[Row]:
    """Return a row for each: the median and the 99th percentile in milliseconds, and the error."""
    rows, answers = [], {}
    for entry in ENTRIES:
        row: Row = {"part": "latency", "name": entry.name}
        rows.append(row)
        if missing := [package for package in entry.packages if importlib.util.find_spec(package) is None]:
            row["absent"] = f"{' and '.join(missing)} is not installed"
            continue
        answer = importlib.import_module(entry.module, __package__).answering(task)
        row["error"] = error(task, answer)
        if not row["error"] < FAR:
            raise ValueError(f"{entry.name} is off by {row['error']:.1e}: it computes something else")
        answers[entry.name] = answer
    samples = in_turn(task, answers)
    for row in rows:
        if row["name"] in samples:
            low, median, high, late = 1e3 * np.quantile(samples[row["name"]], [0.25, 0.5, 0.75, 0.99])
            row |= {"median_ms": float(median), "low_ms": float(low), "high_ms": float(high), "p99_ms": float(late)}
    return rows


def error(task: Task, answer: Answer) -> float:
    """Answer every utterance, which compiles what needs compiling; give the largest difference from float64."""
    logits = task.reference(task.side_by_side)
    truth = np.exp(logits - logits.max(axis=1, keepdims=True))
    truth /= truth.sum(axis=1, keepdims=True)
    return float(np.abs(np.stack([answer(ids) for ids in task.utterances]) - truth).max())


def in_turn(task: Task, answers: dict[str, Answer]) -> dict[str, list[float]]:
    """Return the seconds of every utterance, one implementation after the other.

    They are not mixed: the threads of onnxruntime and torch spin on when they are done, and would slow the next one,
    which first answers for a moment that is not timed.
    """
    samples = {}
    for name, answer in answers.items():
        calls = [functools.partial(answer, ids) for ids in task.utterances]
        timing.settle(calls[0])
        samples[name] = [timing.seconds(call) for call in calls]
    return samples
