"""One configuration on every data set of a folder, beside a linear SVM fitted in the same run."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table
from tyro.conf import arg

from . import bundle, data, scores
from .baseline import linear_svm
from .calibration import calibration_error
from .classifier import Classifier, Config
from .data import Corpus
from .errors import UserError
from .terminal import console, printable
from .train import Recipe, train

Row = dict[str, Any]
ANSWERED = 200  # texts for the latency


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Train on each data set of a folder with the same configuration, and test beside a linear SVM."""

    data: Annotated[
        Path, arg(help="a folder of folders, each a data set as train --data takes it; others are named and skipped")
    ]
    seeds: Annotated[int, arg(help="how many times to train on each")] = 1
    json: Annotated[Path, arg(help="the file to write the results to")] = Path("runs/benchmark.json")
    progress: Annotated[bool, arg(help="show the progress of the trainings")] = True
    config: tyro.conf.OmitArgPrefixes[Config] = Config()
    recipe: tyro.conf.OmitArgPrefixes[Recipe] = Recipe()

    def __call__(self) -> None:
        """Do it; the file is written after each data set."""
        if not self.data.is_dir():
            raise UserError(f"{self.data}: no folder. --data takes a folder of data sets")
        if self.seeds < 1:
            raise UserError(f"--seeds is a number of trainings, 1 or more; got {self.seeds}")
        rows: list[Row] = []
        for folder in sorted(path for path in self.data.iterdir() if path.is_dir()):
            try:
                corpus = data.load(folder)
            except UserError as reason:
                console.print(f"passed over: {printable(str(reason))}")
                continue
            rows.append(self._row(folder.name, corpus))
            console.print(_table(rows[-1:]))
            self.json.parent.mkdir(parents=True, exist_ok=True)
            self.json.write_text(json.dumps(rows, indent=1) + "\n")
        if not rows:
            raise UserError(f"{self.data}: holds no data set. Each is {data.UNDERSTOOD}")
        console.print(_table(rows))
        console.print(f"results  {self.json}")

    def _row(self, name: str, corpus: Corpus) -> Row:
        """Train so many times; give means, and the spread of the accuracy."""
        runs = [self._run(corpus, seed) for seed in range(self.seeds)]
        mean = {key: statistics.fmean(run[key] for run in runs) for key in runs[0]}
        labels = [[e.label for e in part] for part in (corpus.train, corpus.test)]
        return {
            "dataset": name,
            "train": len(corpus.train),
            "test": len(corpus.test),
            "intents": len(corpus.labels),
            "seeds": self.seeds,
            "accuracy_std": statistics.stdev(run["accuracy"] for run in runs) if self.seeds > 1 else 0.0,
            "svm_accuracy": 100 * linear_svm(corpus),
            "majority_accuracy": 100 * scores.majority(*labels),
            **mean,
            "model_bytes": int(mean["model_bytes"]),
        }

    def _run(self, corpus: Corpus, seed: int) -> Row:
        """Train once, and test."""
        began = time.perf_counter()
        classifier, _ = train(corpus, self.config, self.recipe, seed=seed, progress=self.progress)
        seconds = time.perf_counter() - began
        return {**tested(classifier, corpus), "train_seconds": seconds}


def tested(classifier: Classifier, corpus: Corpus) -> Row:
    """Test: accuracy, macro F1 and calibration error in percent, the size of the weights, the median latency."""
    from .report import Report  # with matplotlib, which other commands need not wait for

    found = Report.of(classifier, corpus)
    return {
        "accuracy": 100 * found.scores.accuracy,
        "macro_f1": 100 * found.scores.macro_f1,
        "ece": 100 * calibration_error(found.bins),
        "model_bytes": len(bundle.weights(classifier)),
        "latency_ms": 1e3 * latency(classifier, [example.text for example in corpus.test[:ANSWERED]]),
        **(found.detection or {}),
        **({} if found.slot_f1 is None else {"slot_f1": 100 * found.slot_f1}),
    }


def latency(classifier: Classifier, texts: Sequence[str]) -> float:
    """Give the median seconds of one text at a time, from the text to its probabilities, after a warm-up."""
    seconds = []
    for warm in (True, False):
        for text in texts:
            began = time.perf_counter()
            classifier.probabilities([text])
            if not warm:
                seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _table(rows: list[Row]) -> Table:
    """A line for each data set."""
    heads = ("data set", "accuracy", "SVM", "majority", "macro F1", "ECE", "training s", "model MB", "latency ms")
    table = Table(*heads, box=None, header_style="bold")
    for row in rows:
        table.add_row(
            printable(row["dataset"]),
            f"{row['accuracy']:.2f} ± {row['accuracy_std']:.2f}",
            *(f"{row[key]:.2f}" for key in ("svm_accuracy", "majority_accuracy", "macro_f1", "ece")),
            f"{row['train_seconds']:.0f}",
            f"{row['model_bytes'] / 1e6:.1f}",
            f"{row['latency_ms']:.2f}",
        )
    return table
