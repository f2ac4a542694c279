"""The report of an evaluation: `report.json`, a confusion matrix, a reliability diagram, and learning curves."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from . import scores
from .calibration import Bin, calibration_error, reliability, uncertainty
from .classifier import Classifier
from .data import Corpus
from .fonts import escape_missing_glyphs, font_context
from .slots import span_f1, word_tags
from .terminal import truncate

MAX_MATRIX_INTENTS = 24


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A text with a wrong prediction."""

    text: str
    label: str
    prediction: str
    probability: float


@dataclasses.dataclass(frozen=True)
class Report:
    """The results of a classifier on a test split. Metrics are of the most probable intent, also for rejected texts.

    Args:
        scores: accuracy, macro F1, and the metrics of each intent.
        bins: the reliability diagram.
        mistakes: the wrong predictions, in descending order of probability.
        out_of_scope: the metrics of `scores.out_of_scope_metrics`; None if the corpus has no such texts.
        confusions: the number of wrong predictions for each pair (label, prediction).
        rejection_rate: the share of rejected texts.
        accuracy_of_accepted: the accuracy on the other texts; None if all are rejected.
        slot_f1: over the spans of all slots; None without slots.
    """

    scores: scores.Scores
    bins: list[Bin]
    mistakes: list[Mistake]
    out_of_scope: dict[str, float] | None
    confusions: Counter[tuple[str, str]]
    rejection_rate: float = 0.0
    accuracy_of_accepted: float | None = None
    slot_f1: float | None = None

    @classmethod
    def of(cls, classifier: Classifier, corpus: Corpus) -> Report:
        """Evaluate a classifier on the test split, and on out-of-scope texts if the corpus has any."""
        texts, labels = zip(*((e.text, e.label) for e in corpus.test), strict=True)
        logits, tags = classifier.forward([classifier.encode(text) for text in texts])
        calibration = classifier.calibration
        probabilities, rejected = calibration.probabilities(logits), calibration.rejects(logits)
        predictions = [classifier.labels[i] for i in probabilities.argmax(axis=-1)]
        confidence, correct = probabilities.max(axis=-1), np.array(labels) == np.array(predictions)
        mistakes = [
            Mistake(text, label, prediction, round(float(probability), 4))
            for text, label, prediction, probability in zip(texts, labels, predictions, confidence, strict=True)
            if label != prediction
        ]
        out_of_scope = None
        if corpus.out_of_scope:
            outside = classifier.logits([e.text for e in corpus.out_of_scope])
            uncertainties = uncertainty(probabilities), uncertainty(calibration.probabilities(outside))
            out_of_scope = scores.out_of_scope_metrics(*uncertainties, rejected, calibration.rejects(outside))
        return cls(
            scores.score(labels, predictions),
            reliability(confidence, correct),
            sorted(mistakes, key=lambda mistake: -mistake.probability),
            out_of_scope,
            Counter((mistake.label, mistake.prediction) for mistake in mistakes),
            float(rejected.mean()),
            float(np.mean(correct[~rejected])) if not rejected.all() else None,
            _slot_f1(corpus, tags) if classifier.tagger else None,
        )

    def save(self, folder: Path, about: dict[str, Any]) -> None:
        """Write `report.json` and the plots to a folder; `about` describes how the classifier was trained."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "accuracy": self.scores.accuracy,
            "macro_f1": self.scores.macro_f1,
            "expected_calibration_error": calibration_error(self.bins),
            "rejection_rate": self.rejection_rate,
            "accuracy_of_accepted": self.accuracy_of_accepted,
            "out_of_scope": self.out_of_scope,
            "slot_f1": self.slot_f1,
            "intents": [dataclasses.asdict(row) for row in self.scores.rows],
            "reliability": [b._asdict() for b in self.bins],
            "mistakes": [dataclasses.asdict(mistake) for mistake in self.mistakes],
            "about": about,
        }
        (folder / "report.json").write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        draw_confusion(self, folder / "confusion.png")
        draw_reliability(self.bins, folder / "reliability.png")
        if about.get("history"):
            draw_learning(about["history"], folder / "learning.png")


def most_confused(report: Report, count: int = MAX_MATRIX_INTENTS) -> list[str]:
    """Return the intents with the most confusions, ordered so that confused intents are adjacent."""
    totals: Counter[str] = Counter()
    for pair, number in report.confusions.items():
        totals.update(dict.fromkeys(pair, number))
    chosen = sorted(label for label, _ in totals.most_common(count))
    between = lambda a, b: report.confusions[a, b] + report.confusions[b, a]
    order = chosen[:1]
    while remaining := [label for label in chosen if label not in order]:
        order.append(max(remaining, key=lambda label: (between(order[-1], label), totals[label])))
    return order


def _slot_f1(corpus: Corpus, tags: list[list[str]]) -> float | None:
    """Return the F1 of the slots; None if the test split has no tags."""
    if not all(example.tags for example in corpus.test):
        return None
    found = [word_tags(example.text, row) for example, row in zip(corpus.test, tags, strict=True)]
    return span_f1([example.tags for example in corpus.test], found)


def draw_confusion(report: Report, path: Path) -> None:
    """Plot the confusion matrix of the most confused intents, as counts."""
    names, confusions = most_confused(report), report.confusions
    family, shown = escape_missing_glyphs([truncate(name, 40) for name in names])
    correct = {row.label: round(row.recall * row.count) for row in report.scores.rows}
    counts = np.array([[correct.get(a, 0) if a == b else confusions[a, b] for b in names] for a in names])
    with font_context(family):
        size = 3.2 + 0.34 * max(len(names), 4)
        figure = Figure(figsize=(size, size), layout="constrained", dpi=130)
        axes = figure.subplots()
        wrong = np.where(np.eye(len(names), dtype=bool), 0, counts)
        if names:
            axes.imshow(wrong, cmap="Oranges", vmin=0, vmax=max(wrong.max(), 1))
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "#9aa5b1" if row == column else "#1f2933"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=color)
        axes.set_xticks(range(len(names)), shown, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), shown, fontsize=8)
        axes.set(xlabel="prediction", ylabel="intent")
        drawn = sum(confusions[a, b] for a in names for b in names)
        title = f"{drawn} of {len(report.mistakes)} mistakes, {len(names)} of {len(correct)} intents"
        axes.set_title(title, fontsize=9)
        figure.savefig(path)


def draw_reliability(bins: Sequence[Bin], path: Path) -> None:
    """Plot accuracy over probability. A calibrated classifier lies on the diagonal."""
    figure = Figure(figsize=(5.2, 5.6), layout="constrained", dpi=130)
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    top.plot([0, 1], [0, 1], color="#9aa5b1", lw=1)
    top.plot([b.confidence for b in bins], [b.accuracy for b in bins], "o-", color="#2f5d8a")
    top.set(ylabel="accuracy", ylim=(0, 1.02))
    top.set_title(f"expected calibration error {calibration_error(list(bins)):.2%}", fontsize=10)
    bottom.bar([b.confidence for b in bins], [b.count for b in bins], 0.03, color="#d9822b")
    bottom.set(xlabel="predicted probability", ylabel="predictions", yscale="log")
    figure.savefig(path)


def draw_learning(history: Sequence[dict[str, float | None]], path: Path) -> None:
    """Plot losses and accuracies over epochs."""
    figure = Figure(figsize=(8, 3.6), layout="constrained", dpi=130)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for prefix, label, color in (("train_", "train, with dropout", "#d9822b"), ("", "valid", "#2f5d8a")):
            values = np.array([record[prefix + name] for record in history if prefix + name in record], float)
            axes.plot(range(1, len(values) + 1), values, "o-", ms=3, label=label, color=color)
        axes.set(xlabel="epoch", ylabel=name)
        axes.legend(frameon=False)
    figure.savefig(path)
