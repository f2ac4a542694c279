"""`to_onnx` against onnxruntime: equal outputs, and equal params after a round trip."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import (
    GRU,
    LSTM,
    Bidirectional,
    Dropout,
    Elman,
    Heads,
    IndRNN,
    LearnedState,
    PeepholeLSTM,
    ResetBeforeGRU,
    Residual,
    Reversed,
    Scan,
    Stack,
    VariationalDropout,
    unroll,
)

onnx = pytest.importorskip("onnx", reason="onnx is an extra")
interop = pytest.importorskip("jaxrnn.interop.onnx", reason="it needs onnx")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is an optional peer: pip install jaxrnn[peers]")

T, B, D = 5, 3, 4
LENGTHS = np.array([T, 2, 0], np.int32)
CLIPPED = interop.Activation("Elu", 0.75, clip=0.625)
HARD = interop.Activation("HardSigmoid", 0.25, 0.5, clip=0.625)
SCALED = interop.Activation("ScaledTanh", 0.5, 1.5)
SOFTSIGN = interop.Activation("Softsign")

LEAVES = {
    "elman": Elman(4),
    "elman-relu": Elman(4, activation=jax.nn.relu),
    "elman-leaky": Elman(4, activation=interop.Activation("LeakyRelu", 0.25)),
    "elman-clip": Elman(4, activation=CLIPPED),
    "lstm": LSTM(4),
    "peephole": PeepholeLSTM(4),
    "gru": GRU(4),
    "reset-before": ResetBeforeGRU(4),
    "onnx-lstm": interop.OnnxLSTM(4, interop.Activation("HardSigmoid", 0.25, 0.5), SCALED, SOFTSIGN, input_forget=True),
    "onnx-peephole": interop.OnnxPeepholeLSTM(4, interop.Activation("Sigmoid"), SCALED, SOFTSIGN),
    "onnx-gru": GRU(4, gate_activation=HARD, activation=CLIPPED),
    "onnx-reset-before": ResetBeforeGRU(4, gate_activation=HARD, activation=CLIPPED),
    "reverse": Reversed(LSTM(4)),
    "bidirectional": Bidirectional(GRU(4)),
    "bidirectional-activations": Bidirectional(
        Elman(4, activation=CLIPPED), Elman(4, activation=dataclasses.replace(CLIPPED, alpha=0.25))
    ),
}
WHOLES = {
    "diagonal": IndRNN(4),
    "heads": GRU(4, recurrence=Heads(2)),
    "stack": Stack((Dropout(0.5), LSTM(4), Dropout(0.5), Bidirectional(GRU(3)), VariationalDropout(0.5))),
    "two kinds": Bidirectional(LSTM(4), ResetBeforeGRU(3)),
    "reversed twice": Reversed(Bidirectional(Stack((GRU(4), Reversed(Elman(4)))))),
    "residual": Residual(Residual(GRU(4))),
    "learned": Stack((LearnedState(LSTM(4)), LearnedState(Bidirectional(GRU(4))))),
    "learned stack": LearnedState(Stack((Reversed(PeepholeLSTM(4)), Elman(4)))),
    "dropout alone in one direction": Bidirectional(GRU(4), Stack((Dropout(0.5),))),
}


def drawn(cell):
    """Return params without zeros, so that biases, peepholes and learned states matter."""
    rng = np.random.default_rng(0)
    like = jax.eval_shape(lambda key: cell.init(key, D), jax.random.key(0))
    return jax.tree.map(lambda a: rng.normal(scale=0.5, size=a.shape).astype(a.dtype), like)


def answer(model, xs, lengths=LENGTHS):
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {"xs": xs} if lengths is None else {"xs": xs, "lengths": lengths}
    return session.run(["ys"], given)[0]


@pytest.fixture(scope="module")
def xs():
    xs = np.random.default_rng(1).normal(size=(T, B, D)).astype(np.float32)
    xs[np.arange(T)[:, None] >= LENGTHS] = np.nan
    return xs


@pytest.mark.parametrize("name", [*LEAVES, *WHOLES])
def test_onnxruntime_computes_the_outputs_of_unroll(name, xs):
    cell = (LEAVES | WHOLES)[name]
    params = drawn(cell)
    _, ys = unroll(cell, params, xs, lengths=LENGTHS, driver=Scan())
    model = interop.to_onnx(cell, params)
    assert [opset.version for opset in model.opset_import] == [17]
    np.testing.assert_allclose(answer(model, xs), ys, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LEAVES)
def test_load_returns_what_to_onnx_exported(name):
    cell = LEAVES[name]
    params = drawn(cell)
    (layer,) = interop.load(interop.to_onnx(cell, params)).values()
    assert layer.cell == cell
    assert jax.tree.structure(layer.params) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, layer.params, params)


def test_batch_and_time_are_free_and_lengths_are_optional():
    cell = Stack((Bidirectional(LSTM(4)), GRU(3)))
    params = drawn(cell)
    model = interop.to_onnx(cell, params, lengths=None)
    for shape in [(1, 1, D), (7, 2, D)]:
        xs = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        _, ys = unroll(cell, params, xs, driver=Scan())
        np.testing.assert_allclose(answer(model, xs, None), ys, rtol=1e-5, atol=1e-6)


def test_a_part_has_the_given_names():
    part = interop.to_nodes(LSTM(4), drawn(LSTM(4)), "tokens", "states", "counts")
    assert part.nodes[0].input[0] == "tokens"
    assert part.nodes[0].input[4] == "counts"
    assert part.nodes[-1].output[:] == ["states"]
    assert all(tensor.name.startswith("states.") for tensor in part.weights)


class Own(LSTM):
    """A subclass, which may compute something else."""


REJECTED = {
    "LayerNormLSTM": jaxrnn.LayerNormLSTM(4),
    "LRU": Stack((LSTM(4), jaxrnn.LRU(4))),
    "ProjectedLSTM": Bidirectional(jaxrnn.ProjectedLSTM(4, 2)),
    "Zoneout": jaxrnn.Zoneout(LSTM(4)),
    "States": jaxrnn.States(LSTM(4)),
    "Own": Own(4),
    "Elman": Elman(4, activation=jnp.sin),
    "GRU": GRU(4, gate_activation=HARD),
    "LSTM": LSTM(4, activation="gelu"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_cells_without_an_operator_are_rejected_by_name(name):
    with pytest.raises(ValueError, match=rf"no operator for .*{name}.*jax\.export") as caught:
        interop.to_onnx(REJECTED[name], ())
    assert len(str(caught.value)) < 400


def test_params_that_do_not_fit_are_rejected():
    params = drawn(LSTM(4))
    with pytest.raises(ValueError, match="LSTM"):
        interop.to_onnx(LSTM(5), params)
    with pytest.raises(ValueError, match="bfloat16"):
        interop.to_onnx(LSTM(4), jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), params))
    with pytest.raises(ValueError, match=r"cell\.init"):
        interop.to_onnx(Stack((Dropout(0.5),)), {"w": np.ones(3, np.float32)})
