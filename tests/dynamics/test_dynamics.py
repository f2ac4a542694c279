"""The dynamics of maps with known fixed points, exponents and memory."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import GRU, LSTM, Elman, dynamics
from tests.core.table import CELLS, MORE_CELLS, D

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


class Map(NamedTuple):
    """A cell from a map of n numbers, f(h, x)."""

    f: object
    start: tuple

    def init(self, key, in_dim):
        return ()

    def initial_state(self, params, batch=()):
        return jnp.broadcast_to(jnp.array(self.start, float), (*batch, len(self.start)))

    def step(self, params, h, x):
        return (self.f(h, x),) * 2


def henon(h, x):
    return jnp.stack([1 - 1.4 * h[..., 0] ** 2 + h[..., 1], 0.3 * h[..., 0]], -1)


def logistic(h, x):
    return 4 * h * (1 - h)


def cat(h, x):
    return (h @ jnp.array([[2.0, 1.0], [1.0, 1.0]])) % 1


def tent(h, x):
    return jnp.tanh(1.5 * h)


DT = 0.01


def lorenz(h, x):
    def slope(h):
        a, b, c = h[..., 0], h[..., 1], h[..., 2]
        return jnp.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], -1)

    k1 = slope(h)
    k2 = slope(h + DT / 2 * k1)
    k3 = slope(h + DT / 2 * k2)
    return h + DT / 6 * (k1 + 2 * k2 + 2 * k3 + slope(h + DT * k3))


def shift(h, x):
    return jnp.concatenate([x, h[..., :-1]], -1)


def linear(matrix):
    return Elman(len(matrix), activation="identity"), lambda params: params._replace(
        w_x=jnp.eye(len(matrix))[:, None], w_h=jnp.asarray(matrix).T[:, None], b=jnp.zeros((1, len(matrix)))
    )


def network(gain, units=200):
    """Return a network tanh(g J h) with J of independent normal weights of variance 1 / units."""
    cell = Elman(units)
    weights = gain * jax.random.normal(KEY, (units, 1, units), float) / units**0.5
    return cell, cell.init(KEY, 1)._replace(w_x=jnp.zeros((1, 1, units)), w_h=weights, b=jnp.zeros((1, units)))


NO_INPUT = functools.partial(jnp.zeros, dtype=float)


def test_the_fixed_point_of_a_linear_map_in_closed_form():
    rng = np.random.default_rng(0)
    matrix, x = 0.3 * rng.standard_normal((5, 5)), rng.standard_normal(5)
    cell, made = linear(matrix)
    params = made(cell.init(KEY, 5))
    found = dynamics.fixed_points(cell, params, jnp.asarray(x), jnp.asarray(rng.standard_normal((20, 5))))
    np.testing.assert_allclose(found.fixed.points, np.linalg.solve(np.eye(5) - matrix, x)[None], rtol=1e-10)
    np.testing.assert_allclose(found.fixed.jacobians[0], matrix, atol=1e-14)
    values = np.linalg.eigvals(matrix)
    np.testing.assert_allclose(
        np.sort(np.abs(found.fixed.spectrum.eigenvalues[0])), np.sort(np.abs(values)), rtol=1e-10
    )
    at = dynamics.jacobian(cell, params, jnp.zeros((2, 5)), jnp.asarray(x))
    np.testing.assert_allclose(at.state, np.stack([matrix] * 2), atol=1e-14)
    np.testing.assert_allclose(at.input, np.stack([np.eye(5)] * 2), atol=1e-14)
    assert not len(found.slow.points)


def test_the_three_fixed_points_of_a_bistable_map():
    candidates = jnp.linspace(-2, 2, 41)[:, None]
    found = dynamics.fixed_points(Map(tent, (0.0,)), (), NO_INPUT(1), candidates).fixed
    order = np.argsort(found.points[:, 0])
    np.testing.assert_allclose(found.points[order, 0], [-0.85855964, 0, 0.85855964], atol=1e-8)
    assert found.spectrum.stable[order].tolist() == [True, False, True]
    assert found.speeds.max() < 1e-13
    np.testing.assert_allclose(found.spectrum.time_constants[order][1], 1 / np.log(1.5))


def test_a_ghost_of_a_fixed_point_is_slow_and_a_far_one_is_dropped():
    ghost = Map(lambda h, x: h + 1e-4 + h**2, (0.0,))
    found = dynamics.fixed_points(ghost, (), NO_INPUT(1), jnp.linspace(-0.3, 0.3, 9)[:, None])
    assert not len(found.fixed.points)
    np.testing.assert_allclose(found.slow.points, [[0.0]], atol=1e-3)
    np.testing.assert_allclose(found.slow.speeds, [1e-4], rtol=0.02)
    far = Map(lambda h, x: h + (h - 1) * (h - 50), (0.0,))
    candidates = jnp.array([[0.9], [1.1], [49.9]])
    kept = dynamics.fixed_points(far, (), NO_INPUT(1), candidates[:2], steps=0).fixed.points
    np.testing.assert_allclose(kept, [[1.0]], atol=1e-9)
    assert len(dynamics.fixed_points(far, (), NO_INPUT(1), candidates, steps=0).fixed.points) == 2


@pytest.mark.parametrize("f", [henon, cat, lorenz], ids=lambda f: f.__name__)
def test_lyapunov_exponents_of_known_maps(f):
    steps, dt, start = {
        "henon": (20_000, 1, (0.1, 0.1)),
        "cat": (200, 1, (0.2, 0.3)),
        "lorenz": (60_000, DT, (1.0,) * 3),
    }[f.__name__]
    found = dynamics.lyapunov(Map(f, start), (), NO_INPUT((steps, 1)), warmup=steps // 10)
    rates = np.asarray(found.exponents) / dt
    if f is henon:
        np.testing.assert_allclose(rates.sum(), np.log(0.3), atol=1e-10)
        np.testing.assert_allclose(rates[0], 0.419, atol=0.01)
        np.testing.assert_allclose(dynamics.kaplan_yorke(found.exponents), 1.258, atol=0.01)
    elif f is cat:
        np.testing.assert_allclose(rates, [0.9624236501, -0.9624236501], atol=1e-9)
    else:
        np.testing.assert_allclose(rates.sum(), -13.6667, atol=1e-3)
        np.testing.assert_allclose(rates[0], 0.906, atol=0.03)
        np.testing.assert_allclose(rates[1], 0, atol=0.01)
        np.testing.assert_allclose(dynamics.kaplan_yorke(found.exponents), 2.06, atol=0.01)


def test_the_logistic_map_has_the_exponent_of_a_bit_a_step():
    found = dynamics.lyapunov(Map(logistic, (0.3,)), (), NO_INPUT((20_000, 1)), warmup=1_000, every=10)
    np.testing.assert_allclose(found.exponents, [np.log(2)], atol=2e-3)
    assert found.history.shape == (1_900, 1)


def test_random_networks_are_stable_below_a_gain_of_one_and_chaotic_above():
    largest = lambda gain: dynamics.lyapunov(
        *network(gain), NO_INPUT((300, 1)), jax.random.normal(KEY, (200,), float), k=3, warmup=100
    )
    assert largest(0.8).exponents[0] < -0.1
    assert largest(2.0).exponents[0] > 0.1


@pytest.mark.parametrize("name", [*CELLS, *MORE_CELLS])
def test_the_exponents_of_every_cell_sum_to_the_mean_log_determinant(name):
    cell = (CELLS | MORE_CELLS)[name]
    in_dim = {"conv_lstm": 4, "conv_gru": 8}.get(name, D)
    params = jax.tree.map(lambda a: a.astype(jnp.result_type(a, float)), cell.init(KEY, in_dim))
    xs = jax.random.normal(KEY, (6, in_dim), float)
    states = jnp.concatenate([_start(cell, params)[None], dynamics.trajectory(cell, params, xs)[:-1]])
    at = jax.vmap(lambda h, x: dynamics.jacobian(cell, params, dynamics.from_vector(cell, params, h), x).state)
    _, logs = jnp.linalg.slogdet(at(states, xs))
    found = dynamics.lyapunov(cell, params, xs).exponents
    if jnp.isfinite(logs).all():
        np.testing.assert_allclose(found.sum(), logs.mean(), atol=1e-8)
    else:  # a part of the state that the next one does not depend on
        assert found.min() < -30


def _start(cell, params):
    return dynamics.to_vector(cell, params, cell.initial_state(params))


def test_lyapunov_exponents_have_a_gradient():
    cell, params = GRU(3), GRU(3).init(KEY, 2)
    params = jax.tree.map(lambda a: a.astype(float), params)
    xs = jax.random.normal(KEY, (8, 2), float)
    loss = lambda scale: dynamics.lyapunov(cell, params._replace(w_h=scale * params.w_h), xs, k=2).exponents[0]
    numeric = (loss(1 + 1e-6) - loss(1 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(loss)(1.0), numeric, rtol=1e-6)


def test_gradients_by_lag_are_products_of_jacobians():
    cell, params = LSTM(3), jax.tree.map(lambda a: a.astype(float), LSTM(3).init(KEY, 2))
    xs = jax.random.normal(KEY, (5, 2), float)
    states = jnp.concatenate([jnp.zeros((1, 6)), dynamics.trajectory(cell, params, xs)])
    product, want = np.eye(6), []
    for t in reversed(range(5)):
        want.append(np.linalg.norm(product, 2))
        product = product @ np.asarray(
            dynamics.jacobian(cell, params, dynamics.from_vector(cell, params, states[t]), xs[t]).state
        )
    np.testing.assert_allclose(dynamics.gradient_by_lag(cell, params, xs), want, rtol=1e-10)
    frobenius = dynamics.gradient_by_lag(cell, params, xs, ord="fro")
    np.testing.assert_allclose(frobenius[0], 6**0.5)
    orthogonal, made = linear(np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0])
    norms = dynamics.gradient_by_lag(orthogonal, made(orthogonal.init(KEY, 4)), jnp.ones((9, 4)))
    np.testing.assert_allclose(norms, np.ones(9), rtol=1e-10)


def test_a_delay_line_remembers_as_many_inputs_as_it_has_units():
    line = Map(shift, (0.0,) * 8)
    capacity = dynamics.memory_capacity(line, (), KEY, delays=16, steps=4_000)
    np.testing.assert_allclose(capacity[:8], np.ones(8), atol=1e-6)
    np.testing.assert_allclose(capacity.sum(), 8, atol=0.1)


def test_two_starts_converge_where_the_echo_state_property_holds():
    for gain, holds in ((0.8, True), (2.0, False)):
        cell, params = network(gain, 50)
        one, other = jax.random.normal(KEY, (2, 50), float)
        distances = dynamics.convergence(cell, params, NO_INPUT((300, 1)), one, other)
        assert distances.shape == (301,)
        assert (distances[-1] < 1e-6 * distances[0]) == holds


def test_the_geometry_of_a_cloud():
    points = jax.random.normal(KEY, (5_000, 6), float) * jnp.array([3.0, 2, 1, 0, 0, 0])
    found = dynamics.principal_components(points, 2)
    np.testing.assert_allclose(found.variances, [9, 4], rtol=0.1)
    np.testing.assert_allclose(found.ratios.sum(), 13 / 14, atol=0.01)
    np.testing.assert_allclose(found.lift(found.project(found.mean)), found.mean, atol=1e-12)
    np.testing.assert_allclose(dynamics.participation_ratio(points), 14**2 / (81 + 16 + 1), rtol=0.05)
    plane = found._replace(axes=jnp.eye(2), mean=jnp.zeros(2), variances=jnp.ones(2))
    cell, made = linear(np.diag([0.5, 2.0]))
    flow = dynamics.flow_field(cell, made(cell.init(KEY, 2)), NO_INPUT(2), plane, extent=1.0, points=3)
    np.testing.assert_allclose(flow.velocity, flow.coordinates * jnp.array([-0.5, 1.0]), atol=1e-14)
    np.testing.assert_allclose(flow.speed[0, 0], np.hypot(0.5, 1.0))
