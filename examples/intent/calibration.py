"""How far a probability can be trusted, and when the answer is none. n texts, K intents."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from .errors import UserError

BINS = 15

SURE = 0.95
"""The probability from which on an intent is named, however few texts are to be turned away."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What is fitted on validation texts, after training. Its methods take arrays of NumPy and of JAX.

    Args:
        temperature: what logits are divided by before they become probabilities.
        threshold: of the doubt about a text, above which the answer is none; None knows no doubt.

    Reference: Guo et al., "On calibration of modern neural networks", 2017, section 4.2
    (https://arxiv.org/abs/1706.04599).
    """

    temperature: float = 1.0
    threshold: float | None = None

    @classmethod
    def fit(cls, logits: np.ndarray, answers: np.ndarray, rejects: float) -> Calibration:
        """Fit both to logits (n, K) of texts whose intents are `answers` (n,).

        The temperature is the likeliest for these texts and one more that any intent would fit, without which it would
        be 0 where all answers are right (Platt, 1999, does so). The threshold turns away the share `rejects`, or fewer
        where that would turn away texts with a probability of 95 % or more.

        Raises:
            UserError: for logits that are not finite, and where none of the texts has a known word.
        """
        from scipy.optimize import minimize_scalar  # takes a quarter of a second, which predictions need not wait

        if not np.isfinite(logits).all():
            raise UserError("the logits of the validation texts are not finite: the training diverged")
        heard = favours(logits)
        if not heard.any():
            raise UserError("no validation text has a word that train has: there is nothing to calibrate on")
        logits, answers = logits[heard], answers[heard]
        rows = np.arange(len(answers))

        def surprise(log_temperature: float) -> float:
            logs = log_softmax(logits / np.exp(log_temperature))
            return -float(logs[rows, answers].sum() + logs.mean())

        temperature = float(np.exp(minimize_scalar(surprise, bounds=(-3, 3), method="bounded").x))
        others = logits.shape[1] - 1
        least = doubt(np.array([SURE, *[(1 - SURE) / others] * others]))
        quantile = np.quantile(doubt(cls(temperature).probabilities(logits)), 1 - rejects)
        return cls(temperature, float(max(least, quantile)))

    def probabilities(self, logits: Any) -> Any:
        """Return (n, K)."""
        powers = logits.__array_namespace__().exp((logits - logits.max(axis=-1, keepdims=True)) / self.temperature)
        return powers / powers.sum(axis=-1, keepdims=True)

    def unknown(self, logits: Any) -> Any:
        """Return whether each text is answered by none, (n,): no word is known, or the doubt is above the threshold."""
        threshold = np.inf if self.threshold is None else self.threshold
        return ~(favours(logits) & (doubt(self.probabilities(logits)) <= threshold))


def doubt(probabilities: Any) -> Any:
    """Return over how many intents the probabilities (n, K) of each text spread, (n,), 1 to K.

    (sum_k sqrt(p_k))^2, the Hill number of order 1/2 (Hill, 1973). On CLINC150's validation queries that told what is
    out of scope better than the calibrated entropy and the greatest probability.
    """
    return (probabilities**0.5).sum(axis=-1) ** 2


def favours(logits: Any) -> Any:
    """Return whether the logits (n, K) favour any intent, (n,): they are all equal where no word of a text is known."""
    return logits.max(axis=-1) != logits.min(axis=-1)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log softmax over the last axis."""
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
