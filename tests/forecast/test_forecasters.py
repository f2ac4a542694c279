"""Forecasters: sampled paths of a known process, lengths, scaling, covariates, context."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import GRU, LSTM, Bidirectional, Linear
from jaxrnn.forecast import (
    DirectForecaster,
    Gaussian,
    LastValue,
    Quantiles,
    RecursiveForecaster,
    Standardization,
    forecast_loss,
)
from jaxrnn.model import ReadoutParams

PHI, SIGMA = 0.8, 0.5
OTHER = np.log(np.expm1(SIGMA - 1e-4))  # softplus makes σ of it


def autoregression():
    """Return a forecaster whose next number is φ x + σ ε, and its params."""
    forecaster = RecursiveForecaster(cell=Linear(1), head=Gaussian())
    params = forecaster.init(jax.random.key(0), in_dim=1)
    cell = params.cell._replace(w=jnp.ones((1, 1)), b=jnp.zeros(1))
    return forecaster, params._replace(cell=cell, readout=ReadoutParams(jnp.array([[PHI, 0.0]]), jnp.array([0, OTHER])))


def test_paths_of_a_first_order_autoregression_have_its_mean_and_variance():
    forecaster, params = autoregression()
    xs = jnp.array([[9.0, 1.0], [2.0, -3.0]])[..., None]
    paths = forecaster.sample_paths(params, xs, key=jax.random.key(1), steps=4, paths=4000)
    assert paths.shape == (4000, 4, 2, 1)
    n = np.arange(1, 5)
    variance = SIGMA**2 * (1 - PHI ** (2 * n)) / (1 - PHI**2)
    for row, x in enumerate((2.0, -3.0)):
        error = 4 * np.sqrt(variance / 4000)
        assert (np.abs(paths[:, :, row, 0].mean(0) - PHI**n * x) < error).all()
        np.testing.assert_allclose(paths[:, :, row, 0].var(0), variance, rtol=0.1)
    assert abs(np.corrcoef(paths[:, 0, 0, 0], paths[:, 0, 1, 0])[0, 1]) < 0.07  # rows are independent


def test_a_forecast_starts_from_the_last_valid_step():
    forecaster = RecursiveForecaster(cell=GRU(4), head=Gaussian(), targets=2, static=3, scaling=Standardization())
    xs, key = jax.random.normal(jax.random.key(0), (6, 3, 4)), jax.random.key(1)
    params, static = forecaster.init(key, in_dim=4), jax.random.normal(key, (3, 3))
    lengths, mask = jnp.array([4, 6, 1]), jnp.ones((6, 3), bool).at[5, 1].set(False)
    valid = mask & (jnp.arange(6)[:, None] < lengths)
    future = jnp.ones((5, 3, 2))
    draw = lambda xs, **kw: forecaster.sample_paths(params, xs, key=key, steps=5, paths=2, future=future, **kw)
    garbage = jnp.where(valid[..., None], xs, jnp.nan)
    past = {"lengths": lengths, "mask": mask, "static": static}
    np.testing.assert_array_equal(draw(garbage, **past), draw(jnp.where(valid[..., None], xs, 7), **past))
    direct = DirectForecaster(cell=GRU(4), head=Quantiles(), horizon=5, targets=2, static=3, scaling=LastValue())
    params = direct.init(key, in_dim=4)
    outputs, scale = direct(params, garbage, **past)
    assert outputs.shape == (5, 3, 2, 11)
    alone = direct(params, xs[:5, 1], static=static[1])  # row 1 ends with step 5, by its mask
    np.testing.assert_allclose(outputs[:, 1], alone.outputs, atol=1e-5)
    np.testing.assert_allclose(scale.loc, xs[jnp.array([3, 4, 0]), jnp.arange(3), :2], atol=1e-6)


def test_one_step_ahead_is_causal_and_scaled():
    forecaster = RecursiveForecaster(cell=LSTM(4), head=Gaussian(), scaling=LastValue())
    params, xs = forecaster.init(jax.random.key(0), in_dim=1), jax.random.normal(jax.random.key(1), (7, 2, 1))
    scale = forecaster.scaling(xs[:3])
    outputs, used = forecaster(params, xs, scale)
    np.testing.assert_array_equal(used.loc, xs[2])
    np.testing.assert_allclose(forecaster(params, xs[:4], scale).outputs, outputs[:4], atol=1e-6)
    moved, other = forecaster(params, xs + 5)
    np.testing.assert_allclose(
        forecaster.head.mean(moved, other), forecaster.head.mean(*forecaster(params, xs)) + 5, atol=1e-4
    )


def test_static_covariates_change_the_forecast_and_get_a_gradient():
    forecaster = DirectForecaster(cell=LSTM(4), head=Gaussian(), horizon=2, static=3)
    params, xs = forecaster.init(jax.random.key(0), in_dim=1), jnp.ones((5, 2, 1))
    assert params.static.h.shape == params.static.c.shape == (3, 4)
    loss = lambda params, static: forecast_loss(
        Gaussian(), forecaster(params, xs, static=static).outputs, jnp.ones((2, 2, 1))
    )
    grads = jax.jit(jax.grad(loss, (0, 1)))(params, jnp.eye(3)[:2])
    assert all(jnp.abs(leaf).max() > 1e-5 for leaf in jax.tree.leaves((grads[0].static, grads[1])))
    with pytest.raises(ValueError, match=r"static must be the static covariates \(2, 3\)"):
        forecaster(params, xs)


def test_errors_name_the_fix():
    forecaster, params = autoregression()
    draw = lambda xs, **kw: forecaster.sample_paths(
        params, xs, **{"key": jax.random.key(0), "steps": 2, "paths": 1} | kw
    )
    with pytest.raises(ValueError, match=r"need future covariates \(2, 1, 1\); got None"):
        draw(jnp.ones((3, 1, 2)))
    with pytest.raises(ValueError, match="draws from one key"):
        draw(jnp.ones((3, 1, 1)), key=None)
    with pytest.raises(ValueError, match=r"static must be the static covariates \(1, 0\)"):
        draw(jnp.ones((3, 1, 1)), static=jnp.ones((1, 2)))
    with pytest.raises(ValueError, match="2 targets, so in_dim is at least that; got 1"):
        RecursiveForecaster(cell=GRU(4), head=Gaussian(), targets=2).init(jax.random.key(0), 1)
    with pytest.raises(ValueError, match="no causal step"):
        RecursiveForecaster(cell=Bidirectional(GRU(4)), head=Gaussian())
    with pytest.raises(ValueError, match=r"head must be an instance such as Gaussian\(\)"):
        DirectForecaster(cell=GRU(4), head=Gaussian, horizon=3)
