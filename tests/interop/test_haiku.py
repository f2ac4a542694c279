"""Conversion of haiku's cores: values, gradients, round trips, states, the adapter, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import GRU, LSTM, Bidirectional, Dropout, Elman, LSTMState, ResetBeforeGRU, Scan, Stack, unroll

from .parity import BATCH, HIDDEN, IN, LENGTHS, agree, close, equal, inputs, noise, params_of

pytest.importorskip("haiku", reason="haiku is an optional peer: pip install jaxrnn[peers]")

import haiku as hk

from jaxrnn.interop.haiku import HaikuRNN, from_haiku, state_from_haiku, state_to_haiku, to_haiku

STACK = Stack((Elman(HIDDEN, activation=jax.nn.relu), Stack((ResetBeforeGRU(3),)), LSTM(HIDDEN)))


def params_in_grid(cell):
    """Return random params that are exact after 1 is added to a forget bias or subtracted, as haiku requires."""
    return jax.tree.map(lambda a: jnp.round(a * 256) / 256, params_of(cell))


def test_conversion_and_back_is_exact():
    params = params_in_grid(STACK)
    core, theirs = to_haiku(STACK, params, prefix="agent/~/")
    assert equal(from_haiku(core, theirs, prefix="agent/~/"), (STACK, params))
    params = params_of(LSTM(HIDDEN))
    again = from_haiku(*to_haiku(LSTM(HIDDEN), params))[1]
    assert equal((0, again._replace(b=())), (0, params._replace(b=())))
    close(again.b, params.b, 2e-7)


def test_values_and_gradients():
    network = hk.without_apply_rng(hk.transform(lambda xs, state: hk.dynamic_unroll(core(), xs, state)))

    def core():
        return hk.DeepRNN([hk.VanillaRNN(HIDDEN), hk.DeepRNN([hk.GRU(3, name="mid")]), hk.LSTM(HIDDEN)])

    h = jnp.zeros((BATCH, HIDDEN))
    state = noise((h, (h[:, :3],), hk.LSTMState(h, h)), seed=2)
    params = noise(jax.eval_shape(network.init, jax.random.key(0), inputs(), state), seed=3)

    def theirs(params, xs, state):
        ys, state = network.apply(params, xs, state)
        return state_from_haiku(STACK, state), ys

    def ours(params, xs, state):
        cell, weights = from_haiku(core, params)
        assert cell == STACK
        return unroll(cell, weights, xs, state_from_haiku(cell, state))

    agree(ours, theirs, params, inputs(), state, tolerance=5e-6)
    assert equal((0, state_to_haiku(STACK, state_from_haiku(STACK, state))), (0, state))


def test_a_core_with_one_bias():
    module = lambda: hk.VanillaRNN(HIDDEN, double_bias=False)
    network = hk.transform(lambda xs: hk.dynamic_unroll(module(), xs, jnp.zeros((BATCH, HIDDEN)))[0])
    params = noise(jax.eval_shape(network.init, jax.random.key(0), inputs()))
    close(unroll(*from_haiku(module, params), inputs())[1], network.apply(params, None, inputs()))


CELL = Stack((GRU(3), Dropout(0.5), LSTM(HIDDEN)))


def test_the_module_equals_unroll():
    module = lambda: HaikuRNN(CELL, driver=Scan(), in_dim=IN)

    def network(xs, noisy):
        return module()(xs, lengths=LENGTHS, key=hk.next_rng_key() if noisy else None)

    network = hk.transform(network)
    params = network.init(jax.random.key(0), inputs(), False)
    cell, weights = from_haiku(module, params)
    assert cell is CELL
    assert params["haiku_rnn"].keys() >= {"0.local", "0.w_h", "2.b"}
    assert jax.tree.map(jnp.shape, weights) == jax.tree.map(jnp.shape, params_of(CELL))
    assert float(weights[2].b[1].min()) == 1.0, "each leaf is drawn by the cell's own init"
    close(network.apply(params, None, inputs(), False), unroll(CELL, weights, inputs(), lengths=LENGTHS))
    noisy = network.apply(params, jax.random.key(1), inputs(), True)[1]
    assert abs(noisy - network.apply(params, None, inputs(), False)[1]).max() > 0


class OwnLSTM(hk.LSTM):
    """A subclass may compute something else."""


LSTM_PARAMS = params_of(LSTM(HIDDEN))
THEIRS = to_haiku(LSTM(HIDDEN), LSTM_PARAMS)[1]
DOUBLE = jax.tree.map(lambda a: np.asarray(a, np.float64), THEIRS)
REJECTED = {
    "subclass": (lambda: from_haiku(lambda: OwnLSTM(2), {}), "OwnLSTM"),
    "reset": (lambda: from_haiku(lambda: hk.ResetCore(hk.LSTM(2)), {}), "resets="),
    "function": (lambda: from_haiku(lambda: hk.DeepRNN([jax.nn.relu]), {}), "custom_jvp"),
    "name": (lambda: from_haiku(lambda: hk.LSTM(HIDDEN, name="core"), THEIRS), "core/linear"),
    "size": (lambda: from_haiku(lambda: hk.LSTM(3), THEIRS), "has 3 units"),
    "float64": (lambda: from_haiku(lambda: hk.LSTM(HIDDEN), DOUBLE), "enable_x64"),
    "in_dim": (lambda: from_haiku(lambda: HaikuRNN(CELL), {}), "in_dim="),
    "leaves": (lambda: from_haiku(lambda: HaikuRNN(LSTM(2), in_dim=IN), {"haiku_rnn": {"w_x": jnp.ones(2)}}), "'w_h'"),
    "tanh": (lambda: to_haiku(Elman(2), params_of(Elman(2))), "relu"),
    "lstm": (
        lambda: to_haiku(LSTM(HIDDEN, activation="relu"), LSTM_PARAMS),
        "haiku has no LSTM with activation='relu'",
    ),
    "gru": (lambda: to_haiku(GRU(2), params_of(GRU(2))), "no counterpart"),
    "both": (lambda: to_haiku(Bidirectional(LSTM(HIDDEN)), params_of(Bidirectional(LSTM(HIDDEN)))), "Bidirectional"),
    "recurrence": (lambda: to_haiku(LSTM(HIDDEN, recurrence=jaxrnn.Heads(2)), LSTM_PARAMS), "Heads"),
    "shapes": (lambda: to_haiku(LSTM(5), LSTM_PARAMS), "the shapes"),
    "state": (lambda: state_from_haiku(LSTM(2), (jnp.zeros(2), jnp.zeros(2))), "hk.LSTMState"),
    "stack": (lambda: state_from_haiku(STACK, (jnp.zeros(2),)), "a tuple of these"),
    "ours": (lambda: state_from_haiku(LSTM(2), LSTMState(jnp.zeros(2), jnp.zeros(2))), "hk.LSTMState"),
}


@pytest.mark.parametrize(("convert", "message"), REJECTED.values(), ids=REJECTED)
def test_what_has_no_counterpart_raises(convert, message):
    with pytest.raises(ValueError, match=message):
        convert()
