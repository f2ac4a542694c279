"""Initializers with the name of a library draw as it does: moments, support, orthogonality."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import (
    GRU,
    LSTM,
    FlaxInit,
    HaikuGRUInit,
    HaikuInit,
    KerasInit,
    NnxInit,
    ProjectedLSTM,
    ResetBeforeGRU,
    TorchUniform,
)

from .. import quick

IN, HIDDEN = 60, 40


def flax_weights(name, package):
    module = pytest.importorskip(f"flax.{package}")
    from jaxrnn.interop.flax import from_linen, from_nnx

    if package == "nnx":
        return from_nnx(getattr(module, name)(IN, HIDDEN, rngs=module.Rngs(0)))
    cell, x = getattr(module, name)(HIDDEN), jnp.zeros(IN)
    return from_linen(cell, cell.init(jax.random.key(0), jnp.zeros(HIDDEN), x))


def keras_weights(name):
    keras = pytest.importorskip("keras")
    from jaxrnn.interop.keras import from_keras

    layer = getattr(keras.layers, name)(HIDDEN)
    layer.build((None, None, IN))
    return from_keras(layer)


def haiku_weights(name):
    hk = pytest.importorskip("haiku")
    from jaxrnn.interop.haiku import from_haiku

    def core():
        return getattr(hk, name)(HIDDEN)

    network = hk.transform(lambda x: core()(x, core().initial_state(None)))
    return from_haiku(core, network.init(jax.random.key(0), jnp.zeros(IN)))


CASES = {
    "linen gru": (GRU(HIDDEN, initializer=FlaxInit()), lambda: flax_weights("GRUCell", "linen")),
    "nnx packed": (
        LSTM(HIDDEN, forget_bias=0.0, initializer=NnxInit()),
        lambda: flax_weights("OptimizedLSTMCell", "nnx"),
    ),
    "keras lstm": (LSTM(HIDDEN, initializer=KerasInit()), lambda: keras_weights("LSTM")),
    "haiku lstm": (LSTM(HIDDEN, initializer=HaikuInit(features=IN)), lambda: haiku_weights("LSTM")),
    "haiku gru": (ResetBeforeGRU(HIDDEN, initializer=HaikuGRUInit()), lambda: haiku_weights("GRU")),
}


def spectrum(w):
    """Return the singular values of all gates side by side, and of the first: equal for orthogonal draws."""
    w = np.asarray(w)
    return [np.linalg.svd(m, compute_uv=False) for m in (w.reshape(len(w), -1), w[:, 0])]


@pytest.mark.parametrize(("cell", "draw"), CASES.values(), ids=CASES)
def test_draws_have_the_distribution_of_the_library(cell, draw):
    _, theirs = draw()
    ours = cell.init(jax.random.key(1), IN)
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, theirs)
    for a, b in ((ours.w_x, theirs.w_x), (ours.w_h, theirs.w_h)):
        a, b = np.ravel(a), np.ravel(b)
        np.testing.assert_allclose(a.std(), b.std(), rtol=0.05)
        np.testing.assert_allclose(
            np.quantile(abs(a), [0.25, 0.5, 0.75, 0.95]), np.quantile(abs(b), [0.25, 0.5, 0.75, 0.95]), rtol=0.12
        )
    np.testing.assert_allclose(abs(ours.w_x).max(), abs(theirs.w_x).max(), rtol=0.02)  # the support: both are truncated
    for a, b in zip(spectrum(ours.w_h), spectrum(theirs.w_h), strict=True):
        np.testing.assert_allclose(a, b, atol=0.1 * b.max())
    np.testing.assert_array_equal(ours.b, theirs.b)
    assert not np.any(ours.local) if isinstance(cell, GRU) else ours.local == ()


def test_haiku_features_are_those_of_the_inputs():
    with pytest.raises(ValueError, match="features=3"):
        LSTM(HIDDEN, initializer=HaikuInit(features=2)).init(jax.random.key(0), 3)


@pytest.mark.parametrize("features", ["a", 3.0, 0, -1, True])
def test_haiku_features_are_none_or_a_size(features):
    with pytest.raises(
        ValueError, match=re.escape(f"HaikuInit.features must be an int of 1 or more; got {features!r}")
    ):
        HaikuInit(features)


class RowInputs:
    """A user's initializer, without a `projection`."""

    def input(self, key, shape):
        return jnp.ones(shape)

    recurrent = diagonal = bias = input


@pytest.mark.parametrize(
    ("initializer", "bound"),
    [(TorchUniform(), 1 / 8), (HaikuInit(features=3), 2 / 8), (RowInputs(), 1.0)],
    ids=["torch", "haiku", "own"],
)
def test_the_projection_is_drawn_for_hidden_inputs(initializer, bound):
    cell = ProjectedLSTM(64, projection=4, initializer=initializer)
    w_p = quick.jit(lambda key: cell.init(key, 3).w_p)(jax.random.key(0))
    assert w_p.shape == (64, 4)
    assert 0.95 * bound < abs(w_p).max() <= bound
