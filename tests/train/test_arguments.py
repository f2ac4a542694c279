"""Errors for invalid arguments: every message of jaxrnn.train contains what was given and what was needed."""

import os
import signal
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrnn
from jaxrnn.model import Embedding, SequenceModel
from jaxrnn.train import (
    Carried,
    Checkpoints,
    CrossEntropy,
    EarlyStopping,
    LengthGroups,
    epoch_batches,
    evaluation,
    fit,
    init,
    length_groups,
    make_step,
    streams,
    windows,
)

KEY, SGD, W = jax.random.key(0), optax.sgd(0.1), jnp.zeros(2)
GROUPS = LengthGroups((4,))
BATCH = np.ones((4, 2), np.float32)


def loss(w, batch, key):
    return jnp.mean((batch - w) ** 2), {}


def returns(*found):
    """Return a loss that returns values of wrong types."""
    return lambda w, batch, key: (jnp.mean(w * batch), *found) if found else jnp.mean(w * batch)


FIT = {
    "batches must be a function": {"batches": [BATCH]},
    "epochs must be an integer": {"epochs": 2.5},
    "epochs must be an integer of at least 0": {"epochs": -1},
    "key must be one random key.* got 0": {"key": 0},
    r"key must be one random key.* got key<fry>\[2\]": {"key": jax.random.split(KEY)},
    "optimizer must be .* got adam": {"optimizer": optax.adam},
    "optimizer must be .* got a str": {"optimizer": "adam"},
    "clip must be a number above 0": {"clip": 0.0},
    "clip must be a number above 0.* nan": {"clip": float("nan")},
    r"params\['a'\] is int32\[2\]": {"params": {"a": jnp.zeros(2, jnp.int32)}},
    r"params\['a'\] is a str": {"params": {"a": "x"}},
    "loss must be a function": {"loss": None},
    "a loss must return .*, {} for no metrics": {"loss": returns()},
    r"floating scalar.* float32\[4, 2\]": {"loss": lambda w, batch, key: (batch * w, {})},
    r"floating scalar.* int32\[\]": {"loss": lambda w, batch, key: (jnp.array(1), {})},
    "metrics of a loss must be a dict": {"loss": returns(None)},
    "scalars; a is a .*\\[2\\]": {"loss": returns({"a": jnp.ones(2)})},
    "scalars; a is a str": {"loss": returns({"a": "x"})},
    "weight must be at least 0.* -1": {"loss": returns({"weight": jnp.array(-1.0)})},
    "weight must be at least 0.* nan": {"loss": returns({"weight": jnp.array(jnp.nan)})},
    r"carry as it was given, float32\[2\]; got float32\[3\]": {
        "loss": Carried(lambda w, carry, batch, key: (jnp.zeros(3), w.mean(), {}), jnp.copy)
    },
    "a loss must return .carry, a scalar": {"loss": Carried(lambda w, carry, batch, key: (w.mean(), {}), jnp.copy)},
    "evaluate must be a function": {"evaluate": {"loss": 1.0}},
    "evaluate must return a dict": {"evaluate": lambda params: 1.0},
    "number for each name; loss is 'a'": {"evaluate": lambda params: {"loss": "a"}},
    "number for each name; loss is None": {"evaluate": lambda params: {"loss": None}},
    r"number for each name; loss is array\(\[1": {"evaluate": lambda params: {"loss": np.ones(2)}},
    "pass evaluate": {"early_stopping": EarlyStopping("accuracy")},
    "early_stopping must be": {"evaluate": lambda params: {"loss": 1.0}, "early_stopping": "loss"},
    r"checkpoints must be Checkpoints\(directory\)": {"checkpoints": "runs"},
}


@pytest.mark.parametrize("match", FIT)
def test_fit_raises(match):
    given = {"loss": loss, "params": W, "batches": lambda epoch: [BATCH], "optimizer": SGD, "epochs": 1, "key": KEY}
    given |= FIT[match]
    with pytest.raises((TypeError, ValueError), match=match):
        fit(given.pop("loss"), given.pop("params"), given.pop("batches"), progress=False, **given)


def rows(labels=None, **options):
    return epoch_batches([[1, 2], [3]], labels, **{"groups": GROUPS, "batch_size": 2, **options})


