"""Scores: what share is right, F1 an intent, and what the rarest answer would be worth."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Row:
    """How one intent fares: precision, recall, F1, how many there are, and what it is most often taken for."""

    label: str
    precision: float
    recall: float
    f1: float
    count: int
    mistaken: str


@dataclasses.dataclass(frozen=True)
class Scores:
    """What share is right, the mean F1 over the intents that occur, and a row for each, the worst first."""

    accuracy: float
    macro_f1: float
    rows: tuple[Row, ...]


def score(labels: Sequence[str], answers: Sequence[str]) -> Scores:
    """Compare answers with labels, one or more."""
    pairs = collections.Counter(zip(labels, answers, strict=True))
    asked, given = collections.Counter(labels), collections.Counter(answers)
    rows = []
    for label, count in asked.items():
        right = pairs[label, label]
        wrong = [(n, answer) for (truth, answer), n in pairs.items() if truth == label != answer]
        precision, recall = right / max(given[label], 1), right / count
        f1 = 2 * right / (given[label] + count)
        rows.append(Row(label, precision, recall, f1, count, max(wrong, default=(0, ""))[1]))
    rows.sort(key=lambda row: (row.f1, row.label))
    accuracy = sum(pairs[label, label] for label in asked) / len(labels)
    return Scores(accuracy, float(np.mean([row.f1 for row in rows])), tuple(rows))


def majority(train: Sequence[str], labels: Sequence[str]) -> float:
    """Give the accuracy of always answering the most frequent label of train."""
    answer = collections.Counter(train).most_common(1)[0][0]
    return sum(label == answer for label in labels) / len(labels)


def detection(
    inside: np.ndarray, outside: np.ndarray, none_inside: np.ndarray, none_outside: np.ndarray
) -> dict[str, float]:
    """Return how well doubt tells texts without an intent from those with one, in percent.

    Args:
        inside: doubt about texts with an intent, (n,).
        outside: doubt about texts without one, (m,).
        none_inside: which of the former are answered by none, (n,).
        none_outside: which of the latter are, (m,).

    Returns:
        AUROC; the share of texts without an intent taken for known where 95 % of the others are; the share of them
        answered by none, and that of the others.
    """
    return {
        "auroc": 100 * separation(-inside, -outside),
        "fpr_at_95": 100 * float((outside <= np.quantile(inside, 0.95)).mean()),
        "oos_recall": 100 * float(none_outside.mean()),
        "false_rejection": 100 * float(none_inside.mean()),
    }


def separation(inside: np.ndarray, outside: np.ndarray) -> float:
    """Give the area under the ROC curve: how often a text with an intent gets a higher score than one without."""
    order = np.sort(outside)
    below, upto = np.searchsorted(order, inside, "left"), np.searchsorted(order, inside, "right")
    return float((below + upto).mean() / 2 / len(outside))
