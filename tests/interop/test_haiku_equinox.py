"""The equations are those of haiku and equinox, once weights are moved; each conversion states where they differ."""

import jax
import jax.numpy as jnp
import pytest

from jaxrnn import GRU, LSTM, Elman, GatedParams, LSTMState, ResetBeforeGRU, unroll

from .parity import BATCH, HIDDEN, IN, agree, inputs, noise

STATE = jnp.zeros((BATCH, HIDDEN))


def haiku_elman(params):
    """Two biases that only ever add."""
    x, h = params["vanilla_rnn/linear"], params["vanilla_rnn/linear_1"]
    weights = GatedParams(x["w"][:, None], h["w"][:, None], (x["b"] + h["b"])[None])
    return Elman(HIDDEN, activation=jax.nn.relu), weights


def haiku_lstm(params):
    """One matrix for x and h, the gates in the order i, g, f, o, and 1 added to the forget gate inside."""
    w, b = (a.reshape(*a.shape[:-1], 4, HIDDEN)[..., [0, 2, 1, 3], :] for a in jax.tree.leaves(order(params, "w", "b")))
    return LSTM(HIDDEN), GatedParams(w[:IN], w[IN:], b.at[1].add(1.0))


def haiku_gru(params):
    """The reset before the matmul, the gates in the order z, r, a, and z for 1 - z: its logits change their sign."""
    signs = jnp.array([1.0, -1.0, 1.0])[:, None]
    packed = jax.tree.leaves(order(params, "w_i", "w_h", "b"))
    gates = [a.reshape(*a.shape[:-1], 3, HIDDEN)[..., [1, 0, 2], :] * signs for a in packed]
    return ResetBeforeGRU(HIDDEN), GatedParams(*gates)


def order(params, *names):
    (arrays,) = params.values()
    return [arrays[name] for name in names]


@pytest.mark.parametrize(
    ("core", "convert"),
    [("VanillaRNN", haiku_elman), ("LSTM", haiku_lstm), ("GRU", haiku_gru)],
    ids=["elman", "lstm", "gru"],
)
def test_haiku(core, convert):
    hk = pytest.importorskip("haiku", reason="haiku is an optional peer: pip install dm-haiku")

    def network(xs, state):
        ys, state = hk.dynamic_unroll(getattr(hk, core)(HIDDEN), xs, state)
        return state, ys

    network = hk.without_apply_rng(hk.transform(network))
    state = hk.LSTMState(STATE, STATE) if core == "LSTM" else STATE
    params = jax.eval_shape(network.init, jax.random.key(0), inputs(), state)

    def theirs(params, xs, state):
        state, ys = network.apply(params, xs, state)
        return ours_of(state), ys

    def ours_of(state):
        return LSTMState(state.hidden, state.cell) if core == "LSTM" else state

    def ours(params, xs, state):
        return unroll(*convert(params), xs, ours_of(state))

    agree(ours, theirs, noise(params, seed=3), inputs(), noise(state, seed=2))


def equinox_lstm(cell):
    """Matrices (4 * H, D), the gates in the order i, f, g, o."""
    w_x, w_h = (jnp.moveaxis(w.reshape(4, HIDDEN, -1), -1, 0) for w in (cell.weight_ih, cell.weight_hh))
    return LSTM(HIDDEN), GatedParams(w_x, w_h, cell.bias.reshape(4, HIDDEN))


def equinox_gru(cell):
    """Matrices (3 * H, D), the gates in the order r, z, n; bias_n is b_hn."""
    w_x, w_h = (jnp.moveaxis(w.reshape(3, HIDDEN, -1), -1, 0) for w in (cell.weight_ih, cell.weight_hh))
    return GRU(HIDDEN), GatedParams(w_x, w_h, cell.bias.reshape(3, HIDDEN), cell.bias_n)


@pytest.mark.parametrize(
    ("name", "convert"), [("LSTMCell", equinox_lstm), ("GRUCell", equinox_gru)], ids=["lstm", "gru"]
)
def test_equinox(name, convert):
    eqx = pytest.importorskip("equinox", reason="equinox is an optional peer: pip install equinox")
    shapes = eqx.filter_eval_shape(getattr(eqx.nn, name), IN, HIDDEN, key=jax.random.key(0))
    arrays, static = eqx.partition(shapes, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))

    def theirs(arrays, xs, state):
        cell = jax.vmap(eqx.combine(arrays, static))

        def step(state, x):
            state = cell(x, state)
            return state, state[0] if isinstance(state, tuple) else state

        state, ys = jax.lax.scan(step, tuple(state) if isinstance(state, tuple) else state, xs)
        return LSTMState(*state) if isinstance(state, tuple) else state, ys

    def ours(arrays, xs, state):
        return unroll(*convert(eqx.combine(arrays, static)), xs, state)

    state = LSTMState(STATE, STATE) if name == "LSTMCell" else STATE
    agree(ours, theirs, noise(arrays, seed=3), inputs(), noise(state, seed=2))
