"""torch.nn as the oracle: values and gradients of every module that can be converted, and the conversion to torch."""

import copy
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import GRU, LSTM, Bidirectional, Dropout, Elman, Heads, LSTMState, ProjectedLSTM, Stack, unroll

from .. import quick

torch = pytest.importorskip("torch", reason="torch is the oracle, an extra of the benchmarks' peers")
interop = pytest.importorskip("jaxrnn.interop.torch", reason="it needs torch")
nn = torch.nn
prune = pytest.importorskip("torch.nn.utils.prune")

T, B, D, H, P = 5, 4, 3, 4, 2
LENGTHS = np.array([5, 3, 1, 4])

KINDS = {
    "rnn_tanh": (nn.RNN, {}),
    "rnn_relu": (nn.RNN, {"nonlinearity": "relu"}),
    "gru": (nn.GRU, {}),
    "lstm": (nn.LSTM, {}),
    "lstm_projected": (nn.LSTM, {"proj_size": P}),
}
FORMS = {"single": {}, "deep": {"num_layers": 2, "bidirectional": True}}
CASES = {f"{kind}-{form}": (make, more | FORMS[form]) for kind, (make, more) in KINDS.items() for form in FORMS}
CASES |= {
    "lstm-stacked": (nn.LSTM, {"num_layers": 2}),
    "gru-bidirectional": (nn.GRU, {"bidirectional": True}),
    "gru-no_bias": (nn.GRU, {"bias": False}),
}
PRECISIONS = {"float32": (torch.float32, 1e-5), "float64": (torch.float64, 1e-12)}
PARITY = [(case, "float32" if case.endswith("single") else "float64") for case in CASES] + [("lstm-deep", "float32")]


def module_of(case, dtype=torch.float32):
    torch.manual_seed(0)
    make, options = CASES[case]
    return make(D, H, dtype=dtype, **options)


def state_of(module, batch, dtype):
    """Return a random state of torch: h, or (h, c)."""
    leaves = module.num_layers * (2 if module.bidirectional else 1)
    sizes = [module.proj_size or H, H] if module.mode == "LSTM" else [H]
    arrays = [torch.randn(leaves, batch, size, dtype=dtype) for size in sizes]
    return tuple(arrays) if len(arrays) == 2 else arrays[0]


def torch_run(module, xs, state):
    """Return outputs, last state, and the gradients of the sum of their squares (those of params as a module)."""
    xs = xs.requires_grad_()
    leaves = [s.requires_grad_() for s in (state if isinstance(state, tuple) else (state,))]
    packed = nn.utils.rnn.pack_padded_sequence(xs, torch.as_tensor(LENGTHS), enforce_sorted=False)
    ys, last = module(packed, state)
    ys, _ = nn.utils.rnn.pad_packed_sequence(ys, total_length=T)
    ends = last if isinstance(last, tuple) else (last,)
    sum(a.square().sum() for a in (ys, *ends)).backward()
    grads = copy.deepcopy(module)
    for name, weight in module.named_parameters():
        getattr(grads, name).data = keep_one_bias(name, weight.grad, module.mode)
    d_state = [s.grad for s in leaves]
    return ys, last, (grads, xs.grad, tuple(d_state) if len(d_state) == 2 else d_state[0])


def keep_one_bias(name, grad, mode):
    """Set the gradient of the second bias to zero, except the GRU's b_hn: jaxrnn has the sum of both biases."""
    if not name.startswith("bias_hh"):
        return grad
    kept = torch.zeros_like(grad)
    if mode == "GRU":
        kept[2 * H :] = grad[2 * H :]
    return kept


def jax_run(cell, params, xs, state):
    def loss(params, xs, state):
        last, ys = unroll(cell, params, xs, state, lengths=LENGTHS)
        return sum(jnp.square(a).sum() for a in jax.tree.leaves((ys, last))), (last, ys)

    return quick.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(params, xs, state)


def assert_close(got, want, tolerance):
    def check(a, b):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(b).max())))

    jax.tree.map(check, got, want)


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


