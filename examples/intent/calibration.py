"""Calibrated probabilities, and the rejection of uncertain texts. n texts, K intents."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from .errors import UserError

BINS = 15

CONFIDENT = 0.95
"""An intent of at least this probability is never rejected, whatever the rejection rate."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Temperature scaling and a rejection threshold, fitted on validation texts. Methods take NumPy and JAX arrays.

    Args:
        temperature: divides the logits before the softmax.
        threshold: maximum `uncertainty` of a text; above it the prediction is none. None rejects no text for that.

    Reference: Guo et al., "On calibration of modern neural networks", 2017, section 4.2
    (https://arxiv.org/abs/1706.04599).
    """

    temperature: float = 1.0
    threshold: float | None = None

    @classmethod
    def fit(cls, logits: np.ndarray, labels: np.ndarray, rejection_rate: float) -> Calibration:
        """Fit temperature and threshold to logits (n, K) of texts with labels (n,).

        The temperature maximizes the likelihood of these texts and of one more text whose intent is uniformly random.
        Without the latter it would be 0 when every prediction is right (Platt, 1999). The threshold rejects the share
        `rejection_rate` of the texts, or fewer: a text with a probability of 95 % or more is never rejected.

        Raises:
            UserError: if logits are not finite, or none of the texts has a known word.
        """
        from scipy.optimize import minimize_scalar  # here, since the import takes a quarter of a second

        if not np.isfinite(logits).all():
            raise UserError("the logits of the validation texts are not finite: the training diverged")
        known = has_evidence(logits)
        if not known.any():
            raise UserError("no validation text has a word that train has: there is nothing to calibrate on")
        logits, labels = logits[known], labels[known]
        rows = np.arange(len(labels))

        def negative_log_likelihood(log_temperature: float) -> float:
            log_probabilities = log_softmax(logits / np.exp(log_temperature))
            return -float(log_probabilities[rows, labels].sum() + log_probabilities.mean())

        temperature = float(np.exp(minimize_scalar(negative_log_likelihood, bounds=(-3, 3), method="bounded").x))
        others = logits.shape[1] - 1
        minimum = uncertainty(np.array([CONFIDENT, *[(1 - CONFIDENT) / others] * others]))
        quantile = np.quantile(uncertainty(cls(temperature).probabilities(logits)), 1 - rejection_rate)
        return cls(temperature, float(max(minimum, quantile)))

    def probabilities(self, logits: Any) -> Any:
        """Return calibrated probabilities (n, K) for logits (n, K)."""
        powers = logits.__array_namespace__().exp((logits - logits.max(axis=-1, keepdims=True)) / self.temperature)
        return powers / powers.sum(axis=-1, keepdims=True)

    def rejects(self, logits: Any) -> Any:
        """Return which texts are rejected, (n,): no word is known, or the uncertainty exceeds the threshold."""
        threshold = np.inf if self.threshold is None else self.threshold
        return ~(has_evidence(logits) & (uncertainty(self.probabilities(logits)) <= threshold))


def uncertainty(probabilities: Any) -> Any:
    """Return the effective number of intents, 1 to K, that the probabilities (n, K) of each text spread over: (n,).

    It is (sum_k sqrt(p_k))^2, the Hill number of order 1/2 (Hill, 1973). On the validation queries of CLINC150 it
    separated out-of-scope texts better than the calibrated entropy and the maximum probability.
    """
    return (probabilities**0.5).sum(axis=-1) ** 2


def has_evidence(logits: Any) -> Any:
    """Return which logits (n, K) prefer an intent, (n,). They are all equal for texts without a known word."""
    return logits.max(axis=-1) != logits.min(axis=-1)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the log softmax over the last axis."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


class Bin(NamedTuple):
    """Predictions of similar probability: how many, their mean probability, and their accuracy."""

    count: int
    confidence: float
    accuracy: float


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> list[Bin]:
    """Group predictions by their probability (n,) into equal intervals; empty intervals are omitted."""
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    members = [index == i for i in range(bins)]
    return [Bin(int(m.sum()), float(confidence[m].mean()), float(correct[m].mean())) for m in members if m.any()]


def calibration_error(bins: list[Bin]) -> float:
    """Return the expected calibration error: the mean distance between confidence and accuracy over predictions."""
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / sum(b.count for b in bins)
