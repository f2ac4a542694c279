"""Composites: layers, directions, noise, learned and whole states."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import (
    BPTT,
    GRU,
    LSTM,
    Bidirectional,
    Dropout,
    LearnedState,
    LSTMState,
    ProjectedLSTM,
    Residual,
    Scan,
    Stack,
    States,
    VariationalDropout,
    Zoneout,
    unroll,
)

from .. import quick
from .table import B, D, H, T, draw, far, masks, total


def test_stack_is_one_layer_after_the_other():
    stack = Stack((LSTM(H), GRU(5)))
    params, state, xs = draw(stack)
    kw = masks()
    s_0, ys = unroll(LSTM(H), params[0], xs, state[0], **kw)
    s_1, ys = unroll(GRU(5), params[1], ys, state[1], **kw)
    assert far(unroll(stack, params, xs, state, **kw), ((s_0, s_1), ys)) < 1e-6
    assert stack.out_dim(D) == 5


def test_bidirectional_is_two_runs_side_by_side():
    both = Bidirectional(LSTM(H), GRU(5))
    params, state, xs = draw(both)
    kw = masks()
    forward = unroll(LSTM(H), params.forward, xs, state.forward, **kw)
    backward = unroll(GRU(5), params.backward, xs, state.backward, reverse=True, **kw)
    final, ys = unroll(both, params, xs, state, **kw)
    assert far(final, type(final)(forward[0], backward[0])) < 1e-6
    assert far(ys, jnp.concatenate([forward[1], backward[1]], -1)) < 1e-6


def test_reverse_is_the_flipped_run():
    cell = LSTM(H)
    params, state, xs = draw(cell)
    resets = jnp.zeros((T, B), bool).at[2, 0].set(True).at[4, 1].set(True)
    flipped = jnp.concatenate([jnp.zeros((1, B), bool), jnp.flip(resets[1:], 0)])  # the same boundaries from behind
    final, ys = unroll(cell, params, xs, state, resets=resets, reverse=True)
    other, sy = unroll(cell, params, jnp.flip(xs, 0), state, resets=flipped)
    assert far((final, ys), (other, jnp.flip(sy, 0))) < 1e-6


def test_residual_adds_the_input():
    cell = Residual(GRU(D))
    params, state, xs = draw(cell)
    assert far(unroll(cell, params, xs, state)[1], xs + unroll(GRU(D), params, xs, state)[1]) < 1e-6
    with pytest.raises(ValueError, match="maps 4 features to 5"):
        Residual(GRU(5)).init(jax.random.key(0), D)


def test_learned_state_is_learned_and_reset_to():
    cell = LearnedState(LSTM(H))
    params, _, xs = draw(cell)
    resets = jnp.zeros((T, B), bool).at[3].set(True)
    loss = lambda p, driver: total(*unroll(cell, p, xs, resets=resets, driver=driver))
    grads, by_scan = (quick.jit(jax.grad(functools.partial(loss, driver=d)))(params) for d in (BPTT(2), Scan()))
    assert all(bool(jnp.any(g)) for g in grads.state)
    assert far(grads, by_scan) < 1e-4
    start = cell.initial_state(params, (B,))
    np.testing.assert_array_equal(start.h[1], params.state.h)


@pytest.mark.parametrize("cell", [LSTM(H), ProjectedLSTM(H, 4)])
def test_states_puts_out_the_whole_state(cell):
    params, state, xs = draw(cell)
    final, ys = unroll(States(cell), params, xs, state)
    assert far(jax.tree.map(lambda y: y[-1], ys), final) == 0
    assert far(ys.h, unroll(cell, params, xs, state)[1]) < 1e-6
    with pytest.raises(ValueError, match="Wrap the cell inside"):
        States(Stack((cell,)))
    with pytest.raises(ValueError, match="no layer can stand on it"):
        Stack((States(cell), GRU(3))).init(jax.random.key(0), D)


def test_without_a_key_nothing_is_random():
    stack = Stack((Dropout(0.5), GRU(H), VariationalDropout(0.5)))
    params, state, xs = draw(stack)
    assert far(unroll(stack, params, xs, state)[1], unroll(GRU(H), params[1], xs, state[1])[1]) < 1e-6


def test_dropout_draws_for_every_step_and_variational_once():
    ones = jnp.ones((50, 20, 40))
    for layer, once in ((Dropout(0.25), False), (VariationalDropout(0.25), True)):
        _, ys = unroll(layer, (), ones, key=jax.random.key(0))
        assert set(np.unique(ys).tolist()) == {0.0, np.float32(1 / 0.75).item()}
        assert abs(float(ys.mean()) - 1) < 0.06
        assert bool((ys == ys[0]).all()) is once
        assert far(unroll(layer, (), ones, key=jax.random.key(0))[1], ys) == 0
        assert far(unroll(layer, (), ones, key=jax.random.key(1))[1], ys) > 0


def test_layers_draw_from_keys_of_their_own():
    stack = Stack((Dropout(0.5), Dropout(0.5)))
    _, ys = unroll(stack, ((), ()), jnp.ones((50, 20, 40)), key=jax.random.key(0))
    assert abs(float((ys > 0).mean()) - 0.25) < 0.01


@pytest.mark.parametrize("driver", [Scan(), BPTT(2)])
def test_zoneout_keeps_units_of_the_state(driver):
    cell = Zoneout(LSTM(40), LSTMState(h=0.2, c=0.6))
    params, state, xs = draw(cell, time=30)
    _, ys = unroll(Stack((States(LSTM(40)),)), (params,), xs, (state,))
    key = jax.random.key(0)
    f = lambda p, driver: total(*unroll(cell, p, xs, state, key=key, driver=driver))
    by_driver, by_scan = (quick.jit(jax.grad(functools.partial(f, driver=d)))(params) for d in (driver, Scan()))
    assert far(by_driver, by_scan) < 1e-3
    final, ys = unroll(cell, params, xs, state, key=key, driver=driver)
    kept = float((ys[1:] == ys[:-1]).mean())
    assert abs(kept - 0.2) < 0.03
    _, mean = unroll(cell, params, xs, state, driver=driver)
    assert float((mean[1:] == mean[:-1]).mean()) < 0.01
    stepped, y = cell.step(params, state, xs[0])
    assert far(y, mean[0]) < 1e-6


@pytest.mark.parametrize("make", [lambda: Dropout(1.0), lambda: Zoneout(LSTM(3), -0.1), lambda: Zoneout(LSTM(3), 1)])
def test_rates_are_probabilities(make):
    with pytest.raises(ValueError, match="0 <= rate < 1"):
        make()


def test_stacks_are_checked():
    for bad in ((), [LSTM(3)], LSTM(3)):
        with pytest.raises(ValueError, match="Stack takes a tuple"):
            Stack(bad)
    with pytest.raises(ValueError, match="Zoneout needs a GatedCell"):
        Zoneout(ProjectedLSTM(4, 2))


def test_the_defaults_work_as_written():
    cell = jaxrnn.LSTM(128)
    params = cell.init(jax.random.key(0), 8)
    state, ys = jaxrnn.unroll(cell, params, jnp.ones((10, 2, 8)))
    assert state.h.shape == (2, 128)
    assert ys.shape == (10, 2, 128)


@dataclasses.dataclass(frozen=True)
class Bias(jaxrnn.Composite):
    """A stateless layer that maps zeros to something else."""

    def init(self, key, in_dim):
        return jnp.ones(in_dim)

    def initial_state(self, params, batch=()):
        return ()

    def out_dim(self, in_dim):
        return in_dim

    def step(self, params, state, x, *, key=None):
        return state, x + params

    def unroll(self, runner, params, state, reset_state, xs):
        return self.step(params, state, xs)


def test_outputs_of_a_composite_are_zero_in_the_padding():
    stack = Stack((GRU(4), Bias()))
    params, _, xs = draw(stack)
    lengths = jnp.array([5, 2, 0])[: xs.shape[1]]
    run = lambda params: jaxrnn.unroll(stack, params, xs, lengths=lengths)[1]
    valid = jnp.arange(xs.shape[0])[:, None] < lengths
    assert (run(params)[~valid] == 0).all()
    gradient = jax.grad(lambda params: run(params).sum())(params)[1]
    assert (gradient == float(valid.sum())).all()


def test_a_class_with_an_unroll_derives_from_composite():
    structural = type(
        "Structural", (), {name: getattr(Bias, name) for name in ("init", "initial_state", "step", "unroll")}
    )
    for use in (lambda cell: jaxrnn.unroll(cell, jnp.ones(3), jnp.ones((2, 3))), lambda cell: Stack((cell,))):
        with pytest.raises(ValueError, match="defines `unroll`: derive it from"):
            use(structural())


def test_a_cell_with_a_transition_needs_no_gate():
    @dataclasses.dataclass(frozen=True)
    class Scaled(jaxrnn.GatedCell):
        hidden: int
        gates = 1

        def initial_state(self, params, batch=()):
            return jnp.zeros((*batch, self.hidden))

        def read(self, h):
            return h

        def init_local(self, key):
            return jnp.ones(self.hidden)

        def transition(self, local, h, u, v):
            return local * jnp.tanh(u[0] + v[0])

    params, state, xs = draw(Scaled(4))
    assert unroll(Scaled(4), params, xs, state)[1].shape == (*xs.shape[:2], 4)