@pytest.mark.parametrize(("case", "precision"), PARITY)
def test_values_and_gradients_equal_those_of_torch(case, precision):
    dtype, tolerance = PRECISIONS[precision]
    module = module_of(case, dtype)
    xs, h = torch.randn(T, B, D, dtype=dtype), state_of(module, B, dtype)
    with jax.enable_x64(precision == "float64"):
        cell, params = interop.from_torch(module)
        state = interop.state_from_torch(cell, h)
        grads, (last, ys) = jax_run(cell, params, jnp.asarray(xs.numpy()), state)
        want_ys, want_last, (module_of_grads, d_xs, d_h) = torch_run(module, xs, h)
        _, d_params = interop.from_torch(module_of_grads)
        if not module.bias:
            grads = (grads[0]._replace(b=d_params.b, local=d_params.local), *grads[1:])
        assert_close(ys, want_ys.detach().numpy(), tolerance)
        assert_close(last, interop.state_from_torch(cell, want_last), tolerance)
        assert_close(grads, (d_params, d_xs.numpy(), interop.state_from_torch(cell, d_h)), tolerance)


@pytest.mark.parametrize("case", ["rnn_relu-single", "gru-bidirectional", "lstm_projected-deep"])
def test_a_sequence_of_length_0_returns_its_initial_state(case):
    module = module_of(case)
    h = state_of(module, 2, torch.float32)
    cell, params = interop.from_torch(module)
    state = interop.state_from_torch(cell, h)
    xs = jnp.full((T, 2, D), jnp.nan).at[:2, 1].set(1.0)
    last, ys = unroll(cell, params, xs, state, lengths=np.array([0, 2]))
    first = lambda tree: jax.tree.map(lambda s: s[0], tree)
    assert equal(first(last), first(state))
    assert not ys[:, 0].any()
    assert np.isfinite(ys).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES)
def test_conversion_to_torch_and_back_is_exact(case, dtype):
    with jax.enable_x64(dtype == torch.float64):
        cell, params = interop.from_torch(module_of(case, dtype))
        module = interop.to_torch(cell, params)
        assert next(module.parameters()).dtype == dtype
        assert all(p.requires_grad for p in module.parameters())
        again = interop.from_torch(module)
        assert again[0] == cell
        assert equal(again[1], params)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("case", ["rnn_relu-deep", "gru-deep", "lstm_projected-deep", "lstm-stacked"])
