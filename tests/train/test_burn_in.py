"""Stored state and burn-in: equal outputs, and a gradient of the later steps alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import GRU, LSTM, Stack, unroll
from jaxrnn.train import unroll_after_burn_in

CELL = Stack((LSTM(4), GRU(3)))
T, B, D = 9, 3, 2
PARAMS, XS = CELL.init(jax.random.key(0), D), jax.random.normal(jax.random.key(1), (T, B, D))
STATE = jax.tree.map(lambda s: s + 0.3, CELL.initial_state(PARAMS, (B,)))
RESETS = jnp.zeros((T, B), bool).at[2, 0].set(True).at[4, 1].set(True).at[6, 2].set(True)
MASK = jnp.ones((T, B), bool).at[3:6, 1].set(False)


@pytest.mark.parametrize("burn_in", [0, 4, 5, T])
def test_outputs_are_those_of_the_whole_window(burn_in):
    masks = {"lengths": jnp.array([T, 7, 3]), "mask": MASK, "resets": RESETS}
    want = unroll(CELL, PARAMS, XS, STATE, **masks)
    got = unroll_after_burn_in(CELL, PARAMS, XS, STATE, burn_in=burn_in, **masks)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, (want[0], want[1][burn_in:]))


def test_the_gradient_is_that_of_the_steps_after_the_burn_in():
    def loss(params, state, xs, burn_in):
        return jnp.square(unroll_after_burn_in(CELL, params, xs, state, burn_in=burn_in, resets=RESETS)[1]).sum()

    def rest(params, state, xs):
        return jnp.square(unroll(CELL, params, xs, state, resets=RESETS[4:])[1]).sum()

    middle, _ = unroll(CELL, PARAMS, XS[:4], STATE, resets=RESETS[:4])
    dparams, dstate, dxs = jax.grad(loss, (0, 1, 2))(PARAMS, STATE, XS, 4)
    want = jax.grad(rest, (0, 2))(PARAMS, middle, XS[4:])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), (dparams, dxs[4:]), want)
    assert not any(leaf.any() for leaf in jax.tree.leaves((dstate, dxs[:4])))


def test_a_wrong_burn_in_is_an_error():
    with pytest.raises(ValueError, match="a number of the T=9 steps"):
        unroll_after_burn_in(CELL, PARAMS, XS, STATE, burn_in=10)
    with pytest.raises(ValueError, match="burn_in must be an int of 0 or more"):
        unroll_after_burn_in(CELL, PARAMS, XS, STATE, burn_in=-1)
