"""Metrics: accuracy, F1 per intent, a majority baseline, and the detection of out-of-scope texts."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class IntentScores:
    """The metrics of one intent, its number of examples, and the intent it is most often confused with."""

    label: str
    precision: float
    recall: float
    f1: float
    count: int
    most_confused_with: str


@dataclasses.dataclass(frozen=True)
class Scores:
    """Accuracy, the mean F1 over the intents that occur, and the metrics of each intent, in ascending order of F1."""

    accuracy: float
    macro_f1: float
    rows: tuple[IntentScores, ...]


def score(labels: Sequence[str], predictions: Sequence[str]) -> Scores:
    """Compare predictions with labels, at least one."""
    pairs = collections.Counter(zip(labels, predictions, strict=True))
    label_counts, prediction_counts = collections.Counter(labels), collections.Counter(predictions)
    rows = []
    for label, count in label_counts.items():
        correct = pairs[label, label]
        wrong = [(n, prediction) for (truth, prediction), n in pairs.items() if truth == label != prediction]
        precision, recall = correct / max(prediction_counts[label], 1), correct / count
        f1 = 2 * correct / (prediction_counts[label] + count)
        rows.append(IntentScores(label, precision, recall, f1, count, max(wrong, default=(0, ""))[1]))
    rows.sort(key=lambda row: (row.f1, row.label))
    accuracy = sum(pairs[label, label] for label in label_counts) / len(labels)
    return Scores(accuracy, float(np.mean([row.f1 for row in rows])), tuple(rows))


def majority(train: Sequence[str], labels: Sequence[str]) -> float:
    """Return the accuracy of always predicting the most frequent label of train."""
    prediction = collections.Counter(train).most_common(1)[0][0]
    return sum(label == prediction for label in labels) / len(labels)


def out_of_scope_metrics(
    in_scope: np.ndarray, out_of_scope: np.ndarray, rejected_in_scope: np.ndarray, rejected_out_of_scope: np.ndarray
) -> dict[str, float]:
    """Return how well the uncertainty separates texts in scope from those out of scope, in percent.

    Args:
        in_scope: (n,), the uncertainty of texts with an intent.
        out_of_scope: (m,), the uncertainty of texts without one.
        rejected_in_scope: (n,), which texts with an intent are rejected.
        rejected_out_of_scope: (m,), which texts without one are rejected.

    Returns:
        AUROC; the share of texts out of scope that are accepted where 95 % in scope are (`fpr_at_95`); the share of
        texts out of scope that are rejected (`oos_recall`); the share of texts in scope that are (`false_rejection`).
    """
    return {
        "auroc": 100 * auroc(-in_scope, -out_of_scope),
        "fpr_at_95": 100 * float((out_of_scope <= np.quantile(in_scope, 0.95)).mean()),
        "oos_recall": 100 * float(rejected_out_of_scope.mean()),
        "false_rejection": 100 * float(rejected_in_scope.mean()),
    }


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the area under the ROC curve: how often a positive has a higher score than a negative."""
    order = np.sort(negative)
    below, up_to = np.searchsorted(order, positive, "left"), np.searchsorted(order, positive, "right")
    return float((below + up_to).mean() / 2 / len(negative))
