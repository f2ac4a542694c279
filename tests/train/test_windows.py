"""Truncated back-propagation: the state is that of the whole sequence, the gradient stops at the window."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrnn import Elman
from jaxrnn.model import Embedding, SequenceModel, every
from jaxrnn.train import carried_cross_entropy, evaluation, fit, init, make_step, streams, windows

MODEL = SequenceModel(Embedding(5, 3), Elman(4), 5, every)
PARAMS = MODEL.init(jax.random.key(0))
IDS = np.random.default_rng(0).integers(0, 5, (7, 2))
LABELS = np.random.default_rng(1).integers(0, 5, (7, 2))
LOSS = carried_cross_entropy(MODEL, 2)


@jax.jit
def whole(params):
    return optax.softmax_cross_entropy_with_integer_labels(MODEL(params, IDS), LABELS).mean()


def test_windows_hold_every_step_once_in_one_shape():
    xs = {"a": np.arange(14).reshape(7, 2), "b": np.ones((7, 2, 3))}
    got = list(windows(xs, 3))
    assert [w.lengths.tolist() for w in got] == [[3, 3], [3, 3], [1, 1]]
    assert all(w.xs["a"].shape == (3, 2) and w.xs["b"].shape == (3, 2, 3) for w in got)
    np.testing.assert_array_equal(np.concatenate([w.xs["a"] for w in got])[:7], xs["a"])
    assert [w.resets.tolist() for w in got] == [[[True] * 2] + [[False] * 2] * 2] + [[[False] * 2] * 3] * 2


def test_windows_of_sequences_of_different_lengths():
    got = list(windows(np.ones((5, 3)), 2, lengths=[5, 3, 0]))
    assert [w.lengths.tolist() for w in got] == [[2, 2, 0], [2, 1, 0], [1, 0, 0]]
    assert sum(w.xs.sum() for w in got) == 8
    assert len(list(windows(np.ones((5, 3)), 9))) == 1


@pytest.mark.parametrize(
    ("xs", "window"), [(np.ones((4, 2)), 0), (np.ones(4), 2), ([np.ones((4, 2)), np.ones((3, 2))], 2)]
)
def test_invalid_windows_raise(xs, window):
    with pytest.raises(ValueError, match="windows needs"):
        windows(xs, window)
    with pytest.raises(ValueError, match="lengths must be"):
        windows(np.ones((4, 2)), 2, lengths=[5, 1])


def test_streams_split_a_text():
    assert streams(np.arange(7), 3).tolist() == [[0, 2, 4], [1, 3, 5]]
    with pytest.raises(ValueError, match="too few"):
        streams(np.arange(2), 3)


def test_a_window_of_the_whole_sequence_has_the_full_gradient():
    (window,) = windows((IDS, LABELS), 7)
    optimizer = optax.sgd(1.0)
    state = init(PARAMS, optimizer, jax.random.key(1), LOSS.initial(PARAMS))
    state, metrics = make_step(LOSS, optimizer, clip=None)(state, window)
    value, grads = jax.value_and_grad(whole)(PARAMS)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-6)
    want = jax.tree.map(jnp.subtract, PARAMS, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.params, want)


def test_carrying_the_state_gives_the_outputs_of_the_whole_run():
    full_state, full = MODEL.unroll(PARAMS, IDS)
    state, outputs = jax.tree.map(lambda s: s + 9.0, LOSS.initial(PARAMS)), []  # the first window resets it
    for window in windows(IDS, 3):
        state, logits = MODEL.unroll(PARAMS, window.xs, window.lengths, state=state, resets=window.resets)
        outputs.append(logits)
    np.testing.assert_allclose(jnp.concatenate(outputs)[:7], full, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state, full_state, rtol=1e-5, atol=1e-6)


def test_the_gradient_stops_at_the_window():
    first, second, _ = windows((IDS, LABELS), 3)

    @jax.jit
    def second_loss(params, earlier):
        carry, _, _ = LOSS.loss(earlier, LOSS.initial(earlier), first, None)
        return LOSS.loss(params, carry, second, None)[1]

    optimizer = optax.sgd(1.0)
    step = make_step(LOSS, optimizer, clip=None)
    state, _ = step(init(PARAMS, optimizer, jax.random.key(1), LOSS.initial(PARAMS)), first)
    state = state._replace(params=jax.tree.map(jnp.array, PARAMS))
    state, _ = step(state, second)
    grads = jax.grad(second_loss)(PARAMS, PARAMS)
    want = jax.tree.map(jnp.subtract, PARAMS, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.params, want)


def test_fit_accepts_windows_and_evaluation_equals_that_of_the_whole_sequence():
    evaluate = evaluation(LOSS, lambda: windows((IDS, LABELS), 3))
    np.testing.assert_allclose(evaluate(PARAMS)["loss"], whole(PARAMS), rtol=1e-5)
    traced = []

    def loss(params, carry, batch, key):
        traced.append(1)
        return LOSS.loss(params, carry, batch, key)

    result = fit(
        type(LOSS)(loss, LOSS.initial),
        PARAMS,
        lambda epoch: windows((IDS, LABELS), 3),
        optimizer=optax.sgd(0.5),
        epochs=20,
        key=jax.random.key(1),
        evaluate=evaluate,
        progress=False,
    )
    assert len(traced) == 1
    assert result.history[-1]["loss"] < 0.5 * result.history[0]["loss"]
