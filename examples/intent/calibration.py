"""How far a probability can be trusted, and when the answer is none. n texts, K intents."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

BINS = 15


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What is fitted on validation texts, after training.

    Args:
        temperature: what logits are divided by before they become probabilities.
        threshold: of the doubt about a text, above which the answer is none; None never says none.

    Reference: Guo et al., "On calibration of modern neural networks", 2017, section 4.2
    (https://arxiv.org/abs/1706.04599).
    """

    temperature: float = 1.0
    threshold: float | None = None

    @classmethod
    def fit(cls, logits: np.ndarray, answers: np.ndarray, rejects: float) -> Calibration:
        """Fit both to logits (n, K) of texts whose intents are `answers` (n,); `rejects` is the share to turn away."""
        from scipy.optimize import minimize_scalar  # takes a quarter of a second, which predictions need not wait

        rows = np.arange(len(answers))

        def surprise(log_temperature: float) -> float:
            return -float(log_softmax(logits / np.exp(log_temperature))[rows, answers].mean())

        temperature = float(np.exp(minimize_scalar(surprise, bounds=(-3, 3), method="bounded").x))
        return cls(temperature, float(np.quantile(doubt(logits), 1 - rejects)))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Give (n, K)."""
        return np.exp(log_softmax(logits / self.temperature))

    def unknown(self, logits: np.ndarray) -> np.ndarray:
        """Say of each text whether it is answered by none, (n,)."""
        if self.threshold is None:
            return np.zeros(len(logits), bool)
        return doubt(logits) > self.threshold


def doubt(logits: np.ndarray) -> np.ndarray:
    """Give between how many intents each text is undecided, (n,), 1 to K: exp of the entropy of softmax(logits).

    On CLINC150's validation queries that tells what is out of scope better than the greatest probability, the free
    energy (Liu et al., 2020), the margin, and the distance to training texts in the space of the states.
    """
    logs = log_softmax(logits)
    return np.exp(-(np.exp(logs) * logs).sum(axis=-1))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Give log softmax over the last axis; SciPy's takes longer than the network where there is one text."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


class Bin(NamedTuple):
    """Answers of about the same probability: how many, their mean probability, and the share that is right."""

    count: int
    confidence: float
    accuracy: float


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> list[Bin]:
    """Sort answers by the probability they were given, (n,), into equal intervals of it; empty ones are left out."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    parts = [place == i for i in range(bins)]
    return [Bin(int(p.sum()), float(confidence[p].mean()), float(right[p].mean())) for p in parts if p.any()]


def calibration_error(bins: list[Bin]) -> float:
    """Give the expected calibration error: how far confidence is from accuracy, on average over answers."""
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / sum(b.count for b in bins)
