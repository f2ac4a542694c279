"""Calibration and the answer none: what is fitted, and the measures."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from examples.intent import scores
from examples.intent.calibration import Calibration, calibration_error, doubt, reliability


def drawn(temperature, count=20_000, intents=5):
    """Logits, and intents drawn from what they say at this temperature."""
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((count, intents))
    chances = Calibration(temperature).probabilities(logits)
    return logits, (chances.cumsum(axis=-1) > rng.random((count, 1))).argmax(axis=-1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_is_found_and_calibrates(temperature):
    logits, answers = drawn(temperature)
    fitted = Calibration.fit(logits, answers, 0.05)
    assert abs(fitted.temperature / temperature - 1) < 0.05
    probabilities = fitted.probabilities(logits)
    right = probabilities.argmax(axis=-1) == answers
    assert calibration_error(reliability(probabilities.max(axis=-1), right)) < 0.01
    assert fitted.unknown(logits).mean() == pytest.approx(0.05, abs=1e-3)
    assert not Calibration().unknown(logits).any()


def test_calibration_error_by_hand():
    confidence, right = np.array([0.95, 0.95, 0.55, 1.0]), np.array([1, 0, 1, 1])
    bins = reliability(confidence, right, bins=10)
    assert [b.count for b in bins] == [1, 3]
    assert calibration_error(bins) == pytest.approx((1 * 0.45 + 3 * abs(2.9 / 3 - 2 / 3)) / 4)


def test_detection_is_sklearns_auroc_and_the_thresholds_shares():
    rng = np.random.default_rng(0)
    inside, outside = np.round(rng.normal(0, 1, 500), 1), np.round(rng.normal(2, 1, 300), 1)
    found = scores.detection(inside, outside, 0.5)
    truth = np.r_[np.ones(500), np.zeros(300)]
    assert found["auroc"] == pytest.approx(100 * roc_auc_score(truth, -np.r_[inside, outside]))
    assert found["oos_recall"] == pytest.approx(100 * (outside > 0.5).mean())
    assert found["false_rejection"] == pytest.approx(100 * (inside > 0.5).mean())
    assert scores.detection(inside, outside, None)["oos_recall"] == 0


def test_doubt_counts_intents():
    logits = np.array([[0.0, 0.0, 0.0, 0.0], [5.0, 5.0, -1e4, -1e4], [1e4, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(doubt(logits), [4, 2, 1])
