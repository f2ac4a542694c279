"""`ConvLSTM` against `flax.linen.ConvLSTMCell`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn

nn = pytest.importorskip("flax.linen")
T, B, HEIGHT, WIDTH, C, F = 4, 2, 5, 3, 2, 4


def test_a_conv_lstm_is_that_of_flax():
    """flax orders the gates i, g, f, o and adds 1 inside the forget gate, not to its bias."""
    xs = jax.random.normal(jax.random.key(0), (T, B, HEIGHT, WIDTH, C))
    theirs = nn.ConvLSTMCell(F, (3, 3))
    carry = theirs.initialize_carry(jax.random.key(1), xs.shape[1:])
    variables = theirs.init(jax.random.key(2), carry, xs[0])
    ih, hh = variables["params"]["ih"], variables["params"]["hh"]
    gates = lambda a: jnp.stack([jnp.split(a, 4, -1)[gate] for gate in (0, 2, 1, 3)], -2)
    kernels = lambda a: gates(a).reshape(-1, 4, F)
    forget = jnp.array([[0.0], [1.0], [0.0], [0.0]])
    params = jaxrnn.GatedParams(kernels(ih["kernel"]), kernels(hh["kernel"]), gates(ih["bias"] + hh["bias"]) + forget)
    cell = jaxrnn.ConvLSTM(F, image=(HEIGHT, WIDTH))
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    assert shapes(params) == shapes(cell.init(jax.random.key(0), HEIGHT * WIDTH * C))
    state, ys = jaxrnn.unroll(cell, params, xs.reshape(T, B, -1))
    for x, y in zip(xs, ys, strict=True):
        carry, want = theirs.apply(variables, carry, x)
        np.testing.assert_allclose(y.reshape(want.shape), want, atol=1e-5)
    np.testing.assert_allclose(state.c.reshape(carry[0].shape), carry[0], atol=1e-5)
