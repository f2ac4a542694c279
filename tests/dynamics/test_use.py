"""The use of jaxrnn.dynamics: states as vectors, compilation, errors, pictures."""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from jaxrnn import GRU, LRU, LSTM, Bidirectional, Stack, dynamics

from .test_dynamics import KEY, NO_INPUT, Map, shift, x64  # noqa: F401, the fixture is used by each test


def test_states_of_every_kind_are_vectors_and_back():
    cell = Stack((LSTM(3), LRU(2, states=4)))
    params = cell.init(KEY, 2)
    state = jax.tree.map(lambda a: a + 0.5, cell.initial_state(params, (5, 2)))
    vectors = dynamics.to_vector(cell, params, state)
    assert vectors.shape == (5, 2, 6 + 8)
    back = dynamics.from_vector(cell, params, vectors)
    jax.tree.map(np.testing.assert_array_equal, back, state)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, p, x: dynamics.lyapunov(c, p, x, k=5), "4 exponents; got k=5"),
        (lambda c, p, x: dynamics.lyapunov(c, p, x, every=4), "multiples of every=4"),
        (lambda c, p, x: dynamics.lyapunov(c, p, x, jnp.zeros((2, 4))), "jax.vmap"),
        (lambda c, p, x: dynamics.jacobian(c, p, jnp.zeros(3), x[0]), r"\(4,\)"),
        (lambda c, p, x: dynamics.jacobian(c, p, (), x[0]), "a state of GRU"),
        (lambda c, p, x: dynamics.fixed_points(c, p, x[0], jnp.zeros(4)), "one batch axis"),
        (lambda c, p, x: dynamics.fixed_points(c, p, x[0], jnp.zeros((2, 4)), slow=-1), "slow"),
        (lambda c, p, x: dynamics.from_vector(c, p, jnp.zeros(5)), "4 numbers"),
        (lambda c, p, x: dynamics.trajectory(Bidirectional(c), (p, p), x), "no causal step"),
        (lambda c, p, x: dynamics.trajectory(Map(shift, (1, 2))._replace(start=()), (), x), "no batch|numbers|got"),
        (lambda c, p, x: dynamics.principal_components(jnp.zeros((3, 2)), 3), "2 components"),
        (lambda c, p, x: dynamics.participation_ratio(jnp.zeros(3)), "at least two"),
        (lambda c, p, x: dynamics.memory_capacity(c, p, KEY, delays=9, washout=3), "washout"),
        (lambda c, p, x: dynamics.flow_field(c, p, x[0], dynamics.principal_components(jnp.eye(4), 3)), "two axes"),
    ],
)
def test_bad_input_is_named(call, message):
    cell = GRU(4)
    with pytest.raises(ValueError, match=message):
        call(cell, cell.init(KEY, 3), jnp.ones((6, 3)))


def test_a_second_call_traces_nothing():
    traces = []

    def halve(h, x):
        traces.append(h)
        return 0.5 * h

    cell, xs, x = Map(halve, (1.0, 2.0)), NO_INPUT((6, 1)), NO_INPUT(1)
    plane = dynamics.principal_components(jnp.eye(2), 2)
    calls = [
        lambda: dynamics.lyapunov(cell, (), xs),
        lambda: dynamics.gradient_by_lag(cell, (), xs),
        lambda: dynamics.trajectory(cell, (), xs),
        lambda: dynamics.convergence(cell, (), xs, None, jnp.zeros(2)),
        lambda: dynamics.jacobian(cell, (), jnp.ones((3, 2)), x),
        lambda: dynamics.flow_field(cell, (), x, plane, points=2),
        lambda: dynamics.fixed_points(cell, (), x, jnp.eye(2), steps=2),
    ]
    for call in calls:
        call()
        before = len(traces)
        call()
        assert before == len(traces)


def test_every_picture_is_drawn():
    from jaxrnn.dynamics import plots

    matplotlib.use("Agg")
    cell, params = GRU(4), GRU(4).init(KEY, 2)
    xs = jax.random.normal(KEY, (20, 3, 2), jnp.float32)
    states = dynamics.trajectory(cell, params, xs)
    found = dynamics.fixed_points(cell, params, jnp.zeros(2), states.reshape(-1, 4), steps=100)
    plane = dynamics.principal_components(states, 2)
    norms = dynamics.gradient_by_lag(cell, params, xs[:, 0])
    drawn = [
        plots.eigenvalues(found.fixed.spectrum),
        plots.fixed_points(found, plane, states),
        plots.fixed_points(found, dynamics.principal_components(states, 3)),
        plots.flow_field(dynamics.flow_field(cell, params, jnp.zeros(2), plane)),
        plots.lyapunov(dynamics.lyapunov(cell, params, xs[:, 0])),
        plots.gradient_by_lag({"GRU": norms}),
    ]
    assert all(axes.get_xlabel() for axes in drawn)
    matplotlib.pyplot.close("all")
