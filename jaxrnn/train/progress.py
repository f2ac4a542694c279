"""A progress bar, by rich, where somebody looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from ..extras import extra

SECONDS = 0.5  # between two looks at the loss, which waits for the device


class Silent(AbstractContextManager["Silent"]):
    """Nobody looks."""

    def __exit__(self, *error: object) -> None:
        """Nothing to close."""

    def epoch(self, epoch: int) -> None:
        """Begin an epoch."""

    def advance(self, metrics: Mapping[str, Any]) -> None:
        """Count a batch."""

    def note(self, record: Mapping[str, Any]) -> None:
        """End an epoch."""


class Bar(AbstractContextManager["Bar"]):
    """A line of rich: the epoch, its batches, the loss; a line stays for every epoch."""

    def __init__(self, epochs: int) -> None:
        with extra("train"):
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True)
        text = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self._progress = Progress(*text, TextColumn("{task.fields[loss]}"), console=self._console, transient=True)
        self._epochs = epochs
        self._task = self._progress.add_task("", total=None, loss="")
        self._batches = 0
        self._total: int | None = None
        self._looked = 0.0

    def __enter__(self) -> Bar:
        """Show it."""
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Take it away."""
        self._progress.stop()

    def epoch(self, epoch: int) -> None:
        """Begin an epoch, expected to be as long as the one before."""
        self._batches = 0
        self._progress.reset(self._task, total=self._total, description=f"epoch {epoch + 1}/{self._epochs}")

    def advance(self, metrics: Mapping[str, Any]) -> None:
        """Count a batch; look at its loss now and then."""
        self._batches += 1
        self._progress.advance(self._task)
        if time.monotonic() - self._looked > SECONDS:
            self._progress.update(self._task, loss=f"loss {float(metrics['loss']):.4g}")
            self._looked = time.monotonic()

    def note(self, record: Mapping[str, Any]) -> None:
        """End an epoch: print what it gave."""
        self._total = self._batches
        scores = [f"{name} {value:.4g}" for name, value in record.items() if name != "epoch"]
        self._console.print(f"epoch {record['epoch'] + 1}/{self._epochs}:", ", ".join(scores), highlight=False)


def bar_for(progress: bool | None, epochs: int) -> Bar | Silent:
    """Give a bar for True, none for False; None asks whether standard error is a terminal."""
    shown = sys.stderr.isatty() if progress is None else progress
    return Bar(epochs) if shown else Silent()
