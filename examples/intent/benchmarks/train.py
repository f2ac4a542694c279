"""The command `train`: the intent model of `examples/intent`, training and latency next to other libraries."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import record
from examples.intent.classifier import Config
from examples.intent.data import BUNDLED
from examples.intent.train import Recipe

from . import latency, throughput
from .task import Task

Row = dict[str, Any]
console = Console(highlight=False, soft_wrap=True)
METHOD = (
    "train: passes over the same padded numpy batches of one shuffled epoch, in turn in one process (A B A B), "
    "every turn after a pass that is not timed; making "
    "the batches is left out for all, moving them to the device is not; samples are the rows that count; ratio is "
    "jaxrnn's samples/s over this one's, round by round; median and quartiles; error: of the logits of a ragged batch, "
    "from float64; loss: the mean of the last pass. latency: one utterance at a time, from encoded ids to the "
    "probabilities on the host, in turn utterance by utterance; error: of the probabilities, from float64."
)


ONCE = "timed once: too slow for the budget"


@dataclasses.dataclass(frozen=True)
class Train:
    """Measure training and latency of the intent model in jaxrnn, torch, flax and onnxruntime; check each first.

    Args:
        data: the corpus, as the example's --data takes it; by default the bundled one.
        budget: seconds of timing the training, without compilation and warm-up.
        batches: of an epoch that a pass goes through at most.
        utterances: of the test that are answered at most, one at a time.
        json: the result file; by default `train.json` in the folder of this hardware.
        config: the sizes of the model, and its noise.
        recipe: how it is trained, here without an adversary: a step is one pass, as the other libraries' is.
    """

    data: pathlib.Path = BUNDLED
    budget: float = 20.0
    batches: int = 40
    utterances: int = 200
    json: pathlib.Path | None = None
    config: Config = Config()
    recipe: Recipe = Recipe(adversarial_norm=0)

    def __call__(self) -> None:
        """Measure, print two tables, write the file."""
        task = Task.of(self.data, self.config, self.recipe, self.batches, self.utterances)
        about = self._about(task)
        console.print(", ".join(f"{key} {value}" for key, value in about.items()), markup=False)
        trained = throughput.measure(task, self.budget)
        _show(training(trained), trained)
        for library, row in throughput.fastest(trained).items():
            if library != throughput.BASE:
                console.print(f"jaxrnn over the fastest of {library}, {row['name']}: {row['ratio']['median']:.2f}")
        answered = latency.measure(task)
        _show(answering(answered), answered)
        path = record.write("train", [*trained, *answered], self.json, **about, method=METHOD)
        console.print(f"results  {path}", markup=False)

    def _about(self, task: Task) -> Row:
        """Describe the task."""
        return {
            "data": "the bundled corpus" if self.data == BUNDLED else str(self.data),
            "vocabulary": task.vocabulary,
            "labels": task.model.outputs,
            "batches": len(task.batches),
            "samples": task.samples,
            "batch_size": self.recipe.batch_size,
            "lengths": sorted({len(batch.ids) for batch in task.batches}),
            "utterances": len(task.utterances),
        }


def training(rows: list[Row]) -> Table:
    """A line for each implementation, the fastest first."""
    heads = ("training", "samples/s", "ms a step", "jaxrnn over it", "compile s", "error", "loss")
    table = Table(*heads, box=None)
    for row in sorted(timed(rows), key=lambda row: row["step_seconds"]["median"]):
        rate, ratio, compiling = row["samples_per_second"], row["ratio"], row["compile_seconds"]
        table.add_row(
            row["name"],
            f"{rate['median']:,.0f} ({rate['low']:,.0f} to {rate['high']:,.0f})",
            f"{1e3 * row['step_seconds']['median']:.1f}",
            ONCE if ratio is None else f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})",
            "" if compiling is None else f"{compiling:.1f}",
            f"{row['error']:.0e}",
            f"{row['loss']:.3f}",
        )
    return table


def answering(rows: list[Row]) -> Table:
    """A line for each implementation, the fastest first."""
    table = Table("one utterance", "median ms", "99th percentile", "error", box=None)
    for row in sorted(timed(rows), key=lambda row: row["median_ms"]):
        table.add_row(row["name"], f"{row['median_ms']:.3f}", f"{row['p99_ms']:.3f}", f"{row['error']:.0e}")
    return table


def timed(rows: list[Row]) -> list[Row]:
    """Return the rows that hold figures."""
    return [row for row in rows if "absent" not in row]


def _show(table: Table, rows: list[Row]) -> None:
    """Print a table, and what is absent from it."""
    console.print(table)
    if absent := [f"{row['name']} ({row['absent']})" for row in rows if "absent" in row]:
        console.print(f"absent: {', '.join(absent)}", markup=False)
