"""Scores of samples and quantiles, and scaling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.forecast import (
    Gaussian,
    LastValue,
    MeanScaling,
    Quantiles,
    Standardization,
    crps_from_quantiles,
    crps_from_samples,
    pinball,
)


def test_the_score_of_samples_is_the_mean_over_pairs():
    x, y = np.random.default_rng(0).normal(size=(7, 3)), np.array([0.3, -2.0, 5.0])
    pairs = np.abs(x[:, None] - x[None]).sum((0, 1)) / (7 * 6)
    got = crps_from_samples(x.astype(np.float32), y.astype(np.float32))
    np.testing.assert_allclose(got, np.abs(x - y).mean(0) - pairs / 2, rtol=1e-5)


def test_the_scores_of_many_samples_and_quantiles_are_that_of_the_distribution():
    outputs, y, levels = jnp.array([0.4, 1.0]), jnp.array(1.5), tuple(np.arange(0.005, 1, 0.01).tolist())
    want = Gaussian().crps(outputs, y)
    samples = Gaussian().sample(jnp.broadcast_to(outputs, (50_000, 2)), jax.random.key(0))
    np.testing.assert_allclose(crps_from_samples(samples, y), want, rtol=0.03)
    quantiles = Gaussian().quantiles(outputs, levels)
    np.testing.assert_allclose(crps_from_quantiles(levels, quantiles, y), want, rtol=0.01)
    np.testing.assert_allclose(Quantiles(levels).crps(quantiles, y), want, rtol=0.01)


def test_scores_check_their_shapes():
    with pytest.raises(ValueError, match="two samples or more"):
        crps_from_samples(jnp.ones((1, 3)), jnp.ones(3))
    with pytest.raises(ValueError, match=r"need quantiles \(3, 2\)"):
        pinball((0.1, 0.9), jnp.ones((3, 3)), jnp.ones(3))
    with pytest.raises(ValueError, match="ascending"):
        crps_from_quantiles((0.9, 0.1), jnp.ones(2), jnp.ones(()))


@pytest.mark.parametrize("scaling", [MeanScaling(), Standardization(), LastValue()])
def test_scaling_is_by_the_valid_steps_alone(scaling):
    xs = jax.random.normal(jax.random.key(0), (6, 3, 2)) * 3 + 5
    lengths, mask = jnp.array([4, 6, 0]), jnp.ones((6, 3), bool).at[3, 0].set(False).at[0, 1].set(False)
    valid = mask & (jnp.arange(6)[:, None] < lengths)
    got = scaling(jnp.where(valid[..., None], xs, jnp.nan), lengths, mask)
    for row, steps in ((0, slice(0, 3)), (1, slice(1, 6))):
        want = scaling(xs[steps, row])
        jax.tree.map(lambda a, b, row=row: np.testing.assert_allclose(a[row], b, rtol=1e-5), got, want)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(got))
    np.testing.assert_allclose(got.denormalize(got.normalize(xs)), xs, rtol=1e-4, atol=1e-3)


def test_scaling_takes_whole_numbers_and_refuses_one_axis():
    assert float(MeanScaling()(jnp.array([[1], [3]])).scale[0]) == 3
    with pytest.raises(ValueError, match=r"pass xs\[:, None\]"):
        Standardization()(jnp.ones(4))
