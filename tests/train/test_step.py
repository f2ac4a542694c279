"""One step: donation, clipping, skipped steps, noise, and any Optax optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxrnn.train import Carried, init, make_step

KEY = jax.random.key(0)


def loss(w, batch, key):
    return jnp.sum((batch @ w) ** 2), {"size": jnp.abs(w).max()}


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_step_equals_that_of_optax_and_compiles_once():
    optimizer = optax.adam(optax.exponential_decay(0.1, 1, 0.5))
    w = jnp.arange(3.0)
    batch = np.eye(3, dtype=np.float32)[:2]
    step = make_step(loss, optimizer, clip=None)
    state = init(w, optimizer, KEY)
    opt_state, want = optimizer.init(w), w
    for _ in range(3):
        state, metrics = step(state, batch)
        updates, opt_state = optimizer.update(jax.grad(lambda w: loss(w, batch, None)[0])(want), opt_state)
        want = optax.apply_updates(want, updates)
    np.testing.assert_allclose(state.params, want, rtol=1e-6)
    assert int(state.step) == 3
    assert sorted(metrics) == ["grad_norm", "loss", "size", "skipped"]
    assert step._cache_size() == 1


def test_donation_keeps_the_params_of_the_caller():
    w = jnp.arange(3.0)
    optimizer = optax.contrib.schedule_free_sgd(0.1)  # its initial state holds the params themselves
    state = init(w, optimizer, KEY)
    donated = state.params
    state, _ = make_step(loss, optimizer)(state, jnp.ones((2, 3)))
    assert w.tolist() == [0, 1, 2]
    assert donated.is_deleted()
    assert jax.random.key_data(KEY).tolist() == jax.random.key_data(state.key).tolist()


@pytest.mark.parametrize(("clip", "length"), [(None, 12.0), (1.0, 1.0), (100.0, 12.0)])
def test_clipping_is_by_the_global_norm(clip, length):
    params = {"a": jnp.zeros(4), "b": jnp.zeros(())}
    slope = {"a": jnp.full(4, 4.0), "b": jnp.array(jnp.sqrt(80.0))}

    def linear(p, batch, key):
        return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(p), jax.tree.leaves(slope), strict=True)), {}

    state, metrics = make_step(linear, optax.sgd(1.0), clip=clip)(init(params, optax.sgd(1.0), KEY), ())
    np.testing.assert_allclose(metrics["grad_norm"], 12.0, rtol=1e-6)
    np.testing.assert_allclose(optax.tree.norm(state.params), length, rtol=1e-6)


def test_a_step_with_a_loss_that_is_not_finite_is_skipped_and_counted():
    optimizer = optax.adam(0.1)
    step = make_step(loss, optimizer)
    state, _ = step(init(jnp.ones(3), optimizer, KEY), np.ones((2, 3), np.float32))
    before = jax.tree.map(np.asarray, (state.params, state.opt_state))
    for bad in (np.nan, np.inf):
        state, metrics = step(state, np.full((2, 3), bad, np.float32))
        assert int(metrics["skipped"]) == 1
    equal((state.params, state.opt_state), before)
    assert (int(state.skipped), int(state.step)) == (2, 3)
    state, metrics = step(state, np.ones((2, 3), np.float32))
    assert int(metrics["skipped"]) == 0
    assert np.isfinite(state.params).all()


def test_a_step_with_a_finite_loss_and_a_gradient_that_is_not_is_skipped():
    state = init(jnp.zeros(2), optax.sgd(0.1), KEY)
    state, metrics = make_step(lambda w, b, k: (jnp.sqrt(w).sum(), {}), optax.sgd(0.1))(state, ())
    assert np.isfinite(metrics["loss"])
    assert int(state.skipped) == 1
    assert state.params.tolist() == [0, 0]


def test_noise_differs_from_step_to_step_and_is_drawn_from_the_key():
    def noisy(w, batch, key):
        return jnp.sum(w) * 0, {"drawn": jax.random.normal(key)}

    step = make_step(noisy, optax.sgd(0.1))

    def draws(key):
        state, drawn = init(jnp.zeros(1), optax.sgd(0.1), key), []
        for _ in range(3):
            state, metrics = step(state, ())
            drawn.append(float(metrics["drawn"]))
        return drawn

    assert len(set(draws(KEY))) == 3
    assert draws(KEY) == draws(jax.random.key(0)) != draws(jax.random.key(1))


def test_the_carry_passes_between_batches_without_a_gradient():
    def loss(w, carry, batch, key):
        carry = carry + w * batch
        return carry, jnp.sum(carry), {}

    carried = Carried(loss, lambda w: jnp.zeros(()))
    w = jnp.array(2.0)
    state = init(w, optax.sgd(0.0), KEY, carried.initial(w))
    step = make_step(carried, optax.sgd(0.0), clip=None)
    for seen, total in ((1.0, 2.0), (3.0, 8.0)):
        state, metrics = step(state, jnp.array(seen))
        assert float(state.carry) == total
        assert float(metrics["grad_norm"]) == seen  # from this batch alone
    state, _ = step(state, jnp.array(jnp.nan))
    assert float(state.carry) == 8.0


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(0.1, momentum=0.9),
        optax.adamw(0.1),
        optax.chain(optax.add_noise(0.1, 0.5, 0), optax.sgd(0.1)),
        optax.inject_hyperparams(optax.rmsprop)(learning_rate=0.1),
        optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()),
    ],
    ids=["momentum", "adamw", "noise", "hyperparams", "plateau"],
)
def test_any_optimizer_takes_two_steps_and_compiles_once(optimizer):
    step = make_step(loss, optimizer)
    state = init(jnp.ones(3), optimizer, KEY)
    batch = np.ones((2, 3), np.float32)
    for _ in range(2):
        state, _ = step(state, batch)
    assert int(state.skipped) == 0
    assert not np.allclose(state.params, 1)
    assert step._cache_size() == 1


def test_with_params_on_a_mesh_the_whole_state_is_there_and_a_step_is_traced_once():
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
    params = jax.device_put(jnp.ones(3), NamedSharding(mesh, PartitionSpec()))
    traced = []
    step = make_step(lambda *arguments: [loss(*arguments), traced.append(1)][0], optax.adam(0.1))
    state = init(params, optax.adam(0.1), KEY)
    for _ in range(2):
        state, _ = step(state, jax.device_put(jnp.ones((2, 3)), NamedSharding(mesh, PartitionSpec("batch"))))
    assert len(traced) == 1


def test_a_duplicate_name_of_a_metric_raises():
    step = make_step(lambda w, b, k: (w.sum(), {"loss": w.sum()}), optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"reports \['loss'\] itself"):
        step(init(jnp.ones(3), optax.sgd(0.1), KEY), ())


def test_params_of_a_weak_type_compile_once():
    weak = jax.jit(lambda: 1.0)()
    assert weak.weak_type
    step = make_step(lambda w, b, k: ((w - b) ** 2, {}), optax.sgd(0.1))
    state = init(weak, optax.sgd(0.1), KEY)
    for _ in range(2):
        state, _ = step(state, np.float32(2))
    assert step._cache_size() == 1
