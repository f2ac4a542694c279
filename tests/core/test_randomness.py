"""Randomness at every step: the same numbers under every driver, when streaming, and in composites."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import jaxrnn
from jaxrnn import (
    BPTT,
    GRU,
    Associative,
    Bidirectional,
    Dropout,
    Fused,
    Loop,
    Newton,
    RecurrentDropout,
    Residual,
    Reversed,
    Scan,
    Stack,
    States,
    VariationalDropout,
    Zoneout,
)
from jaxrnn.extend import WrappedCell, WrappedGatedCell, length_mask, step_keys

from .table import B, D, T, far, masks, run, unroll

KEY = jax.random.key(3)


@dataclasses.dataclass(frozen=True)
class Leaky(jaxrnn.GatedCell):
    hidden: int
    gates = 1

    def initial_state(self, params, batch=()):
        return jnp.zeros((*batch, self.hidden))

    def read(self, h):
        return h

    def noise(self, key, batch):
        return jax.random.normal(key, (*batch, self.hidden))

    def gate(self, h, u, v):
        u, noise = u
        return 0.9 * h + 0.1 * jnp.tanh(u + v[0]) + 0.3 * noise


@dataclasses.dataclass(frozen=True)
class Kalman(jaxrnn.AffineCell):
    hidden: int

    def init(self, key, in_dim):
        return jax.random.normal(key, (in_dim, self.hidden))

    def initial_state(self, params, batch=()):
        return jnp.zeros((*batch, self.hidden))

    def noise(self, key, batch):
        return jax.random.normal(key, (*batch, self.hidden)), jax.random.normal(key, (*batch, 1))

    def affine(self, params, x):
        x, of_state, of_input = x
        return jnp.full((*x.shape[:-1], self.hidden), 0.9), (x + of_input) @ params + of_state


@dataclasses.dataclass(frozen=True)
class Plain:
    hidden: int

    def init(self, key, in_dim):
        return jax.random.normal(key, (in_dim, self.hidden))

    def initial_state(self, params, batch=()):
        return jnp.zeros((*batch, self.hidden))

    def step(self, params, state, x, *, key=None):
        noise = 0.0 if key is None else jax.random.normal(key, state.shape)
        state = jnp.tanh(0.5 * state + x @ params + noise)
        return state, state


DRIVERS = {
    Leaky: [Loop(), BPTT(2), BPTT(2, keep_gates=True), Scan(hoist=2), Newton(), Fused(interpret=True)],
    Kalman: [Loop(), Associative(), Newton(), None],
    Plain: [Loop(), Newton()],
}
STEPS = {  # composites whose step draws what unroll draws
    "stack": Stack((Leaky(4), Zoneout(Leaky(4), 0.3), Dropout(0.4), Plain(4), Zoneout(GRU(3), 0.2))),
    "residual": Residual(Leaky(D)),
    "states": States(Leaky(4)),
    "states of a plain cell": States(Plain(4)),
    "affine": Kalman(4),
    "nested": Stack((Stack((Plain(3), Leaky(4))), Leaky(4))),
}


def inputs(cell):
    return cell.init(jax.random.key(0), D), jax.random.normal(jax.random.key(1), (T, B, D))


@pytest.mark.parametrize("kind", DRIVERS)
def test_every_driver_draws_the_same(kind):
    cell = kind(4)
    params, xs = inputs(cell)
    state = cell.initial_state(params, (B,))
    kw = masks() | {"key": KEY}
    (_, (_, want)), want_grads = run(cell, params, state, xs, kw, Scan())
    assert far(want, unroll(cell, params, xs, driver=Scan(), **masks())[1]) > 0.1
    for driver in DRIVERS[kind]:
        (_, (_, ys)), grads = run(cell, params, state, xs, kw, driver)
        assert far(ys, want) < 1e-5, driver
        assert far(grads, want_grads) < 1e-4, driver


@pytest.mark.parametrize("name", STEPS)
def test_step_with_the_keys_of_the_steps_draws_what_unroll_draws(name):
    cell = STEPS[name]
    params, xs = inputs(cell)
    want = unroll(cell, params, xs, key=KEY)[1]
    state, ys = cell.initial_state(params, (B,)), []
    step = jax.jit(lambda state, x, key: cell.step(params, state, x, key=key))
    for key, x in zip(step_keys(KEY, T), xs, strict=True):
        state, y = step(state, x, key)
        ys.append(y)
    assert far(jnp.stack(ys), want) < 1e-6
    assert far(unroll(cell, params, xs)[1], want) > 1e-2
    raw = jax.random.key_data(KEY)
    assert far(unroll(cell, params, xs, key=raw)[1], want) == 0


def test_without_a_key_the_noise_is_zero():
    cell = Leaky(4)
    params, xs = inputs(cell)
    h = jnp.zeros((B, 4))
    for x, y in zip(xs, unroll(cell, params, xs)[1], strict=True):
        h = 0.9 * h + 0.1 * jnp.tanh(x @ params.w_x[:, 0] + h @ params.w_h[:, 0] + params.b[0])
        assert far(h, y) < 1e-6


def test_layers_and_directions_draw_differently():
    both = Bidirectional(Leaky(4))
    params, xs = inputs(both)
    params = both.init(KEY, D)._replace(forward=params.forward, backward=params.forward)
    constant = jnp.ones_like(xs)
    ys = unroll(both, params, constant, key=KEY)[1]
    assert far(ys[::-1, :, 4:], ys[..., :4]) > 1e-2
    reverse = unroll(Reversed(Leaky(4)), params.forward, xs, key=KEY, resets=~length_mask(jnp.full(B, 2), T))[1]
    assert jnp.isfinite(reverse).all()


@pytest.mark.parametrize("layer", [VariationalDropout(0.5), RecurrentDropout(GRU(D), 0.5)])
def test_a_step_of_what_draws_once_a_sequence_takes_no_key(layer):
    params, xs = inputs(layer)
    with pytest.raises(ValueError, match="draws one mask for a whole sequence"):
        layer.step(params, layer.initial_state(params, (B,)), xs[0], key=KEY)


class Shifted(WrappedGatedCell):
    """A wrapped cell with noise, over one without."""

    def noise(self, key, batch):
        return jax.random.normal(key, (*batch, self.hidden))

    def transition(self, local, s, u, v):
        *u, noise = u
        return self.cell.transition(local, s, tuple(u), v) + noise


@pytest.mark.parametrize(
    ("impl", "cell"),
    [("threefry2x32", Shifted(jaxrnn.Elman(4))), ("rbg", Stack((Leaky(4), Dropout(0.5), Zoneout(GRU(3), 0.3))))],
)
def test_other_keys_and_wrapped_cells_draw_for_a_step_what_they_draw_in_unroll(impl, cell):
    params, xs = inputs(cell)
    key = jax.random.key(0, impl=impl)
    want, state = unroll(cell, params, xs, key=key)[1], cell.initial_state(params, (B,))
    for t, step_key in enumerate(step_keys(key, T)):
        state, y = cell.step(params, state, xs[t], key=step_key)
        assert far(y, want[t]) < 1e-5
    assert unroll(cell, params, xs[:0], key=key)[1].shape == (0, *want.shape[1:])


def test_parts_of_time_on_devices_draw_what_one_device_draws():
    cell = Kalman(4)
    params = cell.init(KEY, D)
    xs = jax.random.normal(KEY, (8, B, D))
    spec = jax.sharding.PartitionSpec
    split = jax.shard_map(
        lambda params, xs: jaxrnn.unroll(cell, params, xs, key=KEY, driver=Associative(axis="time"))[1],
        mesh=jax.make_mesh((4,), ("time",), axis_types=(jax.sharding.AxisType.Auto,)),
        in_specs=(spec(), spec("time")),
        out_specs=spec("time"),
    )
    assert far(jax.jit(split)(params, xs), unroll(cell, params, xs, key=KEY)[1]) < 1e-5


def test_noise_is_sharded_as_the_batch_alone():
    cell = Leaky(3)
    params, _ = inputs(cell)
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    params = cell.init(KEY, 4)
    xs = jax.random.normal(KEY, (T, 2, 4))
    want = unroll(cell, params, xs, key=KEY, driver=Scan())[1]
    with jax.set_mesh(mesh):
        spec = jax.sharding.PartitionSpec(None, "data", "model")
        ys = jax.jit(lambda xs: jaxrnn.unroll(cell, params, xs, key=KEY, driver=Scan())[1])(jax.device_put(xs, spec))
    assert far(jax.device_get(ys), jax.device_get(want)) < 1e-5


def test_a_composite_whose_step_takes_no_key_is_refused():
    own = {"step": lambda self, params, state, x: None, "unroll": lambda self, runner, params, state, reset, xs: None}
    with pytest.raises(TypeError, match=r"step takes no key: write step\(self, params, state, x, \*, key=None\)"):
        type("Deaf", (WrappedCell,), own)
