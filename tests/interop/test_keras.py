"""Conversion of Keras's layers: values, gradients, round trips, states, and errors."""

import importlib
import sys

import jax
import jax.numpy as jnp
import pytest

import jaxrnn
from jaxrnn import GRU, LSTM, Bidirectional, Dropout, Elman, ResetBeforeGRU, Stack, VariationalDropout, unroll

from .. import quick
from .parity import BATCH, HIDDEN, IN, TIME, agree, close, equal, inputs, noise, params_of

pytest.importorskip("keras", reason="keras is an optional peer: pip install jaxrnn[peers]")

import keras
from keras import layers

from jaxrnn.interop._keras_options import ACTIVATIONS_BY_NAME
from jaxrnn.interop.keras import from_keras, keras_weights, state_from_keras, state_to_keras, to_keras

ZEROS = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}  # quick: no test needs random weights
BOTH = Bidirectional(
    GRU(HIDDEN, activation="elu", gate_activation="softplus"),
    LSTM(HIDDEN, activation="relu", gate_activation="hard_sigmoid"),
)
RESET_BEFORE = ResetBeforeGRU(HIDDEN, activation="silu", gate_activation="hard_sigmoid")
CELLS = {
    "relu": Elman(HIDDEN, activation=jax.nn.relu),
    "stack": Stack((RESET_BEFORE, Dropout(0.25), BOTH, VariationalDropout(0.5))),
}
cells = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


def built(layer):
    layer.build((BATCH, TIME, IN))
    return layer


def batch_major(function, xs):
    """Call a layer on xs (T, B, D)."""
    return jnp.swapaxes(function(jnp.swapaxes(xs, 0, 1)), 0, 1)


@cells
def test_values_gradients_and_round_trips(cell):
    params = params_of(cell)
    layer = to_keras(cell, params)
    assert equal(from_keras(layer), (cell, params))
    rest = [v.value for v in layer.non_trainable_variables]

    def theirs(params, xs):
        weights = keras_weights(cell, params)
        return batch_major(lambda xs: layer.stateless_call(weights, rest, xs)[0], xs)

    agree(lambda params, xs: unroll(cell, params, xs)[1], theirs, params, inputs(), tolerance=2e-6)


def test_conversion_of_bfloat16_and_back_is_exact():
    cell = GRU(HIDDEN)
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params_of(cell))
    layer = to_keras(cell, params)
    assert {v.dtype for v in layer.trainable_variables} == {"bfloat16"}
    assert equal(from_keras(layer), (cell, params))


def test_states():
    params, xs = params_of(BOTH), inputs()
    state = noise(BOTH.initial_state(params, (BATCH,)), seed=5)
    layer = to_keras(BOTH, params)
    layer.return_state = layer.forward_layer.return_state = layer.backward_layer.return_state = True
    ys, *states = layer(jnp.swapaxes(xs, 0, 1), initial_state=state_to_keras(BOTH, state))
    close((state_from_keras(BOTH, states), jnp.swapaxes(ys, 0, 1)), unroll(BOTH, params, xs, state))
    stack, state = Stack((BOTH, VariationalDropout(0.5), GRU(3))), (state, (), state.forward)
    assert equal((stack, state_from_keras(stack, state_to_keras(stack, state))), (stack, state))