def test_a_module_of_to_torch_computes_the_same(case):
    module = module_of(case)
    cell, params = interop.from_torch(module)
    xs, h = torch.randn(T, B, D), state_of(module, B, torch.float32)
    ys, last = interop.to_torch(cell, params)(xs, h)
    want_ys, want_last = module(xs, h)
    torch.testing.assert_close(ys, want_ys, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(last, want_last, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["rnn_tanh-single", "gru-deep", "lstm-stacked", "lstm_projected-deep"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_conversion_of_states_and_back_is_exact(case, dtype):
    module = module_of(case, dtype)
    cell, _ = interop.from_torch(module)
    h = state_of(module, B, dtype)
    torch.testing.assert_close(interop.state_to_torch(cell, interop.state_from_torch(cell, h)), h, rtol=0, atol=0)


def test_bfloat16_computes_as_torch_does():
    module = module_of("lstm-single", torch.bfloat16)
    xs = torch.randn(T, B, D, dtype=torch.bfloat16)
    cell, params = interop.from_torch(module)
    _, ys = unroll(cell, params, jnp.asarray(xs.float().numpy(), jnp.bfloat16))
    np.testing.assert_allclose(ys.astype(np.float32), module(xs)[0].detach().float().numpy(), atol=2e-2)


@pytest.mark.parametrize("make", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_steps_of_single_cells_equal_those_of_torch(make):
    torch.manual_seed(0)
    module, x = make(D, H), torch.randn(B, D)
    h = (torch.randn(B, H), torch.randn(B, H)) if make is nn.LSTMCell else torch.randn(B, H)
    cell, params = interop.from_torch(module)
    state = LSTMState(*(jnp.asarray(a.numpy()) for a in h)) if make is nn.LSTMCell else jnp.asarray(h.numpy())
    state, _ = cell.step(params, state, jnp.asarray(x.numpy()))
    want = jax.tree.map(lambda a: a.detach().numpy(), module(x, h))
    assert_close(tuple(state) if make is nn.LSTMCell else state, want, 1e-6)


def test_the_cell_equals_one_written_by_hand():
    assert interop.from_torch(nn.LSTM(D, H))[0] == LSTM(H)
    assert interop.from_torch(nn.RNN(D, H, nonlinearity="relu"))[0] == Elman(H, activation=jax.nn.relu)
    assert interop.from_torch(nn.LSTM(D, H, proj_size=P))[0] == ProjectedLSTM(H, projection=P)
    assert interop.from_torch(nn.GRU(D, H, bidirectional=True))[0] == Bidirectional(GRU(H))
    cell, _ = interop.from_torch(nn.GRU(D, H, 3, dropout=0.25))
    assert cell == Stack((GRU(H), Dropout(0.25), GRU(H), Dropout(0.25), GRU(H)))


def test_conversion_of_dropout_and_back_is_exact():
    cell, params = interop.from_torch(nn.LSTM(D, H, 2, dropout=0.5))
    module = interop.to_torch(cell, params)
    assert (module.num_layers, module.dropout) == (2, 0.5)
    state = cell.initial_state(params, (B,))
    assert equal(interop.state_from_torch(cell, interop.state_to_torch(cell, state)), state)


def test_the_params_are_a_copy():
    module = nn.GRU(D, H)
    _, params = interop.from_torch(module)
    before = jax.tree.map(lambda a: np.array(a), params)
    with torch.no_grad():
        for weight in module.parameters():
            weight.fill_(math.pi)
    assert equal(params, before)


def test_to_torch_keeps_the_random_state_of_torch():
    cell, params = interop.from_torch(nn.LSTM(D, H))
    before = torch.get_rng_state()
    interop.to_torch(cell, params)
    assert torch.equal(torch.get_rng_state(), before)


class TwiceLSTM(nn.LSTM):
    """A subclass that computes something else."""


def pruned():
    module = nn.GRU(D, H)
    return prune.l1_unstructured(module, "weight_hh_l0", 0.5)


REJECTED = {
    "pruned": (pruned, "weight_hh_l0 is no parameter"),
    "no values": (lambda: nn.LSTM(D, H, device="meta"), "meta"),
    "a subclass": (lambda: TwiceLSTM(D, H), "TwiceLSTM"),
    "another module": (lambda: nn.Linear(D, H), "Linear"),
    "float64": (lambda: nn.LSTM(D, H, dtype=torch.float64), "enable_x64"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_from_torch_rejects_other_modules(case):
    make, message = REJECTED[case]
    with pytest.raises(ValueError, match=message):
        interop.from_torch(make())


@pytest.mark.parametrize(
    "cell",
    [
        Elman(H, activation=jnp.sin),
        LSTM(H, activation="relu"),
        GRU(H, gate_activation="hard_sigmoid"),
        LSTM(H, recurrence=Heads(2)),
        Stack((LSTM(H), GRU(H))),
        Stack((LSTM(H), Dropout(0.1), LSTM(H), LSTM(H))),
        Stack((LSTM(H), Dropout(0.1))),
        Stack((Dropout(0.1),)),
        Bidirectional(LSTM(H), LSTM(2 * H)),
        LSTM,
    ],
)
def test_to_torch_rejects_cells_without_a_counterpart(cell):
    with pytest.raises(ValueError, match="torch"):
        interop.to_torch(cell, ())


def test_params_and_states_that_do_not_fit_are_rejected():
    _, params = interop.from_torch(nn.LSTM(D, H))
    with pytest.raises(ValueError, match="the shapes"):
        interop.to_torch(LSTM(H), params._replace(w_h=params.w_h[:2]))
    gates_last = params._replace(w_x=jnp.ones((D, 2, H)), w_h=jnp.ones((H, 2, H)), b=jnp.ones((4, 2)))
    for wrong in (gates_last, params._replace(b=params.b.reshape(2, 2 * H)), params._replace(local=jnp.ones(H))):
        with pytest.raises(ValueError, match="the shapes"):
            interop.to_torch(LSTM(H), wrong)
    with pytest.raises(ValueError, match="the shapes"):
        interop.to_torch(LSTM(H), params._asdict())
    gru = interop.from_torch(nn.GRU(D, H))[1]
    with pytest.raises(ValueError, match="the shapes"):
        interop.to_torch(GRU(H), gru._replace(local=jnp.zeros(())))
    with pytest.raises(ValueError, match="one dtype"):
        interop.to_torch(LSTM(H), params._replace(b=params.b.astype(jnp.bfloat16)))
    with pytest.raises(ValueError, match="layers"):
        interop.state_from_torch(Stack((GRU(H), GRU(H))), torch.zeros(1, B, H))
    with pytest.raises(ValueError, match=r"\(h, c\)"):
        interop.state_from_torch(LSTM(H), torch.zeros(1, B, H))
