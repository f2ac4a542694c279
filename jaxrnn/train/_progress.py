"""Progress of training: one line per epoch, and in a terminal a progress bar of rich with the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import jax

from .._core.extras import extra

Record: TypeAlias = Mapping[str, Any]
"""The record of an epoch by name: ints and floats, as in the history of `fit`."""

INTERVAL_SECONDS = 0.5  # between two reads of the loss, each of which waits for the device
MAX_WIDTH = 100  # of a line, in characters
NOT_METRICS = ("epoch", "seconds", "skipped")


class Silent(AbstractContextManager["Silent"]):
    """A progress display that shows nothing, and the interface of the others."""

    def __exit__(self, *error: object) -> None:
        """End the display."""

    def start_epoch(self, epoch: int) -> None:
        """Start an epoch."""

    def advance(self, metrics: Mapping[str, jax.Array]) -> None:
        """Count a batch."""

    def finish_epoch(self, record: Record) -> None:
        """Show the record of a finished epoch."""


class Lines(Silent):
    """A progress display of one line per epoch on standard error, for a file or a pipe."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs

    def finish_epoch(self, record: Record) -> None:
        """Print the line of the epoch."""
        print(line(record, self._epochs), file=sys.stderr, flush=True)


class Bar(Silent):
    """A progress bar over all epochs, with the time left and the loss, and one line per finished epoch."""

    def __init__(self, epochs: int) -> None:
        with extra("train"):
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._progress = Progress(*columns, TextColumn("{task.fields[loss]}"), console=self._console, transient=True)
        self._epochs = epochs
        self._task = self._progress.add_task("", total=None, left="", loss="")
        self._batches = 0
        self._last_read = 0.0

    def __enter__(self) -> Bar:
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the bar."""
        self._progress.stop()

    def start_epoch(self, epoch: int) -> None:
        """Start an epoch."""
        self._batches = 0
        self._progress.update(self._task, description=f"epoch {epoch + 1}/{self._epochs}")

    def advance(self, metrics: Mapping[str, jax.Array]) -> None:
        """Count a batch, and show its loss if `INTERVAL_SECONDS` have passed."""
        self._batches += 1
        self._progress.advance(self._task)
        if time.monotonic() - self._last_read > INTERVAL_SECONDS:
            self._progress.update(self._task, loss=f"train_loss {float(metrics['loss']):.4g}")
            self._last_read = time.monotonic()

    def finish_epoch(self, record: Record) -> None:
        """Print the line of the epoch. The time left assumes as many batches in every epoch."""
        done, total = record["epoch"] + 1, self._epochs * self._batches
        if self._progress.tasks[self._task].total is None:
            self._progress.reset(self._task, total=total)  # the first epoch includes compilation
        self._progress.update(self._task, total=total, completed=done * self._batches, left="left")
        text = line(record, self._epochs, min(MAX_WIDTH, self._console.width - 1))
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def line(record: Record, epochs: int, width: int = MAX_WIDTH) -> str:
    """Return the record of an epoch as one line of at most `width` characters, with as many metrics as fit.

    Means over training are named `train_...`, metrics of `evaluate` `valid_...`. The losses come first.

    >>> line({"epoch": 1, "skipped": 0, "train_loss": 0.5, "train_accuracy": 0.75, "loss": 0.625, "seconds": 2.0}, 9)
    'epoch 2/9  train_loss 0.5000  valid_loss 0.6250  train_accuracy 0.7500  2.0 s'
    """
    number = f"{record['epoch'] + 1:{len(str(epochs))}d}"
    skipped = f"  skipped {record['skipped']}" if record.get("skipped") else ""
    found, end = f"epoch {number}/{epochs}{skipped}", f"  {record['seconds']:.1f} s"
    metrics = [(_split(name), value) for name, value in record.items() if name not in NOT_METRICS]
    for (kind, name), value in sorted(metrics, key=lambda metric: _rank(*metric[0])):
        part = f"  {kind}_{name} {_number(value)}"
        found += part if len(found) + len(part) + len(end) <= width else ""
    return found + end


def _split(name: str) -> tuple[str, str]:
    """Return "train" or "valid", and the name of the metric without that prefix."""
    kind, _, rest = name.partition("_")
    return (kind, rest) if kind in ("train", "valid") and rest else ("valid", name)


def _rank(kind: str, name: str) -> int:
    """Return the rank of a metric in the line; those of the highest rank are omitted first."""
    return {"loss": 0, "grad_norm": 3}.get(name, 1 if kind == "valid" else 2)


def _number(value: float) -> str:
    """Format a number so that its width is nearly constant over epochs."""
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e3 or value == 0 else f"{value:.3g}"


def bar_for(progress: bool | None, epochs: int) -> Silent:
    """Return the progress display: silent for False, and for None if standard error is no terminal."""
    terminal = sys.stderr.isatty()
    if progress is False or (progress is None and not terminal):
        return Silent()
    return Bar(epochs) if terminal else Lines(epochs)
