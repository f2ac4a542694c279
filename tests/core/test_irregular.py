"""Cells whose inputs carry times: `CfC` and `LTC` with (x, dt), and `GRUD`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import BPTT, GRU, GRUD, LTC, CfC, GRUDInputs, GRUDState, Newton, Scan, Stack

from .more_equations import matmul, sigmoid, tanh
from .table import B, D, H, T, draw, far, masks, run, unroll

TIMED = {"cfc": (CfC(H), BPTT(2)), "ltc": (LTC(H, unfolds=2), Newton(fallback=None))}


def timed(cell, seed=0):
    params, state, xs = draw(cell, seed)
    dt = np.random.default_rng(seed).exponential(size=(T, B, 1))
    return params, state, (xs, jnp.asarray(dt, xs.dtype))


def series(seed=0):
    """Return a GRU-D, its params, a state and inputs, half of whose values are missing."""
    rng, cell = np.random.default_rng(seed), GRUD(H)
    like = lambda a: jnp.asarray(a, jnp.zeros(()).dtype)
    noise = lambda a: a + like(0.3 * rng.standard_normal(a.shape))
    params = jax.tree.map(noise, cell.init(jax.random.key(seed), D))
    state = jax.tree.map(noise, cell.initial_state(params, (B,)))
    mask = rng.random((T, B, D)) < 0.5
    return cell, params, state, GRUDInputs(*map(like, (rng.standard_normal((T, B, D)), mask, rng.random((T, B, D)))))


def grud(p, s, xs):
    x, m, dt = xs
    decay_x, decay_h = (
        np.exp(-np.maximum(0, a)) for a in (p.decay_x[0] * dt + p.decay_x[1], dt @ p.decay_h[:, 0] + p.decay_b)
    )
    filled = m * x + (1 - m) * (decay_x * s.x + (1 - decay_x) * p.mean)
    h = decay_h * s.h
    u, v = matmul(filled, p.w_x) + matmul(m, p.w_m) + p.b[:, None], matmul(h, p.w_h[:, :2])
    r, z = sigmoid(u[0] + v[0]), sigmoid(u[1] + v[1])
    h = (1 - z) * h + z * tanh(u[2] + (r * h) @ p.w_h[:, 2])
    return GRUDState(h, m * x + (1 - m) * s.x), h


def cfc(p, h, xs):
    x, dt = xs
    g, q, a, b = matmul(x, p.w_x) + matmul(h, p.w_h) + p.b[:, None]
    h = (1 - sigmoid(a * dt + b)) * tanh(g) + sigmoid(a * dt + b) * tanh(q)
    return h, h


def ltc(p, h, xs):
    x, dt = xs
    for _ in range(2):
        f = sigmoid(x @ p.w_x[:, 0] + h @ p.w_h[:, 0] + p.b[0])
        h = (h + dt / 2 * f * p.a) / (1 + dt / 2 * (np.exp(-p.log_tau) + f))
    return h, h


def check(equation, cell, params, state, xs):
    x = jax.tree.map(lambda a: a[0], xs)
    want = equation(*jax.tree.map(np.asarray, (params, state, x)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), cell.step(params, state, x), want)


@pytest.mark.parametrize("name", TIMED)
def test_a_step_with_its_time_is_the_equation(x64, name):
    cell, _ = TIMED[name]
    check({"cfc": cfc, "ltc": ltc}[name], cell, *timed(cell))


def test_a_step_of_a_gru_d_is_its_equation(x64):
    check(grud, *series())


@pytest.mark.parametrize("name", TIMED)
def test_times_under_the_driver_of_the_kind(name):
    cell, driver = TIMED[name]
    got, want = (run(cell, *timed(cell), masks(), each) for each in (driver, Scan()))
    assert far(got, want) < 2e-5


def test_a_gru_d_under_newton():
    got, want = (run(*series(), masks(), driver) for driver in (Newton(fallback=None), Scan()))
    assert far(got, want) < 2e-5


@pytest.mark.parametrize("name", TIMED)
def test_inputs_without_times_take_the_field(name):
    cell, _ = TIMED[name]
    params, state, (xs, _) = timed(cell)
    want = unroll(cell, params, xs, state)
    assert far(unroll(cell, params, (xs, jnp.ones((T, B, 1))), state), want) < 1e-6


def test_missing_values_are_ignored():
    """NaN in the place of a missing value reaches no output and no gradient."""
    cell, params, state, xs = series()
    hidden = xs._replace(x=jnp.where(xs.mask == 0, jnp.nan, xs.x))
    ((got, got_gradients), (want, want_gradients)) = (run(cell, params, state, each, {}) for each in (hidden, xs))
    assert far((got, got_gradients), (want, want_gradients)) == 0


def test_a_feature_that_was_never_observed_is_its_mean():
    cell, params, _, xs = series()
    missing = GRUDInputs(xs.x, jnp.zeros(xs.mask.shape, bool), jnp.ones((T, B, 1)))
    state, ys = unroll(cell, params, missing)
    np.testing.assert_array_equal(state.x, jnp.broadcast_to(params.mean, (B, D)))
    present = GRUDInputs(jnp.broadcast_to(params.mean, (T, B, D)), *missing[1:])
    np.testing.assert_array_equal(ys, unroll(cell, params, present)[1])


def test_a_gru_d_below_another_layer():
    _, _, _, xs = series()
    stack = Stack((GRUD(H), GRU(5)))
    params = stack.init(jax.random.key(0), D)
    assert unroll(stack, params, xs)[1].shape == (T, B, 5)
