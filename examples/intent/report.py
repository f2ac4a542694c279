"""What an evaluation leaves behind: `report.json`, a confusion matrix, a reliability diagram, learning curves."""

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
from .calibration import Bin, calibration_error, doubt, reliability
from .classifier import Classifier
from .data import Corpus
from .lettering import legible, lettered
from .slots import gathered, span_f1
from .terminal import short

MOST_CONFUSED = 24  # intents that a matrix has room for


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A text that was answered wrongly."""

    text: str
    label: str
    answer: str
    probability: float


@dataclasses.dataclass(frozen=True)
class Report:
    """A classifier on a test split.

    Args:
        scores: accuracy, macro F1, a row an intent.
        bins: of the reliability diagram.
        mistakes: the wrong answers, the surest first.
        detection: how queries out of scope are told apart, where there are some.
        pairs: how often an intent (the first) was taken for another (the second).
        none: the share of texts answered by none; all other scores are of the likeliest intent, whatever the answer.
        accuracy_of_named: of the other texts; None where there are none.
        slot_f1: over the spans of all slots, where slots were learned.
    """

    scores: scores.Scores
    bins: list[Bin]
    mistakes: list[Mistake]
    detection: dict[str, float] | None
    pairs: Counter[tuple[str, str]]
    none: float = 0.0
    accuracy_of_named: float | None = None
    slot_f1: float | None = None

    @classmethod
    def of(cls, classifier: Classifier, corpus: Corpus) -> Report:
        """Answer the test split, and the queries out of scope where there are some."""
        texts, labels = zip(*((e.text, e.label) for e in corpus.test), strict=True)
        logits, tags = classifier.hear([classifier.encode(text) for text in texts])
        probabilities = classifier.calibration.probabilities(logits)
        answers, sure = [classifier.labels[i] for i in probabilities.argmax(axis=-1)], probabilities.max(axis=-1)
        wrong = [
            Mistake(text, label, answer, round(float(p), 4))
            for text, label, answer, p in zip(texts, labels, answers, sure, strict=True)
            if label != answer
        ]
        right, detection = np.array(labels) == np.array(answers), None
        none = classifier.calibration.unknown(logits)
        if corpus.outside:
            outside = classifier.logits([e.text for e in corpus.outside])
            doubts = doubt(probabilities), doubt(classifier.calibration.probabilities(outside))
            detection = scores.detection(*doubts, none, classifier.calibration.unknown(outside))
        return cls(
            scores.score(labels, answers),
            reliability(sure, right),
            sorted(wrong, key=lambda mistake: -mistake.probability),
            detection,
            Counter((mistake.label, mistake.answer) for mistake in wrong),
            float(none.mean()),
            float(np.mean(right[~none])) if not none.all() else None,
            _slot_f1(corpus, tags) if classifier.tagger else None,
        )

    def save(self, folder: Path, about: dict[str, Any]) -> None:
        """Write `report.json` and the pictures; `about` is how the classifier was trained."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "accuracy": self.scores.accuracy,
            "macro_f1": self.scores.macro_f1,
            "expected_calibration_error": calibration_error(self.bins),
            "answered_by_none": self.none,
            "accuracy_of_named": self.accuracy_of_named,
            "out_of_scope": self.detection,
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


def confused(report: Report, most: int = MOST_CONFUSED) -> list[str]:
    """Choose the intents that are most often taken for one another, each beside those that it is taken for."""
    times: Counter[str] = Counter()
    for pair, count in report.pairs.items():
        times.update(dict.fromkeys(pair, count))
    chosen = sorted(label for label, _ in times.most_common(most))
    both = lambda a, b: report.pairs[a, b] + report.pairs[b, a]
    order = chosen[:1]
    while left := [label for label in chosen if label not in order]:
        order.append(max(left, key=lambda label: (both(order[-1], label), times[label])))
    return order


def _slot_f1(corpus: Corpus, tags: list[list[str]]) -> float | None:
    """Score the slots, where the test split says what they are."""
    if not all(example.tags for example in corpus.test):
        return None
    found = [gathered(example.text, row) for example, row in zip(corpus.test, tags, strict=True)]
    return span_f1([example.tags for example in corpus.test], found)


def draw_confusion(report: Report, path: Path) -> None:
    """Draw the block of the confusion matrix where the mistakes are, as counts."""
    names = confused(report)
    family, shown = legible([short(name, 40) for name in names])
    right = {row.label: round(row.recall * row.count) for row in report.scores.rows}
    counts = np.array([[right.get(a, 0) if a == b else report.pairs[a, b] for b in names] for a in names])
    with lettered(family):
        size = 3.2 + 0.34 * max(len(names), 4)
        figure = Figure(figsize=(size, size), layout="constrained", dpi=130)
        axes = figure.subplots()
        wrong = np.where(np.eye(len(names), dtype=bool), 0, counts)
        if names:
            axes.imshow(wrong, cmap="Oranges", vmin=0, vmax=max(wrong.max(), 1))
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "#9aa5b1" if row == column else "#1f2933"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
        axes.set_xticks(range(len(names)), shown, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), shown, fontsize=8)
        axes.set(xlabel="answer", ylabel="intent")
        among = sum(report.pairs[a, b] for a in names for b in names)
        title = f"{among} of the {len(report.mistakes)} mistakes lie among these {len(names)} of {len(right)} intents"
        axes.set_title(title, fontsize=9)
        figure.savefig(path)


def draw_reliability(bins: Sequence[Bin], path: Path) -> None:
    """Draw accuracy over probability; a calibrated classifier lies on the diagonal."""
    figure = Figure(figsize=(5.2, 5.6), layout="constrained", dpi=130)
    above, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    above.plot([0, 1], [0, 1], color="#9aa5b1", lw=1)
    above.plot([b.confidence for b in bins], [b.accuracy for b in bins], "o-", color="#2f5d8a")
    above.set(ylabel="share that is right", ylim=(0, 1.02))
    above.set_title(f"expected calibration error {calibration_error(list(bins)):.2%}", fontsize=10)
    below.bar([b.confidence for b in bins], [b.count for b in bins], 0.03, color="#d9822b")
    below.set(xlabel="probability of the answer", ylabel="answers", yscale="log")
    figure.savefig(path)


def draw_learning(history: Sequence[dict[str, float | None]], path: Path) -> None:
    """Draw losses and accuracies, an epoch a point."""
    figure = Figure(figsize=(8, 3.6), layout="constrained", dpi=130)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for prefix, label, colour in (("train_", "train, with its noise", "#d9822b"), ("", "valid", "#2f5d8a")):
            values = np.array([record[prefix + name] for record in history if prefix + name in record], float)
            axes.plot(range(1, len(values) + 1), values, "o-", ms=3, label=label, color=colour)
        axes.set(xlabel="epoch", ylabel=name)
        axes.legend(frameon=False)
    figure.savefig(path)
