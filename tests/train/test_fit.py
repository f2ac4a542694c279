"""The training loop: means, the best epoch, early stopping, the arrays of the caller, and imports."""

import dataclasses
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrnn.train import Batch, CrossEntropy, EarlyStopping, evaluation, fit
from jaxrnn.train._fit import means
from jaxrnn.train._progress import line

KEY = jax.random.key(0)


def loss(w, batch, key):
    return jnp.mean((batch - w) ** 2), {"largest": jnp.abs(w).max()}


def batches(epoch):
    return [np.full((4, 2), 1.0 + i, np.float32) for i in range(3)]


def train(**options):
    settings = {"optimizer": optax.sgd(0.1), "epochs": 3, "key": KEY, "progress": False, **options}
    return fit(loss, jnp.zeros(2), batches, **settings)


def test_fit_learns_and_returns_the_history():
    w = jnp.zeros(2)
    result = fit(loss, w, batches, optimizer=optax.sgd(0.1), epochs=30, key=KEY, clip=None, progress=False)
    np.testing.assert_allclose(result.params, 2.0, atol=0.2)
    assert w.tolist() == [0, 0]
    assert [record["epoch"] for record in result.history] == list(range(30))
    first = result.history[0]
    assert list(first) == ["epoch", "skipped", "train_loss", "train_grad_norm", "train_largest", "seconds"]
    assert int(result.state.step) == 90
    np.testing.assert_array_equal(result.params, result.state.params)


def test_means_are_weighted_and_exclude_skipped_batches():
    reports = [
        {"loss": 1.0, "skipped": 0, "weight": 3.0},
        {"loss": 5.0, "skipped": 0, "weight": 1.0},
        {"loss": np.nan, "skipped": 1, "weight": 9.0},
    ]
    assert means(reports) == {"skipped": 1, "train_loss": 2.0}
    assert np.isnan(means(reports[2:])["train_loss"])
    assert means([{"loss": 1.0, "skipped": 0}, {"loss": 2.0, "skipped": 0}])["train_loss"] == 1.5


def scored(scores):
    """Return an `evaluate` that returns the scores one by one, and the list of params that it was called with."""
    seen = []

    def evaluate(params):
        seen.append(np.asarray(params).copy())
        return {"score": scores[len(seen) - 1]}

    return evaluate, seen


@pytest.mark.parametrize(("mode", "best"), [("min", 1), ("max", 2)])
def test_the_best_params_are_returned(mode, best):
    evaluate, seen = scored([3.0, 1.0, 4.0])
    result = train(evaluate=evaluate, early_stopping=EarlyStopping("score", mode))
    np.testing.assert_array_equal(result.params, seen[best])
    assert [record["score"] for record in result.history] == [3.0, 1.0, 4.0]


def test_patience_ends_training_and_nan_is_never_best():
    evaluate, seen = scored([np.nan, 1.0, np.nan, 2.0, 0.0])
    result = train(evaluate=evaluate, early_stopping=EarlyStopping("score", patience=2), epochs=5)
    assert len(result.history) == 4
    np.testing.assert_array_equal(result.params, seen[1])
    evaluate, _ = scored([np.nan] * 5)
    assert len(train(evaluate=evaluate, early_stopping=EarlyStopping("score", patience=2), epochs=5).history) == 2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"early_stopping": EarlyStopping(patience=2)}, "pass evaluate"),
        ({"evaluate": lambda p: {"score": 1.0}}, "without metric='loss' of EarlyStopping"),
        ({"evaluate": lambda p: {"loss": 1.0, "seconds": 1.0}}, r"\['seconds'\]"),
        ({"evaluate": lambda p: {"loss": 1.0, "train_loss": 1.0}}, r"\['train_loss'\]"),
    ],
)
def test_arguments_that_do_not_fit_raise(options, match):
    with pytest.raises(ValueError, match=match):
        train(**options)


@pytest.mark.parametrize(
    ("options", "match"), [({"mode": "least"}, "mode must be"), ({"patience": 0}, "patience must be")]
)
def test_early_stopping_checks_its_fields(options, match):
    with pytest.raises(ValueError, match=match):
        EarlyStopping(**options)


def test_exhausted_batches_raise():
    once = iter(batches(0))
    with pytest.raises(ValueError, match=r"batches\(1\) returned no batch"):
        fit(loss, jnp.zeros(2), lambda epoch: once, optimizer=optax.sgd(0.1), epochs=2, key=KEY, progress=False)


