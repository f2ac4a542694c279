"""Each equation against a NumPy implementation, and the initial weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import (
    BPTT,
    GRU,
    LSTM,
    S5,
    S6,
    SLSTM,
    AffineCell,
    Associative,
    Bidirectional,
    Cell,
    Chunkwise,
    Diagonal,
    Elman,
    GatedCell,
    GlorotOrthogonal,
    Heads,
    LSTMState,
    MatrixCell,
    MatrixState,
    Newton,
    OscillatorState,
    SLSTMState,
    Stack,
    TorchUniform,
)
from jaxrnn._cells.state_space import hippo_legs

from .more_equations import CLASSIC_AND_NEUROSCIENCE
from .table import CELLS, COMPOSITES, GATED, MORE_CELLS, D, H, Mine, draw, far, initial, masks, run


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


tanh = np.tanh


def matmul(x, w):
    """Multiply x (B, D) by w (D, G, H): G arrays (B, H)."""
    return np.einsum("bd,dgh->gbh", x, w)


def norm(x, axes):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


def lstm_gates(z, c):
    i, f, g, o = z
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def lstm(p, s, x):
    h, c = lstm_gates(matmul(x, p.w_x) + matmul(s.h, p.w_h) + p.b[:, None], s.c)
    return LSTMState(h, c), h


def peephole(p, s, x):
    i, f, g, o = matmul(x, p.w_x) + matmul(s.h, p.w_h) + p.b[:, None]
    c = sigmoid(f + p.local.f * s.c) * s.c + sigmoid(i + p.local.i * s.c) * tanh(g)
    h = sigmoid(o + p.local.o * c) * tanh(c)
    return LSTMState(h, c), h


def layer_norm(p, s, x):
    u, v = norm(matmul(x, p.w_x), (0, 2)), norm(matmul(s.h, p.w_h), (0, 2))
    z = p.local.input[:, None] * u + p.local.recurrent[:, None] * v + p.b[:, None]
    i, f, g, o = z
    c = sigmoid(f) * s.c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(p.local.memory * norm(c, (1,)) + p.local.memory_bias)
    return LSTMState(h, c), h


def layer_norm_by_row(p, s, x):
    rows = [layer_norm(p, LSTMState(s.h[b : b + 1], s.c[b : b + 1]), x[b : b + 1]) for b in range(len(x))]
    return jax.tree.map(lambda *a: np.concatenate(a), *rows)


def diagonal(p, s, x):
    h, c = lstm_gates(matmul(x, p.w_x) + p.w_h[:, None] * s.h + p.b[:, None], s.c)
    return LSTMState(h, c), h


def gru_from(u, v, b_hn, h):
    r, z = sigmoid(u[0] + v[0]), sigmoid(u[1] + v[1])
    n = tanh(u[2] + r * (v[2] + b_hn))
    h = (1 - z) * n + z * h
    return h, h


def gru(p, h, x):
    return gru_from(matmul(x, p.w_x) + p.b[:, None], matmul(h, p.w_h), p.local, h)


def gru_heads(p, h, x):
    dim = p.w_h.shape[1]
    blocks = [matmul(h[:, n * dim : (n + 1) * dim], w) for n, w in enumerate(p.w_h)]
    return gru_from(matmul(x, p.w_x) + p.b[:, None], np.concatenate(blocks, -1), p.local, h)


def reset_before(p, h, x):
    u, v = matmul(x, p.w_x) + p.b[:, None], matmul(h, p.w_h)
    r, z = sigmoid(u[0] + v[0]), sigmoid(u[1] + v[1])
    n = tanh(u[2] + (r * h) @ p.w_h[:, 2])
    h = (1 - z) * n + z * h
    return h, h


def projected(p, s, x):
    h, c = lstm_gates(matmul(x, p.w_x) + matmul(s.h, p.w_h) + p.b[:, None], s.c)
    return LSTMState(h @ p.w_p, c), h @ p.w_p


def elman(f):
    def step(p, h, x):
        h = f(x @ p.w_x[:, 0] + h @ p.w_h[:, 0] + p.b[0])
        return h, h

    return step


def min_gru(p, h, x):
    z = 1 / (1 + np.exp(-(x @ p.w_x[:, 0] + p.b[0])))
    h = (1 - z) * h + z * (x @ p.w_x[:, 1] + p.b[1])
    return h, h


def min_lstm(p, h, x):
    f, i, g = (x @ p.w_x[:, gate] + p.b[gate] for gate in range(3))
    f, i = sigmoid(f), sigmoid(i)
    h = f / (f + i) * h + i / (f + i) * g
    return h, h


def lru(p, s, x):
    a = np.exp(-np.exp(p.decay) + 1j * np.exp(p.phase))
    s = a * s + np.exp(p.gain) * (x @ (p.b[:, 0] + 1j * p.b[:, 1]))
    return s, (s @ (p.c[0] + 1j * p.c[1])).real + x @ p.d


def rg_lru(p, h, x):
    r, i = (sigmoid(x @ p.w_x[:, gate] + p.b[gate]) for gate in range(2))
    a = np.exp(-8 * np.log1p(np.exp(p.decay)) * r)
    h = a * h + np.sqrt(1 - a**2) * (i * x)
    return h, h


def sru(p, c, x):
    f, r = sigmoid(x @ p.w_x[:, 0] + p.b), sigmoid(x @ p.w_r[:, 0] + p.b_r)
    c = f * c + (1 - f) * (x @ p.w_x[:, 1])
    return c, r * tanh(c) + (1 - r) * x


def ind_rnn(p, h, x):
    h = np.maximum(x @ p.w_x[:, 0] + p.w_h[0] * h + p.b[0], 0)
    return h, h


def slstm(log_forget):
    def step(p, s, x):
        blocks = p.w_h if p.w_h.ndim == 4 else p.w_h[None]
        parts = np.split(s.h, len(blocks), -1)
        v = np.concatenate([matmul(part, w) for part, w in zip(parts, blocks, strict=True)], -1)
        i, f, z, o = matmul(x, p.w_x) + v + p.b[:, None]
        m = np.maximum(log_forget(f) + s.m, i)
        i, f = np.exp(i - m), np.exp(log_forget(f) + s.m - m)
        c, n = f * s.c + i * tanh(z), f * s.n + i
        return SLSTMState(sigmoid(o) * c / n, c, n, m), sigmoid(o) * c / n

    return step


def two_gates(combine):
    def step(p, h, x):
        h = combine(h, *(matmul(x, p.w_x) + matmul(h, p.w_h) + p.b[:, None]))
        return h, h

    return step


def antisymmetric(p, h, x):
    w = p.w_h[:, 0] - p.w_h[:, 0].T - 0.01 * np.eye(H)
    h = h + 0.1 * tanh(x @ p.w_x[:, 0] + p.b[0] + h @ w)
    return h, h


def unicornn(p, s, x):
    step = 0.1 * sigmoid(p.local)
    z = s.z - step * (tanh(x @ p.w_x[:, 0] + p.b[0] + p.w_h[0] * s.y) + s.y)
    return OscillatorState(s.y + step * z, z), s.y + step * z


def zero_order_hold(decay, frequency, step):
    a = np.exp(step * (-decay + 1j * frequency))
    return a, (a - 1) / (-decay + 1j * frequency)


def bilinear(decay, frequency, step):
    half = step * (-decay + 1j * frequency) / 2
    return (1 + half) / (1 - half), step / (1 - half)


def s4d(discretize):
    def step(p, s, x):
        a, gain = discretize(np.exp(p.log_decay), p.frequency, np.exp(p.log_step)[:, None])
        new = a * s.reshape(len(s), *a.shape) + gain * x[:, :, None]
        return new.reshape(s.shape), 2 * (new * (p.c[0] + 1j * p.c[1])).sum(-1).real + p.d * x

    return step


def s5(p, s, x):
    a, gain = zero_order_hold(np.exp(p.log_decay), p.frequency, np.exp(p.log_step))
    s = a * s + gain * (x @ (p.b[:, 0] + 1j * p.b[:, 1]))
    return s, 2 * (s @ (p.c[0] + 1j * p.c[1])).real + p.d * x


def matrix_memory(cell, update, output=lambda p, read, parts: read):
    """One head after the other, with the memory as a matrix."""

    def step(p, s, x):
        widths = np.cumsum(cell.sizes())[:-1]
        parts = np.split(x @ p.w_x, widths, -1)
        memory, scale = s.memory.copy(), np.array(s.log_scale) if len(s.log_scale) else ()
        read = np.zeros((len(x), cell.heads, memory.shape[-1]))
        for b, n in np.ndindex(read.shape[:2]):
            q, k, v, a, beta, w = update(p.local, [part[b] for part in parts], n)
            m = max(np.log(a) + scale[b, n], np.log(w)) if len(scale) else 0.0
            a, w = (a * np.exp(scale[b, n] - m), w * np.exp(-m)) if len(scale) else (a, w)
            if len(scale):
                scale[b, n] = m
            decayed = np.diag(a * np.ones(len(k))) @ memory[b, n]
            memory[b, n] = (np.eye(len(k)) - beta * np.outer(k, k)) @ decayed + w * np.outer(k, v)
            read[b, n] = memory[b, n].T @ q
        state = MatrixState(memory, scale)
        return state, output(p.local, read if not len(scale) else (read, scale), parts).reshape(len(x), -1)

    return step


def head(part, n):
    return part.reshape(2, -1)[n]


def mlstm(cell, forget):
    def update(local, parts, n):
        q, k, v = (head(part, n) for part in parts[:3])
        return (
            q,
            k / np.sqrt(len(k)),
            np.append(v, 1),
            forget(parts[4][n] + local.f[n]),
            0,
            np.exp(parts[3][n] + local.i[n]),
        )

    def output(local, read, parts):
        read, m = read
        h = read[..., :-1] / np.maximum(np.abs(read[..., -1:]), np.exp(-m)[..., None])
        return sigmoid(parts[5] + local.o) * h.reshape(len(h), -1)

    return matrix_memory(cell, update, output)


def ret_net(local, parts, n):
    q, k, v = (head(part, n) for part in parts)
    return q, k / np.sqrt(len(k)), v, 1 - 2.0 ** (-5 - n), 0, 1


def gla(local, parts, n):
    q, k, v = (head(part, n) for part in parts[:3])
    a = head(sigmoid(parts[3] @ local.w + local.b), n) ** (1 / 16)
    return q / np.sqrt(len(q)), k, v, a, 0, 1


def mamba2(local, parts, n):
    step = np.log1p(np.exp(parts[3][n] + local.b[n]))
    return parts[2], parts[1], head(parts[0], n), np.exp(-step * np.exp(local.log_rate[n])), 0, step


def delta(largest, decay=lambda local, parts, n: 1):
    def update(local, parts, n):
        q, k, v = (head(part * sigmoid(part), n) for part in parts[:3])
        beta = largest * sigmoid(parts[3][n])
        unit = lambda a: a / np.sqrt((a**2).sum() + 1e-6)
        return unit(q), unit(k), v, decay(local, parts, n), beta, beta

    return update


def softplus_decay(local, parts, n):
    one = isinstance(local.w, tuple)
    u = parts[4][n] + local.b[n] if one else head(parts[4] @ local.w + local.b, n)
    return np.exp(-np.exp(local.log_rate[n]) * np.log1p(np.exp(u)))


def s6(p, s, x):
    step = np.log1p(np.exp(x @ p.w_down @ p.w_up + p.b))[:, :, None]
    new = np.exp(-step * np.exp(p.log_decay)) * s.reshape(len(s), *p.log_decay.shape)
    new = new + step * (x @ p.w_b)[:, None] * x[:, :, None]
    return new.reshape(s.shape), (new * (x @ p.w_c)[:, None]).sum(-1) + p.d * x


EQUATIONS = {
    "elman": elman(np.tanh),
    "elman_relu": elman(lambda x: np.maximum(x, 0)),
    "lstm": lstm,
    "gru": gru,
    "peephole": peephole,
    "layer_norm": layer_norm_by_row,
    "lstm_diagonal": diagonal,
    "gru_heads": gru_heads,
    "projected": projected,
    "reset_before": reset_before,
    "min_gru": min_gru,
    "min_lstm": min_lstm,
    "lru": lru,
    "rg_lru": rg_lru,
    "sru": sru,
    "ind_rnn": ind_rnn,
    "slstm": slstm(lambda f: np.log(sigmoid(f))),
    "mlstm": mlstm(CELLS["mlstm"], sigmoid),
    "kda": matrix_memory(CELLS["kda"], delta(2, softplus_decay)),
}
MORE_EQUATIONS = {
    "slstm_exp": slstm(lambda f: f),
    "janet": two_gates(lambda h, f, g: sigmoid(f) * h + (1 - sigmoid(f - 1)) * tanh(g)),
    "ugrnn": two_gates(lambda h, c, g: sigmoid(g) * h + (1 - sigmoid(g)) * tanh(c)),
    "light_gru": two_gates(lambda h, z, n: sigmoid(z) * h + (1 - sigmoid(z)) * np.maximum(n, 0)),
    "antisymmetric": antisymmetric,
    "unicornn": unicornn,
    "s4d": s4d(zero_order_hold),
    "s4d_bilinear": s4d(bilinear),
    "s5": s5,
    "mlstm_exp": mlstm(MORE_CELLS["mlstm_exp"], np.exp),
    "ret_net": matrix_memory(MORE_CELLS["ret_net"], ret_net),
    "gla": matrix_memory(MORE_CELLS["gla"], gla),
    "mamba2": matrix_memory(
        MORE_CELLS["mamba2"],
        mamba2,
        lambda p, read, parts: read + p.d[:, None] * parts[0].reshape(len(read), 2, -1),
    ),
    "delta_net": matrix_memory(MORE_CELLS["delta_net"], delta(2)),
    "gated_delta_net": matrix_memory(MORE_CELLS["gated_delta_net"], delta(1, softplus_decay)),
    "s6": s6,
    **CLASSIC_AND_NEUROSCIENCE,
}


@pytest.mark.parametrize("name", [*EQUATIONS, *MORE_EQUATIONS])
def test_step_is_its_equation(x64, name):
    cell = (CELLS | MORE_CELLS)[name]
    params, state, xs = draw(cell)
    got = cell.step(params, state, xs[0])
    want = (EQUATIONS | MORE_EQUATIONS)[name](*jax.tree.map(np.asarray, (params, state, xs[0])))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), got, want)


@pytest.mark.parametrize("name", MORE_CELLS)
def test_more_cells_under_the_driver_of_their_kind(x64, name):
    """The backward pass that its kind shares, with masks, against that of JAX."""
    cell = MORE_CELLS[name]
    kinds = {GatedCell: BPTT(2), AffineCell: Associative(2), MatrixCell: Chunkwise(2), object: Newton(fallback=None)}
    driver = next(driver for kind, driver in kinds.items() if isinstance(cell, kind))
    params, state, xs = draw(cell)
    got, want = (run(cell, params, state, xs, masks(), each) for each in (driver, jaxrnn.Scan()))
    assert far(got, want) < 1e-9


def test_the_states_of_hippo_legs():
    """The eigenvectors are those of the normal part of the matrix of the paper."""
    root = np.sqrt(2 * np.arange(8) + 1)
    hippo = -np.tril(np.outer(root, root), -1) - np.diag(np.arange(8) + 1.0)
    normal = hippo + np.outer(root, root) / 2
    frequencies, vectors = hippo_legs(4)
    np.testing.assert_allclose(normal @ vectors, vectors * (-0.5 + 1j * frequencies), atol=1e-12)
    b = S5(64).init(jax.random.key(0), 64).b
    assert 0.8 < float(jnp.sqrt((b**2).sum(1).mean()) * 64**0.5) < 1.2  # a unitary basis keeps the scale


def test_the_steps_of_s6_start_between_their_bounds():
    params = S6(64, min_step=1e-3, max_step=0.1, step_floor=0.01).init(jax.random.key(0), 64)
    step = np.log1p(np.exp(np.asarray(params.b, np.float64)))
    assert 0.0099 < step.min() < 0.011 < 0.05 < step.max() <= 0.1001
    np.testing.assert_allclose(np.exp(params.log_decay[3]), np.arange(1, 17), rtol=1e-5)
    assert params.w_up.shape == (4, 64)


def test_slstm_does_not_overflow():
    """Preactivations of 1,000 have no effect but a choice between the old memory and the new input."""
    cell = SLSTM(H, forget_activation="exp")
    params, _, xs = draw(cell, time=6)
    steep = params._replace(w_x=1000 * params.w_x)
    (_, (state, ys)), gradients = run(cell, steep, cell.initial_state(params, xs.shape[1:-1]), xs, {}, BPTT())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state, ys, gradients)))
    assert float(jnp.abs(ys).max()) <= 1


ACTIVATED = ("lstm", "peephole", "layer_norm", "gru", "gru_heads", "projected", "reset_before")


@pytest.mark.parametrize("name", ACTIVATED)
def test_activations_are_configurable(x64, monkeypatch, name):
    cell = dataclasses.replace(CELLS[name], activation="sin", gate_activation=lambda x: x / 2)
    params, state, xs = draw(cell)
    got = cell.step(params, state, xs[0])
    monkeypatch.setitem(globals(), "tanh", np.sin)
    monkeypatch.setitem(globals(), "sigmoid", lambda x: x / 2)
    want = EQUATIONS[name](*jax.tree.map(np.asarray, (params, state, xs[0])))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), got, want)


@pytest.mark.parametrize("name", ["lstm", "peephole", "layer_norm", "gru"])
def test_gate_is_transition_with_default_local_params(name):
    cell = CELLS[name]
    params = initial(cell, jax.random.key(0))
    local = jax.tree.map(jnp.zeros_like, params.local) if name == "gru" else params.local
    _, state, xs = draw(cell)
    u, v = cell.project(params, xs[0]), cell.recur(params, state)
    got, want = cell.gate(state, u, v), cell.transition(local, state, u, v)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, want)


def test_recurrent_weights_of_each_gate_are_orthogonal():
    w = LSTM(8).init(jax.random.key(0), 3).w_h
    for gate in range(4):
        np.testing.assert_allclose(w[:, gate].T @ w[:, gate], np.eye(8), atol=1e-5)
    heads = GRU(8, recurrence=Heads(2)).init(jax.random.key(0), 3).w_h
    assert heads.shape == (2, 4, 3, 4)
    np.testing.assert_allclose(heads[1, :, 2].T @ heads[1, :, 2], np.eye(4), atol=1e-5)
    assert LSTM(8, recurrence=Diagonal()).init(jax.random.key(0), 3).w_h.shape == (4, 8)


def test_input_weights_of_each_gate_are_glorot_uniform():
    w = LSTM(64).init(jax.random.key(0), 32).w_x
    bound = np.sqrt(6 / (32 + 64))
    assert 0.98 * bound < float(jnp.abs(w).max()) <= bound


def test_initial_biases_are_the_forget_bias():
    b = LSTM(8, forget_bias=0.5).init(jax.random.key(0), 3).b
    np.testing.assert_array_equal(b, np.zeros((4, 8)) + np.array([0, 0.5, 0, 0])[:, None])
    assert not GRU(8).init(jax.random.key(0), 3).b.any()


def test_torch_uniform_is_bounded():
    params = LSTM(16, forget_bias=0.0, initializer=TorchUniform()).init(jax.random.key(0), 3)
    assert float(jnp.abs(params.w_x).max()) <= 0.25
    assert 0.2 < float(jnp.abs(params.w_h).max()) <= 0.25
    assert 0.25 < float(jnp.abs(params.b).max()) <= 0.5
    assert float(jnp.abs(GRU(16, initializer=TorchUniform()).init(jax.random.key(0), 3).local).max()) > 0


def test_init_draws_every_param_from_its_own_key():
    leaves = jax.tree.leaves(Stack((GRU(4), GRU(4), GRU(4))).init(jax.random.key(0), 4))
    drawn = [a for a in leaves if a.size > 1 and a.any()]
    assert len({a.tobytes() for a in map(np.asarray, drawn)}) == len(drawn) == 6


def test_isinstance_of_cell():
    assert all(isinstance(cell, Cell) for cell in CELLS.values())
    assert isinstance(Stack((LSTM(4), GRU(4))), Cell)
    assert not isinstance(Bidirectional(LSTM(4)), Cell)
    params = initial(COMPOSITES["deep"], jax.random.key(0))
    with pytest.raises(ValueError, match="Bidirectional has no causal step"):
        COMPOSITES["deep"].step(params, COMPOSITES["deep"].initial_state(params), jnp.ones(D))


def test_a_cell_of_a_user_needs_no_decorator():
    class Plain(GatedCell):
        hidden = H
        gates = 1

        def initial_state(self, params, batch=()):
            return jnp.zeros((*batch, H))

        def read(self, h):
            return h

        def gate(self, h, u, v):
            return jnp.tanh(u[0] + v[0])

    params = Elman(H).init(jax.random.key(0), D)
    assert jax.tree.structure(Plain().init(jax.random.key(0), D)) == jax.tree.structure(params)
    xs = draw(Elman(H))[2]
    ys = (jaxrnn.unroll(cell, params, xs, driver=jaxrnn.Scan())[1] for cell in (Plain(), Elman(H)))
    np.testing.assert_array_equal(*ys)
    assert Plain() == Plain()
    assert Plain(initializer=TorchUniform()).initializer != GlorotOrthogonal()


def test_abstract_cells_name_the_missing_methods():
    with pytest.raises(TypeError, match="gate"):
        GatedCell()
    assert Mine(3).gates == 2
    assert set(EQUATIONS) | {"mine"} == set(CELLS)
    assert set(MORE_EQUATIONS) == set(MORE_CELLS)
    assert set(GATED) < set(CELLS)
