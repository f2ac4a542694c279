"""Noise, time constants and Dale's law of `LeakyRNN`; the reservoir of `EchoState` and its readout."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import (
    BPTT,
    Dale,
    EchoState,
    Elman,
    FixedTimeConstant,
    GlorotOrthogonal,
    LeakyRNN,
    LearnedTimeConstant,
    Reservoir,
    Scan,
)
from jaxrnn._cells.echo_state import spectral_radius
from jaxrnn.extend import step_keys
from jaxrnn.model import readout, ridge_readout

from .table import B, D, H, T, draw, far, initial, masks, run, unroll

key = jax.random.key(0)


def test_noise_has_the_variance_of_the_paper():
    """A linear network without weights is an Ornstein-Uhlenbeck process of standard deviation about sigma."""
    cell = LeakyRNN(50, time_constant=FixedTimeConstant(20, 1), activation="identity", sigma=0.5)
    params = jax.tree.map(jnp.zeros_like, initial(cell, key))
    state, _ = unroll(cell, params, jnp.zeros((200, 20, D)), key=key)
    assert 0.46 < float(state.std()) < 0.56  # sigma * sqrt(2 / (2 - alpha))
    assert not unroll(cell, params, jnp.zeros((20, 1, D)))[0].any()


def test_every_driver_and_streaming_draw_the_same_noise():
    cell = LeakyRNN(H, time_constant=LearnedTimeConstant(5, 1), sigma=0.3)
    params, state, xs = draw(cell)
    keyed = masks() | {"key": key}
    assert far(*(run(cell, params, state, xs, keyed, driver) for driver in (BPTT(2), Scan()))) < 2e-5
    _, ys = unroll(cell, params, xs, state, key=key)
    for key_t, x, y in zip(step_keys(key, T), xs, ys, strict=True):
        state, out = cell.step(params, state, x, key=key_t)
        np.testing.assert_allclose(out, y, atol=1e-6)
    assert LeakyRNN(H).noise(key, (B,)) == ()


def test_a_learned_time_constant_starts_as_the_fixed_one():
    fixed, learned = (LeakyRNN(H, time_constant=kind(50, 10)) for kind in (FixedTimeConstant, LearnedTimeConstant))
    params, state, xs = draw(fixed)
    local = learned.init(key, D).local
    np.testing.assert_allclose(learned.time_constant.rate(local), np.full(H, 0.2), atol=1e-6)
    assert far(unroll(learned, params._replace(local=local), xs, state), unroll(fixed, params, xs, state)) < 1e-6


def test_dales_law_holds_for_any_weights():
    dale = Dale(0.75)
    w = jax.random.normal(key, (8, 1, 8))
    (effective,) = dale(w, jnp.eye(8))
    assert bool((effective[:6] > 0).all())
    assert bool((effective[6:] < 0).all())
    np.testing.assert_array_equal(jnp.abs(effective), jnp.abs(w[:, 0]))
    for fraction, excitatory in ((0, 0), (1, 8), (0.5, 4)):
        assert int((Dale(fraction).signs(8) > 0).sum()) == excitatory


def test_excitation_and_inhibition_balance_at_first():
    cell = LeakyRNN(200, recurrence=Dale(0.8))
    (sums,) = cell.recurrence(cell.init(key, 3).w_h, jnp.ones(200))
    assert abs(float(sums.mean())) < 0.05 * float(jnp.abs(cell.init(key, 3).w_h).sum(0).mean())


def test_the_spectral_radius_is_the_largest_eigenvalue(x64):
    for seed in range(5):
        w = jax.random.normal(jax.random.key(seed), (30, 30))
        want = np.abs(np.linalg.eigvals(w)).max()
        np.testing.assert_allclose(spectral_radius(w), want, rtol=1e-5)


def test_a_reservoir_is_sparse_and_scaled():
    cell = EchoState(60, initializer=Reservoir(1.25, 0.05, 0.5, 0.1))
    params = cell.init(key, 3)
    w = np.asarray(params.w_h[:, 0])
    assert ((w != 0).sum(0) == 3).all()
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(w)).max(), 1.25, rtol=1e-4)
    assert 0.45 < float(jnp.abs(params.w_x).max()) <= 0.5
    assert 0.08 < float(jnp.abs(params.b).max()) <= 0.1


def test_a_reservoir_has_no_gradient_and_its_inputs_have_one():
    cell = EchoState(H, initializer=Reservoir(density=0.5))
    params, state, xs = draw(cell)
    for driver in (Scan(), BPTT(2)):
        _, (dparams, dstate, dxs) = run(cell, params, state, xs, {}, driver)
        assert not any(a.any() for a in jax.tree.leaves(dparams))
        assert bool(dstate.any())
        assert bool(dxs.any())


def test_any_cell_takes_a_reservoir():
    params = Elman(40, initializer=Reservoir(density=0.2)).init(key, 2)
    assert int((params.w_h != 0).sum()) == 8 * 40
    assert EchoState(40, initializer=GlorotOrthogonal()).init(key, 2).w_h.all()


def test_the_readout_is_that_of_least_squares(x64):
    rng = np.random.default_rng(0)
    hs, targets = (jnp.asarray(rng.standard_normal((30, 4, n))) for n in (5, 2))
    lengths, mask = np.array([30, 12, 0, 7]), rng.random((30, 4)) < 0.8
    got = ridge_readout(hs, targets, regularization=0.5, lengths=lengths, mask=mask)
    rows = mask & (np.arange(30)[:, None] < lengths)
    x, y = np.asarray(hs)[rows], np.asarray(targets)[rows]
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    want = np.linalg.solve(x.T @ x + 0.5 * np.diag([1, 1, 1, 1, 1, 0]), x.T @ y)
    np.testing.assert_allclose(got.v, want[:-1], atol=1e-12)
    np.testing.assert_allclose(got.c, want[-1], atol=1e-12)
    padded = jnp.where(rows[..., None], hs, jnp.nan)
    assert far(ridge_readout(padded, targets, regularization=0.5, lengths=lengths, mask=mask), got) == 0


def test_an_echo_state_network_recalls_its_inputs():
    cell = EchoState(100, initializer=Reservoir(input_scale=0.1))
    xs = jax.random.uniform(key, (300, 2, 1))
    _, ys = jaxrnn.unroll(cell, cell.init(key, 1), xs)
    params = ridge_readout(ys[3:200], xs[:197])
    error = readout(params, ys[203:]) - xs[200:-3]
    assert float(jnp.sqrt((error**2).mean())) < 0.02
