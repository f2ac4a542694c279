"""Progress of training: one line per epoch, and in a terminal a progress bar of rich with the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from .._core.extras import extra

SECONDS = 0.5  # between two readings of the loss, each of which waits for the device
WIDTH = 100  # the longest line
PLAIN = ("epoch", "seconds", "skipped")  # not metrics


class Silent(AbstractContextManager["Silent"]):
    """Shows nothing."""

    def __exit__(self, *error: object) -> None:
        """Exit without an effect."""

    def epoch(self, epoch: int) -> None:
        """Begin an epoch."""

    def advance(self, metrics: Mapping[str, Any]) -> None:
        """Count a batch."""

    def note(self, record: Mapping[str, Any]) -> None:
        """End an epoch."""


class Lines(Silent):
    """Prints a line an epoch to standard error, for a file or a pipe."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs

    def note(self, record: Mapping[str, Any]) -> None:
        """Print the epoch's line."""
        print(line(record, self._epochs), file=sys.stderr, flush=True)


class Bar(Silent):
    """A bar over all epochs, with the time left and the loss; a line stays for every epoch."""

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
        self._looked = 0.0

    def __enter__(self) -> Bar:
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the bar."""
        self._progress.stop()

    def epoch(self, epoch: int) -> None:
        """Begin an epoch."""
        self._batches = 0
        self._progress.update(self._task, description=f"epoch {epoch + 1}/{self._epochs}")

    def advance(self, metrics: Mapping[str, Any]) -> None:
        """Count a batch; read its loss now and then."""
        self._batches += 1
        self._progress.advance(self._task)
        if time.monotonic() - self._looked > SECONDS:
            self._progress.update(self._task, loss=f"train_loss {float(metrics['loss']):.4g}")
            self._looked = time.monotonic()

    def note(self, record: Mapping[str, Any]) -> None:
        """Print the epoch's line; every epoch is expected to have as many batches, so all that is left is known."""
        done, total = record["epoch"] + 1, self._epochs * self._batches
        if self._progress.tasks[self._task].total is None:
            self._progress.reset(self._task, total=total)  # the first epoch compiles
        self._progress.update(self._task, total=total, completed=done * self._batches, left="left")
        text = line(record, self._epochs, min(WIDTH, self._console.width - 1))
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def line(record: Mapping[str, Any], epochs: int, width: int = WIDTH) -> str:
    """Return an epoch's record as one line, without the metrics for which there is no room.

    The means over training come as `train_...`, what `evaluate` returned as `valid_...`; the losses stand first.

    >>> line({"epoch": 1, "skipped": 0, "train_loss": 0.5, "train_accuracy": 0.75, "loss": 0.625, "seconds": 2.0}, 9)
    'epoch 2/9  train_loss 0.5000  valid_loss 0.6250  train_accuracy 0.7500  2.0 s'
    """
    number = f"{record['epoch'] + 1:{len(str(epochs))}d}"
    skipped = f"  skipped {record['skipped']}" if record.get("skipped") else ""
    found, end = f"epoch {number}/{epochs}{skipped}", f"  {record['seconds']:.1f} s"
    metrics = [(_split(name), value) for name, value in record.items() if name not in PLAIN]
    for (kind, name), value in sorted(metrics, key=lambda metric: _rank(*metric[0])):
        part = f"  {kind}_{name} {_number(value)}"
        found += part if len(found) + len(part) + len(end) <= width else ""
    return found + end


def _split(name: str) -> tuple[str, str]:
    """Return whether a metric is of training or validation, and its own name."""
    kind, _, rest = name.partition("_")
    return (kind, rest) if kind in ("train", "valid") and rest else ("valid", name)


def _rank(kind: str, name: str) -> int:
    """Return how late a metric stands, so as to be left out first where there is no room."""
    return {"loss": 0, "grad_norm": 3}.get(name, 1 if kind == "valid" else 2)


def _number(value: float) -> str:
    """Write a number in a width that hardly changes from epoch to epoch."""
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e3 or value == 0 else f"{value:.3g}"


def bar_for(progress: bool | None, epochs: int) -> Silent:
    """Return what shows the progress: nothing for False, and for None unless standard error is a terminal."""
    terminal = sys.stderr.isatty()
    if progress is False or (progress is None and not terminal):
        return Silent()
    return Bar(epochs) if terminal else Lines(epochs)
