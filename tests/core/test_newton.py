"""Newton's method over time: how it converges, and its fallback."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import GRU, LRU, LSTM, Diagonal, DiagonalJacobian, Elman, FullJacobian, IndRNN, Newton, ProjectedLSTM, Scan
from jaxrnn.extend import StepMasks

from .. import quick
from .table import D, Mine, draw, far, masks, run, unroll

CELLS = {
    "elman": (Elman(6), FullJacobian()),
    "lstm": (LSTM(6), FullJacobian()),
    "gru_quasi": (GRU(6), DiagonalJacobian()),
    "lstm_diagonal": (LSTM(6, recurrence=Diagonal()), DiagonalJacobian()),
    "ind_rnn": (IndRNN(6), DiagonalJacobian()),
}
LONG = 300


def chaotic(factor=4.0):
    """An Elman net whose recurrent weights are scaled until trajectories part."""
    cell = Elman(16)
    params = cell.init(jax.random.key(0), D)
    return cell, params._replace(w_h=params.w_h * factor), jax.random.normal(jax.random.key(1), (LONG, 2, D))


def trained(answer, params, state, xs, steps=40):
    """Params after some steps of fixed length down the gradient of the number that `answer`, a `run`, gives."""
    values = []
    for _ in range(steps):
        (value, _), (slope, *_) = answer(params, state, xs)
        rate = 0.05 / jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(slope)))
        params = jax.tree.map(lambda p, d: p - rate * d, params, slope)
        values.append(float(value))
    assert values[-1] < values[0] - 0.1 * abs(values[0])
    return params


@pytest.mark.parametrize("name", CELLS)
def test_long_sequences_in_float32_equal_scan_with_trained_weights(name):
    cell, jacobian = CELLS[name]
    kw = {"lengths": masks(time=LONG)["lengths"]}
    params, state, xs = draw(cell, time=LONG)
    one_by_one = functools.partial(run, cell, kw=kw, driver=Scan())
    arguments = trained(one_by_one, params, state, xs), state, xs
    (value, (state, ys)), grads = run(cell, *arguments, kw, Newton(jacobian, fallback=None))
    (want, (want_state, want_ys)), want_grads = one_by_one(*arguments)
    assert far((state, ys), (want_state, want_ys)) <= 1e-5
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(want_grads))
    assert far(grads, want_grads) <= 1e-5 * scale
    assert value == pytest.approx(float(want), rel=1e-5)


@pytest.mark.parametrize("name", ["elman", "lstm_diagonal"])
def test_convergence_is_visible_and_a_guess_saves_iterations(name):
    cell, jacobian = CELLS[name]
    params, state, xs = draw(cell, time=LONG)
    newton = Newton(jacobian)
    found = newton.converge(cell, params, xs, state)
    assert found.converged
    assert found.residual <= 1e-6
    assert 2 < found.iterations < 20
    nearby = jax.tree.map(lambda p: p * 1.001, params)
    again = newton.converge(cell, nearby, xs, state, guess=found.states)
    assert again.converged
    assert again.iterations < found.iterations
    few = Newton(jacobian, iterations=2).converge(cell, params, xs, state, masks=StepMasks())
    assert not few.converged
    assert few.iterations == 2


@pytest.mark.parametrize("jacobian", [FullJacobian(), DiagonalJacobian()])
def test_a_chaotic_cell_ends_in_the_scan_or_in_nan(x64, jacobian):
    """In float64: chaos makes 0.1 of the 1e-7 by which two programs of a GPU differ in float32."""
    cell, params, xs = chaotic()
    newton = functools.partial(Newton, jacobian, iterations=10)
    assert not newton().converge(cell, params, xs).converged
    loss = lambda driver, params: jaxrnn.unroll(cell, params, xs, driver=driver)[1][:40].sum()
    grad = lambda driver: quick.jit(jax.value_and_grad(functools.partial(loss, driver)))(params)
    want = grad(Scan())
    assert far(grad(newton()), want) <= 1e-3 * float(jnp.abs(want[1].w_h).max())
    value, slope = grad(newton(fallback=None))
    assert np.isnan(value)
    assert np.isnan(slope.w_h).all()


def test_damping_keeps_the_solution():
    cell, params, xs = chaotic(1.0)
    want = unroll(cell, params, xs, driver=Scan())
    got = unroll(cell, params, xs, driver=Newton(damping=0.2, fallback=None))
    assert far(got, want) <= 1e-5


def test_under_vmap_each_has_its_own_trajectory():
    cell, params, xs = chaotic(1.0)
    one = lambda xs: jaxrnn.unroll(cell, params, xs, driver=Newton(fallback=None))[1]
    want = unroll(cell, params, xs, driver=Scan())[1]
    assert far(quick.jit(jax.vmap(one, 1, 1))(xs), want) <= 1e-5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Newton("half"), r"FullJacobian\(\) or DiagonalJacobian\(\)"),
        (lambda: Newton(fallback="guess"), r"Scan\(\) or None"),
        (lambda: Newton(iterations=0), "iterations >= 1"),
        (lambda: run_new(LRU(6), Newton()), "one floating dtype"),
        (lambda: run_new(Mine(6), Newton(DiagonalJacobian())), "as many units"),
        (lambda: run_new(ProjectedLSTM(6, 4), Newton(DiagonalJacobian())), "as many units"),
    ],
)
def test_what_it_cannot_take_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def run_new(cell, driver):
    params, _, xs = draw(cell)
    return jaxrnn.unroll(cell, params, xs, driver=driver)