MADE = {
    "two biases": lambda: layers.GRU(HIDDEN, return_sequences=True, **ZEROS),
    "no bias": lambda: layers.GRU(HIDDEN, return_sequences=True, use_bias=False, **ZEROS),
    "cells": lambda: layers.RNN(
        [layers.LSTMCell(HIDDEN, **ZEROS), layers.SimpleRNNCell(3, use_bias=False, **ZEROS)], return_sequences=True
    ),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_conversion_of_layers_of_keras(make):
    layer = built(make())
    for variable in layer.trainable_variables:
        variable.assign(noise(variable.value))
    close(unroll(*from_keras(layer), inputs())[1], batch_major(layer, inputs()))


def test_activations_with_the_same_name_are_equal():
    xs = jnp.linspace(-8, 8, 33)
    theirs, ours = quick.jit(
        lambda xs: [
            [f(xs) for f in fs]
            for fs in (map(keras.activations.get, ACTIVATIONS_BY_NAME), ACTIVATIONS_BY_NAME.values())
        ]
    )(xs)
    close(theirs, ours, tolerance=1e-6)


def test_one_mask_for_all_steps_becomes_variational_dropout():
    once = layers.Dropout(0.5, noise_shape=(None, 1, 3))
    ys = once(jnp.ones((2, 8, 3)), training=True)
    assert (ys == ys[:, :1]).all()
    found, _ = from_keras(keras.Sequential([once, layers.Dropout(0.25, noise_shape=(None, None, None))]))
    assert found == Stack((VariationalDropout(0.5), Dropout(0.25)))


@pytest.mark.parametrize(
    ("lacks", "message"), [("tensorflow", "KERAS_BACKEND=jax"), ("h5py", "No module named 'h5py'$")]
)
def test_a_dependency_that_keras_lacks_is_not_reported_as_the_extra(monkeypatch, tmp_path, lacks, message):
    (tmp_path / "keras.py").write_text(f"raise ModuleNotFoundError(\"No module named '{lacks}'\", name='{lacks}')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.delitem(sys.modules, "jaxrnn.interop._keras_options")
    with pytest.raises(ModuleNotFoundError, match=message) as raised:
        importlib.import_module("jaxrnn.interop._keras_options")
    assert "pip install" not in str(raised.value)


class OwnLSTM(layers.LSTM):
    """A subclass may compute something else."""


def lstm(**options):
    return built(layers.LSTM(HIDDEN, **options, **ZEROS))


def both(**options):
    return built(layers.Bidirectional(layers.GRU(2, return_sequences=True, **ZEROS), **options))


WIDTHS = Bidirectional(LSTM(2), LSTM(3))
PARAMS = params_of(LSTM(HIDDEN))
REJECTED = {
    "subclass": (lambda: from_keras(OwnLSTM(2)), "OwnLSTM"),
    "dense": (lambda: from_keras(layers.Dense(2)), "Dense"),
    "not built": (lambda: from_keras(layers.LSTM(2)), "no weights yet"),
    "go_backwards": (lambda: from_keras(lstm(go_backwards=True)), "reverse=True"),
    "stateful": (lambda: from_keras(lstm(stateful=True)), "stateful=True"),
    "dropout": (lambda: from_keras(lstm(dropout=0.5)), "dropout=0.5"),
    "recurrent_dropout": (lambda: from_keras(lstm(recurrent_dropout=0.5)), "recurrent_dropout=0.5"),
    "activation": (lambda: from_keras(lstm(activation="gelu")), " activation=.*gelu"),
    "recurrent_activation": (
        lambda: from_keras(lstm(recurrent_activation="leaky_relu")),
        "recurrent_activation=.*leaky",
    ),
    "elman": (lambda: from_keras(built(layers.SimpleRNN(2, activation="gelu", **ZEROS))), "activation=.*gelu"),
    "noise_shape": (
        lambda: from_keras(keras.Sequential([layers.Dropout(0.5, noise_shape=(1, None, 3))])),
        r"noise_shape=\(1, None, 3\)",
    ),
    "mixed": (lambda: from_keras(lstm(dtype="mixed_bfloat16")), "compute_dtype=bfloat16"),
    "merge_mode": (lambda: from_keras(both(merge_mode="sum")), "merge_mode=sum"),
    "tanh": (lambda: to_keras(Elman(2, activation=jnp.sin), params_of(Elman(2, activation=jnp.sin))), "equal to 'sin'"),
    "gelu": (
        lambda: to_keras(LSTM(HIDDEN, gate_activation="gelu"), PARAMS),
        "LSTM in Keras has no gate_activation equal to 'gelu'",
    ),
    "recurrence": (lambda: to_keras(LSTM(2, recurrence=jaxrnn.Diagonal()), PARAMS), "recurrence=Diagonal"),
    "equation": (lambda: to_keras(jaxrnn.MinGRU(2), PARAMS), "MinGRU"),
    "shapes": (lambda: to_keras(LSTM(HIDDEN), PARAMS._replace(b=jnp.ones((HIDDEN, 4, 1)))), "the shapes"),
    "dict": (lambda: to_keras(LSTM(HIDDEN), PARAMS._asdict()), "the shapes"),
    "dtypes": (lambda: to_keras(LSTM(HIDDEN), PARAMS._replace(b=PARAMS.b.astype(jnp.bfloat16))), "one dtype"),
    "params": (lambda: to_keras(Bidirectional(LSTM(2)), None), "a tuple of"),
    "widths": (lambda: to_keras(WIDTHS, params_of(WIDTHS)), "of one width"),
    "nothing": (lambda: to_keras(Stack((Dropout(0.5),)), ((),)), "no recurrent cell"),
    "states": (lambda: state_from_keras(LSTM(2), [jnp.zeros(2)]), "got 1"),
}


@pytest.mark.parametrize(("convert", "message"), REJECTED.values(), ids=REJECTED)
def test_what_has_no_counterpart_raises(convert, message):
    with pytest.raises(ValueError, match=message):
        convert()
