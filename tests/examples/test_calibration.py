"""Calibration and rejection: the fitted values, and the metrics."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from examples.intent import scores
from examples.intent.calibration import (
    CONFIDENT,
    Calibration,
    calibration_error,
    has_evidence,
    reliability,
    uncertainty,
)
from examples.intent.errors import UserError


def draw(temperature, count=20_000, intents=5):
    """Return random logits, and labels drawn from their softmax at a temperature."""
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((count, intents))
    probabilities = Calibration(temperature).probabilities(logits)
    return logits, (probabilities.cumsum(axis=-1) > rng.random((count, 1))).argmax(axis=-1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_fit_recovers_the_temperature_and_calibrates(temperature):
    logits, labels = draw(temperature)
    fitted = Calibration.fit(logits, labels, 0.05)
    assert abs(fitted.temperature / temperature - 1) < 0.05
    probabilities = fitted.probabilities(logits)
    correct = probabilities.argmax(axis=-1) == labels
    assert calibration_error(reliability(probabilities.max(axis=-1), correct)) < 0.01
    assert fitted.rejects(logits).mean() == pytest.approx(0.05, abs=1e-3)
    assert not Calibration().rejects(logits).any()


def test_calibration_error_of_an_example():
    confidence, correct = np.array([0.95, 0.95, 0.55, 1.0]), np.array([1, 0, 1, 1])
    bins = reliability(confidence, correct, bins=10)
    assert [b.count for b in bins] == [1, 3]
    assert calibration_error(bins) == pytest.approx((1 * 0.45 + 3 * abs(2.9 / 3 - 2 / 3)) / 4)


def test_out_of_scope_metrics_equal_those_of_sklearn():
    rng = np.random.default_rng(0)
    inside, outside = np.round(rng.normal(0, 1, 500), 1), np.round(rng.normal(2, 1, 300), 1)
    found = scores.out_of_scope_metrics(inside, outside, inside > 0.5, outside > 0.5)
    truth = np.r_[np.ones(500), np.zeros(300)]
    assert found["auroc"] == pytest.approx(100 * roc_auc_score(truth, -np.r_[inside, outside]))
    assert found["oos_recall"] == pytest.approx(100 * (outside > 0.5).mean())
    assert found["false_rejection"] == pytest.approx(100 * (inside > 0.5).mean())


def test_uncertainty_is_an_effective_number_of_intents():
    probabilities = np.array([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0], [1, 0, 0, 0], [0.64, 0.36, 0, 0]])
    np.testing.assert_allclose(uncertainty(probabilities), [4, 2, 1, 1.4**2])


def confident(count, intents=5):
    """Return confident and correct logits, and their labels."""
    labels = np.arange(count) % intents
    return (40 * np.eye(intents)[labels]).astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_rejection_does_not_depend_on_the_scale_of_logits(temperature):
    logits, labels = draw(temperature, 2000)
    fitted = Calibration.fit(logits, labels, 0.3)
    same = Calibration.fit(7 * logits, labels, 0.3)
    np.testing.assert_array_equal(fitted.rejects(logits), same.rejects(7 * logits))
    assert same.threshold == pytest.approx(fitted.threshold, rel=1e-3)
    maximum = fitted.probabilities(logits).max(axis=-1)
    assert maximum[fitted.rejects(logits)].max() < CONFIDENT


@pytest.mark.parametrize("count", [1, 3, 40, 4000])
@pytest.mark.parametrize("intents", [2, 5])
def test_if_every_prediction_is_right_probabilities_stay_below_1_and_confident_texts_are_accepted(count, intents):
    logits, labels = confident(count, intents)
    fitted = Calibration.fit(logits, labels, 0.5)
    maximum = fitted.probabilities(logits).max(axis=-1)
    assert np.all((maximum > count / (count + 1)) & (maximum < (count + 1) / (count + 1.1)))
    assert not fitted.rejects(logits)[maximum >= CONFIDENT].any()
    assert fitted.threshold < intents


def test_a_text_without_a_known_word_is_rejected_at_any_threshold():
    unknown = np.zeros((2, 3), np.float32)
    logits = np.concatenate([unknown, [[9, 0, 0]]]).astype(np.float32)
    for calibration in (Calibration(), Calibration(threshold=100), Calibration(threshold=3)):
        assert calibration.rejects(logits).tolist() == [True, True, False]
        assert calibration.rejects(jnp.array(logits)).tolist() == [True, True, False]
    assert not has_evidence(unknown).any()
    assert Calibration().rejects(np.full((1, 3), np.nan)).all()
    logits, labels = draw(1.0, 50)
    more = np.concatenate([logits, np.zeros((500, 5))]), np.concatenate([labels, np.zeros(500, int)])
    assert Calibration.fit(*more, 0.1) == Calibration.fit(logits, labels, 0.1)


@pytest.mark.parametrize(
    ("logits", "message"),
    [(np.full((2, 3), np.nan), "not finite"), (np.zeros((2, 3)), "no validation text"), (np.zeros((0, 3)), "no vali")],
)
def test_fit_raises_for_invalid_logits(logits, message):
    with pytest.raises(UserError, match=message):
        Calibration.fit(logits, np.zeros(len(logits), int), 0.05)
