"""Modules of other libraries as layers, through `Apply`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import GRU, Apply, Stack

D, K = 4, 5


def linen():
    nn = pytest.importorskip("flax.linen")
    module = nn.Sequential([nn.Dense(6), nn.relu, nn.Dense(K)])
    layer = Apply(lambda key, in_dim: module.init(key, jnp.ones(in_dim)), module.apply)
    return layer, lambda params, x: module.apply(params, x)


def nnx():
    nnx = pytest.importorskip("flax.nnx")
    make = lambda key: nnx.split(nnx.Linear(D, K, rngs=nnx.Rngs(key)))
    graph, _ = make(jax.random.key(0))
    layer = Apply(lambda key, in_dim: make(key)[1], lambda params, x: nnx.merge(graph, params)(x))
    return layer, lambda params, x: nnx.merge(graph, params)(x)


def haiku():
    hk = pytest.importorskip("haiku")
    f = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([6, K])(x)))
    layer = Apply(lambda key, in_dim: f.init(key, jnp.ones(in_dim)), f.apply)
    return layer, lambda params, x: f.apply(params, x)


@pytest.mark.parametrize("make", [linen, nnx, haiku], ids=lambda f: f.__name__)
def test_a_module_is_a_layer(make):
    layer, call = make()
    stack = Stack((layer, GRU(3)))
    params = stack.init(jax.random.key(0), D)
    xs = jax.random.normal(jax.random.key(1), (6, 2, D))
    assert layer.out_dim(D) == K
    run = jax.jit(lambda params, xs: jaxrnn.unroll(stack, params, xs, lengths=np.array([6, 2]))[1])
    want = jaxrnn.unroll(GRU(3), params[1], call(params[0], xs), lengths=np.array([6, 2]))[1]
    np.testing.assert_allclose(run(params, xs), want, atol=1e-6)
    state, y = stack.step(params, stack.initial_state(params, (2,)), xs[0])
    np.testing.assert_allclose(y, want[0], atol=1e-6)
    gradient = jax.grad(lambda params: run(params, xs).sum())(params)
    assert all(np.isfinite(g).all() and g.any() for g in map(np.asarray, jax.tree.leaves(gradient[0])))
