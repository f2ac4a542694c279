"""The command `benchmark`: one configuration on every data set of a folder, compared with a linear SVM."""

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
LATENCY_TEXTS = 200


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Train and test on each data set of a folder with the same configuration; fit a linear SVM for comparison."""

    data: Annotated[
        Path, arg(help="a folder of data sets, each a folder that train --data accepts; other folders are skipped")
    ]
    seeds: Annotated[int, arg(help="number of training runs per data set")] = 1
    json: Annotated[Path, arg(help="the file to write the results to")] = Path("runs/benchmark.json")
    progress: Annotated[bool, arg(help="show the progress of training")] = True
    config: tyro.conf.OmitArgPrefixes[Config] = Config()
    recipe: tyro.conf.OmitArgPrefixes[Recipe] = Recipe()

    def __call__(self) -> None:
        """Run the benchmark. The file is written after each data set."""
        if not self.data.is_dir():
            raise UserError(f"{self.data}: not a folder. --data takes a folder of data sets")
        if self.seeds < 1:
            raise UserError(f"--seeds must be 1 or more; got {self.seeds}")
        rows: list[Row] = []
        for folder in sorted(path for path in self.data.iterdir() if path.is_dir()):
            try:
                corpus = data.load(folder)
            except UserError as reason:
                console.print(f"skipped  {printable(str(reason))}")
                continue
            rows.append(self._row(folder.name, corpus))
            console.print(_table(rows[-1:]))
            self.json.parent.mkdir(parents=True, exist_ok=True)
            self.json.write_text(json.dumps(rows, indent=1) + "\n")
        if not rows:
            raise UserError(f"{self.data}: no data set found. A data set is {data.SUPPORTED}")
        console.print(_table(rows))
        console.print(f"results  {self.json}")

    def _row(self, name: str, corpus: Corpus) -> Row:
        """Train once per seed and return the means, and the standard deviation of the accuracy."""
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
        """Train and test once."""
        start = time.perf_counter()
        classifier, _ = train(corpus, self.config, self.recipe, seed=seed, progress=self.progress)
        seconds = time.perf_counter() - start
        return {**evaluate(classifier, corpus), "train_seconds": seconds}


def evaluate(classifier: Classifier, corpus: Corpus) -> Row:
    """Return accuracy, macro F1 and calibration error in percent, the size of the weights, and the median latency."""
    from .report import Report  # here, since it imports matplotlib

    report = Report.of(classifier, corpus)
    return {
        "accuracy": 100 * report.scores.accuracy,
        "macro_f1": 100 * report.scores.macro_f1,
        "ece": 100 * calibration_error(report.bins),
        "model_bytes": len(bundle.weights(classifier)),
        "latency_ms": 1e3 * latency(classifier, [example.text for example in corpus.test[:LATENCY_TEXTS]]),
        **(report.out_of_scope or {}),
        **({} if report.slot_f1 is None else {"slot_f1": 100 * report.slot_f1}),
    }


def latency(classifier: Classifier, texts: Sequence[str]) -> float:
    """Return the median seconds from one text to its probabilities, after a warm-up."""
    seconds = []
    for warm_up in (True, False):
        for text in texts:
            start = time.perf_counter()
            classifier.probabilities([text])
            if not warm_up:
                seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _table(rows: list[Row]) -> Table:
    """Return a table with one line per data set."""
    columns = ("data set", "accuracy", "SVM", "majority", "macro F1", "ECE", "training s", "model MB", "latency ms")
    table = Table(*columns, box=None, header_style="bold")
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