OTHERS = {
    "metric must be the name": lambda: EarlyStopping(3),
    "patience must be.* 1.5": lambda: EarlyStopping(patience=1.5),
    "batches must be a function without": lambda: evaluation(loss, [BATCH]),
    "loss must be a function": lambda: evaluation(None, list),
    "the TrainState that init returned": lambda: make_step(loss, SGD)(W, BATCH),
    "needs a Batch": lambda: CrossEntropy(None)(None, (BATCH, BATCH), None),
    "window must be an integer": lambda: windows(BATCH, 2.5),
    "lengths must be 2 integers": lambda: windows(BATCH, 2, [1.5, 1]),
    "batch >= 1; got .*, 0": lambda: streams(np.arange(4), 0),
    "batch >= 1; got .*, 2.0": lambda: streams(np.arange(4), 2.0),
    "streams needs tokens": lambda: streams("hello", 2),
    r"lengths must be integers.*\[2.5": lambda: length_groups([2.5]),
    r"lengths must be integers.*\[-1": lambda: length_groups([-1]),
    "groups=1.5": lambda: length_groups([1, 2], 1.5),
    "boundaries must be a tuple of integers": lambda: LengthGroups([4]),
    r"boundaries must be a tuple of integers.*\(4.5": lambda: LengthGroups((4.5,)),
    "lengths must be integers of at least 0": lambda: GROUPS.of([-3]),
    "groups must be LengthGroups": lambda: rows(groups=(4,)),
    "an integer batch_size": lambda: rows(batch_size=1.5),
    "rng must be a NumPy generator.* got 0": lambda: rows(rng=0),
    "share must be": lambda: rows(share=(2, 2)),
    "share must be .i, n": lambda: rows(share=(0, 0)),
    "directory must be a path": lambda: Checkpoints(None),
    "keep must be.*'3'": lambda: Checkpoints("x", keep="3"),
}


@pytest.mark.parametrize("match", OTHERS)
def test_other_functions_raise(match):
    with pytest.raises((TypeError, ValueError), match=match):
        OTHERS[match]()


def test_an_epoch_without_a_finite_loss_warns():
    bad = np.full((4, 2), np.nan, np.float32)
    with pytest.warns(RuntimeWarning, match="all 2 steps of epoch 1 were skipped"):
        result = fit(loss, W, lambda epoch: [bad, bad], optimizer=SGD, epochs=1, key=KEY, progress=False)
    assert result.params.tolist() == [0, 0]


@jax.jit
def cross_entropy(labels, weights):
    model = SequenceModel(Embedding(9, 2), jaxrnn.Elman(2), outputs=3)
    batch = next(rows([0, 1]))._replace(labels=labels, weights=weights)
    return CrossEntropy(model)(model.init(KEY), batch, None)


@pytest.mark.parametrize("label", [3, -1, -100])
def test_a_label_out_of_range_makes_the_loss_nan_unless_its_weight_is_zero(label):
    ones, first = np.ones(2, np.float32), np.array([1, 0], np.float32)
    labels = np.array([1, label], np.int32)
    assert np.isnan(cross_entropy(labels, ones)[0])
    expected = cross_entropy(np.array([1, 0], np.int32), first)
    np.testing.assert_array_equal(cross_entropy(labels, first)[0], expected[0])
    np.testing.assert_allclose(cross_entropy(np.array([1, 0], np.int32), first / 4)[0], expected[0], rtol=1e-6)


def test_labels_that_are_no_integers_raise():
    with pytest.raises(TypeError, match="labels must be integers, from 0 to 2"):
        cross_entropy(np.ones(2, np.float32), np.ones(2, np.float32))


def prepare_batches():
    """Prepare batches without a device, as a forked worker may."""
    assert sum(int(batch.ids.sum()) for batch in rows([0, 1], rng=np.random.default_rng(0))) == 6
    assert sum(float(window.xs.sum()) for window in windows(streams(np.arange(12), 2), 4)) == 66
    assert length_groups([3, 1, 4], 2).boundaries[-1] == 4


def test_a_forked_worker_prepares_batches_after_jax_is_initialized():
    init(W, SGD, KEY)  # starts JAX's threads, which the child does not have
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork", RuntimeWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(30)  # ends the child if it hangs
        try:
            prepare_batches()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