def test_skipped_steps_are_in_the_history():
    def some(epoch):
        return [np.ones((4, 2), np.float32), np.full((4, 2), np.nan, np.float32)]

    result = fit(loss, jnp.zeros(2), some, optimizer=optax.sgd(0.1), epochs=2, key=KEY, progress=False)
    assert [record["skipped"] for record in result.history] == [1, 1]
    assert all(np.isfinite(record["train_loss"]) for record in result.history)
    assert int(result.state.skipped) == 2


def test_evaluation_is_the_weighted_mean_without_noise():
    def noisy(w, batch, key):
        assert key is None
        return jnp.mean(batch), {"weight": jnp.array(batch.size)}

    evaluate = evaluation(noisy, lambda: [np.zeros((1, 2), np.float32), np.ones((3, 2), np.float32)])
    assert evaluate(jnp.zeros(2)) == {"loss": 0.75}
    with pytest.raises(ValueError, match="needs a batch"):
        evaluation(noisy, list)(jnp.zeros(2))


@dataclasses.dataclass(frozen=True)
class Fixed:
    """A model whose logits are its params."""

    def __call__(self, params, ids, lengths, *, key):
        return params


def test_cross_entropy_counts_valid_rows_and_steps():
    logits = jax.random.normal(KEY, (3, 2, 4))
    labels = np.array([[0, 1], [2, 3], [0, 0]])
    weights = np.array([1, 0], np.float32)
    batch = Batch(None, np.array([2, 0], np.int32), labels, weights, None)
    one = batch._replace(labels=labels[0])

    @jax.jit
    def run(logits):
        loss = CrossEntropy(Fixed())
        unweighted = one._replace(weights=0 * weights)
        return loss(logits, batch, None), loss(logits[0], one, None), loss(logits[0], unweighted, None)

    with jax.numpy_dtype_promotion("strict"):
        (steps, metrics), (rows, row_metrics), (zero, _) = run(logits)
    logs = np.asarray(logits) - np.log(np.exp(np.asarray(logits)).sum(-1, keepdims=True))
    np.testing.assert_allclose(steps, -logs[:2, 0][np.arange(2), labels[:2, 0]].mean(), rtol=1e-5)
    np.testing.assert_allclose(rows, -logs[0, 0, 0], rtol=1e-5)
    assert float(metrics["weight"]) == 2
    assert float(row_metrics["accuracy"]) == float(logs[0, 0].argmax() == 0)
    assert float(zero) == 0
    with pytest.raises(ValueError, match="need labels"):
        CrossEntropy(Fixed())(logits, one, None)
    with pytest.raises(ValueError, match="has none"):
        CrossEntropy(Fixed())(logits, batch._replace(labels=None), None)


def test_without_a_terminal_each_epoch_prints_a_line(capsys):
    train(progress=True, epochs=10, evaluate=lambda p: {"loss": 1 / 3, "accuracy": 0.5})
    lines = capsys.readouterr().err.splitlines()
    assert [line[:12] for line in lines] == [f"epoch {epoch:2d}/10 " for epoch in range(1, 11)]
    assert all("valid_loss 0.3333  valid_accuracy 0.5000" in line and "skipped" not in line for line in lines)
    train(progress=None)
    assert capsys.readouterr().err == ""


def test_in_a_terminal_the_bar_shows_the_time_left_and_no_line_wraps(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    train(progress=None, epochs=3, evaluate=lambda p: {"loss": 1.0, "accuracy": 0.5})
    written = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", capsys.readouterr().err)
    shown = [part for line in written.splitlines() for part in line.split("\r")]
    assert sum("valid_accuracy 0.5000" in part for part in shown) == 3
    assert any(" left" in part for part in shown)
    assert max(map(len, shown)) <= 80


def test_a_line_holds_as_many_metrics_as_fit():
    record = {"epoch": 11, "skipped": 2, "train_loss": 4.17912, "train_grad_norm": 0.3, "train_accuracy": 1e-5}
    record |= {"loss": 1.026, "accuracy": float("nan"), "bleu": 1234.5, "seconds": 12.34}
    assert line(record, 16, 999) == (
        "epoch 12/16  skipped 2  train_loss 4.1791  valid_loss 1.0260  valid_accuracy nan  valid_bleu 1.23e+03"
        "  train_accuracy 1e-05  train_grad_norm 0.3000  12.3 s"
    )
    assert max(len(line(record, 16, width)) for width in range(70, 101)) <= 100
    assert all(len(line(record, 16, width)) <= width for width in range(40, 101))


def test_early_stopping_of_an_empty_history():
    assert EarlyStopping(patience=3).best([]) is None
    assert not EarlyStopping(patience=3).should_stop([])


def test_importing_needs_neither_rich_nor_orbax():
    code = (
        "import sys, jaxrnn.train; assert not {'rich', 'orbax', 'orbax.checkpoint', 'tensorstore'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
