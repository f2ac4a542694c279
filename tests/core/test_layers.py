"""Layers without a state, and layers side by side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxrnn
from jaxrnn import (
    GRU,
    LSTM,
    Apply,
    Bidirectional,
    Concat,
    Dropout,
    FlaxInit,
    LayerNorm,
    Linear,
    Product,
    RMSNorm,
    Stack,
)
from jaxrnn.extend import step_keys

from .. import quick
from .table import B, D, T, draw, far, masks, total, unroll


def normalized(x, groups, centred):
    x = x.reshape(*x.shape[:-1], groups, -1)
    x = x - x.mean(-1, keepdims=True) if centred else x
    return (x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)).reshape(*x.shape[:-2], -1)


scale = Apply(lambda key, in_dim: {"scale": jnp.ones(in_dim)}, lambda p, x: jnp.sin(p["scale"] * x))
EQUATIONS = {
    "linear": (Linear(5), lambda p, x: x @ p.w + p.b),
    "linear without a bias": (Linear(5, bias=False), lambda p, x: x @ p.w),
    "linear with an activation": (Linear(5, activation="tanh"), lambda p, x: np.tanh(x @ p.w + p.b)),
    "layer norm": (LayerNorm(), lambda p, x: p.scale * normalized(x, 1, True) + p.bias),
    "group norm": (LayerNorm(groups=2), lambda p, x: p.scale * normalized(x, 2, True) + p.bias),
    "rms norm": (RMSNorm(), lambda p, x: p.scale * normalized(x, 1, False)),
    "rms norm in groups": (RMSNorm(groups=2), lambda p, x: p.scale * normalized(x, 2, False)),
    "apply": (scale, lambda p, x: np.sin(p["scale"] * x)),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_layer_is_its_equation_in_any_axes(x64, name):
    layer, equation = EQUATIONS[name]
    params, state, xs = draw(layer, batch=(2, 3))
    want = equation(*jax.tree.map(np.asarray, (params, xs)))
    assert state == ()
    assert want.shape[-1] == layer.out_dim(D)
    np.testing.assert_allclose(unroll(layer, params, xs)[1], want, atol=1e-12)
    np.testing.assert_allclose(unroll(layer, params, xs[:, 0, 0])[1], want[:, 0, 0], atol=1e-12)
    np.testing.assert_allclose(layer.step(params, (), xs[1])[1], want[1], atol=1e-12)


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_dtype_of_outputs_is_that_of_the_params(name):
    layer, equation = EQUATIONS[name]
    params, _, xs = draw(layer)
    if name != "apply":
        narrow = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
        y = layer.step(narrow, (), xs[0])[1]
        assert y.dtype == jnp.bfloat16
        want = equation(*jax.tree.map(lambda a: np.asarray(a, np.float64), (narrow, xs[0])))
        np.testing.assert_allclose(np.asarray(y, np.float64), want, atol=0.05)
    assert layer.step(params, (), xs[0])[1].dtype == jnp.float32


def test_statistics_of_narrow_params_are_wide():
    """A mean of 256 with a deviation of 1 has no digits left in bfloat16."""
    layer = LayerNorm()
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), layer.init(jax.random.key(0), 4))
    y = layer.step(params, (), jnp.array([1000.0, 1001.0, 1002.0, 1003.0]))[1]
    np.testing.assert_allclose(y.astype(jnp.float32), [-1.34, -0.447, 0.447, 1.34], atol=0.01)


def test_weights_of_a_linear_layer_are_drawn_by_its_initializer():
    w = Linear(64).init(jax.random.key(0), 32).w
    assert 0.98 < float(jnp.abs(w).max()) / (6 / (32 + 64)) ** 0.5 <= 1
    assert 0.9 < float(Linear(64, initializer=FlaxInit()).init(jax.random.key(0), 32).w.std()) * 32**0.5 < 1.1
    assert Linear(3).init(jax.random.key(0), 0).w.shape == (0, 3)


PARALLEL = {
    "product": (Product((Linear(6), Stack((Linear(4), GRU(6))))), lambda a, b: a * b),
    "concat": (Concat((Linear(2), LSTM(3))), lambda a, b: jnp.concatenate([a, b], -1)),
}


@pytest.mark.parametrize("name", PARALLEL)
def test_layers_side_by_side_get_the_same_inputs(name):
    layer, combine = PARALLEL[name]
    params, state, xs = draw(layer)
    kw = masks()
    each = [unroll(part, p, xs, s, **kw) for part, p, s in zip(layer.layers, params, state, strict=True)]
    final, ys = unroll(layer, params, xs, state, **kw)
    assert far(final, tuple(s for s, _ in each)) < 1e-6
    assert far(ys, combine(*(y for _, y in each))) < 1e-6
    assert ys.shape[-1] == layer.out_dim(D)
    step = quick.jit(layer.step)
    plain = unroll(layer, params, xs, state)
    for x, y in zip(xs, plain[1], strict=True):
        state, got = step(params, state, x)
        assert far(got, y) < 1e-6
    assert far(state, plain[0]) < 1e-6


def test_layers_side_by_side_draw_differently_and_as_their_steps_do():
    layer = Concat((Dropout(0.5), Dropout(0.5)))
    xs, key = jnp.ones((T, B, 40)), jax.random.key(0)
    ys = unroll(layer, ((), ()), xs, key=key)[1]
    assert far(ys[..., :40], ys[..., 40:]) > 0
    for t, k in enumerate(step_keys(key, T)):
        assert far(layer.step(((), ()), ((), ()), xs[t], key=k)[1], ys[t]) == 0


def test_a_part_without_a_causal_step_is_for_unroll_alone():
    layer = Concat((Bidirectional(GRU(2)), Linear(3)))
    params, state, xs = draw(layer)
    assert unroll(layer, params, xs)[1].shape == (T, B, 7)
    with pytest.raises(ValueError, match=r"Bidirectional has no causal step.*neither has Concat"):
        layer.step(params, state, xs[0])


def test_nothing_before_a_reset_reaches_a_gradient_through_a_layer_without_a_state():
    stack = Stack((Linear(4, activation="gelu"), RMSNorm(), GRU(3), Linear(2)))
    params, state, xs = draw(stack)
    resets = np.zeros((T, B), bool)
    resets[2] = True
    dirty = np.array(xs)
    dirty[:2] = np.nan

    def loss(params, xs, **kw):
        final, ys = jaxrnn.unroll(stack, params, xs, **kw)
        return total(final, ys[-3:])

    grad = quick.jit(jax.grad(loss, (0, 1)))
    (got, dxs), (want, dxs_alone) = grad(params, dirty, resets=resets), grad(params, xs[2:])
    assert far(got, want) < 1e-4
    assert far(dxs[2:], dxs_alone) < 1e-4
    assert not dxs[:2].any()


def test_a_linear_layer_with_sharded_weights_and_rows():
    mesh = jax.make_mesh((2, 4), ("batch", "model"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    layer = Stack((Linear(8, activation="relu"), LayerNorm(), Linear(4)))
    params, _, xs = draw(layer, batch=(4,))
    want = unroll(layer, params, xs)[1]
    with jax.set_mesh(mesh):
        first = params[0]._replace(w=jax.device_put(params[0].w, P(None, "model")))
        rows = jax.device_put(xs, P(None, "batch"))
        got = jax.jit(lambda params, xs: jaxrnn.unroll(Linear(8, activation="relu"), params, xs)[1])(first, rows)
        ys = jax.jit(lambda params, xs: jaxrnn.unroll(layer, params, xs)[1])(params, rows)
    assert jax.typeof(ys).sharding.spec[1] == "batch"
    np.testing.assert_allclose(ys, want, atol=1e-5)
    np.testing.assert_allclose(got, unroll(Linear(8, activation="relu"), params[0], xs)[1], atol=1e-5)


def test_apply_raises_for_what_is_no_layer():
    layer = Apply(lambda key, in_dim: (), lambda params, x: x.sum())
    with pytest.raises(ValueError, match=r"for x \(3,\) it returns"):
        Stack((layer, GRU(2))).init(jax.random.key(0), 3)
    with pytest.raises(ValueError, match="must be hashable"):
        Apply(lambda key, in_dim: (), Unhashable()).init(jax.random.key(0), 3)


class Unhashable:
    """A function that cannot be a static argument of `jax.jit`."""

    __hash__ = None

    def __call__(self, params, x):
        return x
