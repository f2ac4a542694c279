"""Heads: densities against SciPy, scores against numerical integration, quantiles, draws, scaling, padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jaxrnn.forecast import Gaussian, NegativeBinomial, Quantiles, Scale, StudentT, forecast_loss

LEVELS = (0.02, 0.1, 0.5, 0.9, 0.98)


def softplus(o):
    return np.logaddexp(0, np.asarray(o, float))


def gaussian(o, loc=0.0, scale=1.0):
    return stats.norm(loc + scale * o[0], scale * (1e-4 + softplus(o[1])))


def student(o, loc=0.0, scale=1.0):
    return stats.t(2.1 + softplus(o[2]), loc + scale * o[0], scale * (1e-4 + softplus(o[1])))


def negative_binomial(o, loc=0.0, scale=1.0):
    mu, alpha = scale * (1e-4 + softplus(o[0])), (1e-4 + softplus(o[1])) / np.sqrt(scale)
    return stats.nbinom(1 / alpha, 1 / (1 + alpha * mu))


CASES = [
    (Gaussian(), gaussian, [(0.3, -1.0), (-2.0, 3.0)], (-1.5, 0.2, 4.0), Scale(jnp.full(1, 3.0), jnp.full(1, 2.5))),
    (
        StudentT(),
        student,
        [(0.3, -1.0, -3.0), (1.0, 2.0, 3000.0)],
        (-20.0, 0.3, 4.0),
        Scale(jnp.ones(1), jnp.ones(1) * 4),
    ),
    (NegativeBinomial(), negative_binomial, [(3.0, -1.0), (-1.0, -9.5)], (0, 3, 60), None),
    (NegativeBinomial(), negative_binomial, [(40.0, 2.0), (3.0, -6.0)], (0, 7, 90), Scale(None, jnp.full(1, 20.0))),
]
EACH = [
    (head, twin, o, targets, scale if i == len(outputs) - 1 else None)
    for head, twin, outputs, targets, scale in CASES
    for i, o in enumerate(outputs)
]


def twin_of(twin, o, scale):
    loc = 0.0 if scale is None or scale.loc is None else float(scale.loc[0])
    return twin(o, loc, 1.0 if scale is None else float(scale.scale[0]))


def integrated_crps(dist, y, discrete):
    if discrete:
        k = np.arange(int(max(dist.ppf(1 - 1e-9), y)) + 2)
        return ((dist.cdf(k) - (k >= y)) ** 2).sum()
    left = integrate.quad(lambda x: dist.cdf(x) ** 2, -np.inf, y, limit=200)[0]
    return left + integrate.quad(lambda x: dist.sf(x) ** 2, y, np.inf, limit=200)[0]


@functools.partial(jax.jit, static_argnums=0)
def everything(head, outputs, targets, scale):
    quantiles = head.quantiles(outputs[0], LEVELS, scale)[0]
    return (
        head.loss(outputs, targets, scale)[:, 0],
        head.mean(outputs[0], scale)[0],
        quantiles,
        head.crps(outputs, targets, scale)[:, 0],
    )


@pytest.mark.parametrize(("head", "twin", "o", "targets", "scale"), EACH)
def test_density_mean_quantiles_and_score_are_those_of_scipy(head, twin, o, targets, scale):
    """The score is the integral over the distribution function."""
    want, discrete = twin_of(twin, o, scale), isinstance(head, NegativeBinomial)
    outputs = jnp.broadcast_to(jnp.array(o), (len(targets), 1, len(o)))
    loss, mean, quantiles, crps = everything(head, outputs, jnp.array(targets, jnp.float32)[:, None], scale)
    np.testing.assert_allclose(loss, -(want.logpmf if discrete else want.logpdf)(targets), rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(mean, want.mean(), rtol=1e-5)
    np.testing.assert_allclose(quantiles, want.ppf(LEVELS), rtol=3e-4, atol=1e-4)
    np.testing.assert_allclose(crps, [integrated_crps(want, y, discrete) for y in targets], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[3]])
def test_draws_have_the_distribution(case):
    head, twin, (*_, o), _, scale = case
    outputs = jnp.broadcast_to(jnp.array(o), (20_000, 1, len(o)))
    draws, dist = np.asarray(jax.jit(head.sample)(outputs, jax.random.key(3), scale))[:, 0], twin_of(twin, o, scale)
    for level in (0.1, 0.5, 0.9):  # the share of the draws below a quantile, within 5 standard deviations
        at = dist.ppf(level)
        np.testing.assert_allclose((draws <= at).mean(), dist.cdf(at), atol=5 * np.sqrt(0.25 / 20_000))


def test_the_minimum_of_the_pinball_loss_is_the_quantile():
    head, targets = Quantiles((0.1, 0.5, 0.9)), jax.random.gamma(jax.random.key(0), 2.0, (4000,))
    loss = lambda o: head.loss(jnp.broadcast_to(o, (4000, 3)), targets).mean()
    step = lambda o, rate: (o - rate * jax.grad(loss)(o), None)
    o, _ = jax.jit(lambda rates: jax.lax.scan(step, jnp.ones(3), rates))(8.0 * 0.98 ** jnp.arange(300.0))
    np.testing.assert_allclose(o, np.quantile(targets, head.levels), atol=0.01)


def test_quantiles_are_sorted_and_interpolated():
    head, outputs = Quantiles((0.1, 0.5, 0.9)), jnp.array([3.0, -1.0, 0.0])
    np.testing.assert_allclose(head.quantiles(outputs, (0.1, 0.3, 0.9)), [-1.0, -0.5, 3.0], atol=1e-6)
    np.testing.assert_allclose(head.mean(outputs), 0.1 * -1 + 0.4 * -0.5 + 0.4 * 1.5 + 0.1 * 3, rtol=1e-5)
    draws = head.sample(jnp.broadcast_to(outputs, (20_000, 3)), jax.random.key(0))
    assert float(draws.mean()) == pytest.approx(float(head.mean(outputs)), abs=0.05)
    assert Quantiles((0.5,)).quantiles(jnp.ones((4, 1)), (0.5,)).shape == (4, 1)
    scale = Scale(jnp.array([10.0]), jnp.array([2.0]))
    np.testing.assert_allclose(head.quantiles(outputs[None], (0.5,), scale), [[10.0]])
    with pytest.raises(ValueError, match=r"knows the levels from 0\.1 to 0\.9"):
        head.quantiles(outputs, (0.05,))


@pytest.mark.parametrize("head", [Gaussian(), StudentT(), NegativeBinomial(), Quantiles()])
def test_padding_reaches_neither_loss_nor_gradient(head):
    outputs = jax.random.normal(jax.random.key(0), (5, 3, 2, head.features))
    targets, lengths = jnp.ones((5, 3, 2)), jnp.array([5, 2, 0])
    mask = jnp.ones((5, 3), bool).at[1, 0].set(False)
    valid = mask & (jnp.arange(5)[:, None] < lengths)
    scale = Scale(None, jnp.full((3, 2), 2.0))
    loss = jax.jit(jax.value_and_grad(lambda o, y: forecast_loss(head, o, y, scale=scale, lengths=lengths, mask=mask)))
    want = loss(outputs, targets)
    got = loss(jnp.where(valid[..., None, None], outputs, jnp.nan), jnp.where(valid[..., None], targets, jnp.nan))
    jax.tree.map(np.testing.assert_array_equal, got, want)
    each = head.loss(outputs, targets, scale)
    np.testing.assert_allclose(want[0], each[valid].mean(), rtol=1e-5)
    assert not want[1][~valid].any()
    assert np.isfinite(want[1]).all()


def test_errors_name_the_fix():
    with pytest.raises(ValueError, match=r"takes 2 outputs for each target.*reshape them to \(..., K, 2\)"):
        Gaussian().loss(jnp.ones((3, 5)), jnp.ones(3))
    with pytest.raises(ValueError, match=r"need targets \(3,\); got \(4,\)"):
        Gaussian().crps(jnp.ones((3, 2)), jnp.ones(4))
    with pytest.raises(ValueError, match="between 0 and 1"):
        StudentT().quantiles(jnp.ones(3), (0.0,))
    with pytest.raises(ValueError, match=r"Use MeanScaling\(\)"):
        NegativeBinomial().mean(jnp.ones((1, 2)), Scale(jnp.ones(1), jnp.ones(1)))
    with pytest.raises(ValueError, match="ascending"):
        Quantiles((0.9, 0.1))
    with pytest.raises(ValueError, match="above 2"):
        StudentT(min_df=2.0)
    with pytest.raises(ValueError, match=r"\(T, \*batch, K, F\)"):
        forecast_loss(Gaussian(), jnp.ones((3, 2)), jnp.ones(3))
