"""ONNX's node tests, and what they omit against the equations of the specification."""

import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import (
    BPTT,
    GRU,
    LSTM,
    Bidirectional,
    Elman,
    GatedCell,
    PeepholeLSTM,
    ResetBeforeGRU,
    Reversed,
    Scan,
    unroll,
)

onnx = pytest.importorskip("onnx", reason="onnx is an extra")
interop = pytest.importorskip("jaxrnn.interop.onnx", reason="it needs onnx")
from .onnx_nodes import GATES, B, H, a_node, sigmoid, spec  # noqa: E402  # it needs onnx

SIMPLE = ["defaults", "with_initial_bias", "batchwise", "reverse", "bidirectional"]
NODE_TESTS = [f"test_{op}_{form}" for op in ("simple_rnn", "gru", "lstm") for form in SIMPLE]
NODE_TESTS += ["test_rnn_seq_length", "test_gru_seq_length", "test_lstm_with_peepholes"]


@pytest.fixture(scope="module")
def node_tests():
    """Return every case of RNN, GRU and LSTM by its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case import node
        from onnx.backend.test.case.node import gru, lstm, rnn  # noqa: F401  # each registers its cases
    # `collect_testcases` would make the cases of every operator, which takes ten seconds.
    return {case.name: case for case in node._NodeTestCases if case.model.graph.node[0].op_type in GATES}


def test_all_node_tests_are_listed(node_tests):
    assert sorted(node_tests) == sorted(NODE_TESTS)


@pytest.mark.parametrize("name", NODE_TESTS)
def test_node(node_tests, name):
    graph = node_tests[name].model.graph
    (node,) = graph.node
    for inputs, outputs in node_tests[name].data_sets:
        got = interop.run_node(node, dict(zip([i.name for i in graph.input], inputs, strict=True)))
        want = dict(zip([o.name for o in graph.output], outputs, strict=True))
        assert want
        for output, name in zip(got, node.output, strict=False):
            if name:
                assert output.shape == want[name].shape
                assert output.dtype == want[name].dtype
                np.testing.assert_allclose(output, want[name], rtol=1e-5, atol=1e-6)


DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
VARIANTS = {
    "rnn-bidirectional": ("RNN", "bidirectional", {}, ()),
    "rnn-reverse": ("RNN", "reverse", {}, ()),
    "gru-reset_before": ("GRU", "bidirectional", {"linear_before_reset": 0}, ()),
    "gru-reset_after": ("GRU", "bidirectional", {"linear_before_reset": 1}, ()),
    "lstm-peepholes": ("LSTM", "bidirectional", {}, ()),
    "lstm-reverse": ("LSTM", "reverse", {}, ("P", "B")),
    "lstm-no_initial_c": ("LSTM", "forward", {}, ("P", "initial_c")),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_lengths_states_and_directions_follow_the_specification(variant):
    op, direction, attributes, without = VARIANTS[variant]
    backward = DIRECTIONS[direction]
    node, inputs = a_node(op, directions=len(backward), without=without, direction=direction, **attributes)
    want = spec(op, inputs, reverse=backward, reset_after=bool(attributes.get("linear_before_reset")))
    for got, wanted in zip(interop.run_node(node, inputs), want, strict=True):
        if got is not None:
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", ["GRU", "LSTM"])
def test_layout_1_equals_layout_0_with_other_axes(op):
    want = interop.run_node(*a_node(op, directions=2, direction="bidirectional"))
    got = interop.run_node(*a_node(op, directions=2, direction="bidirectional", layout=1))
    np.testing.assert_array_equal(got.Y, want.Y.transpose(2, 0, 1, 3))
    np.testing.assert_array_equal(got.Y_h, want.Y_h.swapaxes(0, 1))


ACTIVATIONS = {
    "Relu": ({}, lambda x: np.maximum(x, 0)),
    "sigmoid": ({}, sigmoid),
    "Softsign": ({}, lambda x: x / (1 + np.abs(x))),
    "Softplus": ({}, lambda x: np.log1p(np.exp(x))),
    "Affine": ({"activation_alpha": [0.5], "activation_beta": [0.1]}, lambda x: 0.5 * x + 0.1),
    "LeakyRelu": ({}, lambda x: np.where(x >= 0, x, 0.01 * x)),
    "ThresholdedRelu": ({"activation_alpha": [0.2]}, lambda x: np.where(x >= 0.2, x, 0)),
    "ScaledTanh": ({"activation_alpha": [0.5], "activation_beta": [2.0]}, lambda x: 0.5 * np.tanh(2 * x)),
    "HardSigmoid": ({}, lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
    "Elu": ({"activation_alpha": [0.5]}, lambda x: np.where(x >= 0, x, 0.5 * (np.exp(x) - 1))),
    "Tanh": ({"clip": 0.3}, lambda x: np.tanh(np.clip(x, -0.3, 0.3))),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_rnn_takes_every_activation(name):
    attributes, f = ACTIVATIONS[name]
    node, inputs = a_node("RNN", activations=[name], **attributes)
    cell, params, state = interop.from_node(node, inputs)
    assert cell == interop.from_node(node, inputs).cell
    assert hash(cell) == hash(interop.from_node(node, inputs).cell)
    y = inputs["X"][0]
    state, y = cell.step(params, state, y)
    want = spec("RNN", inputs | {"sequence_lens": np.ones(B, int)}, functions=(f,))[0][0, 0]
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


def clipped(f):
    return lambda x: f(np.clip(x, -0.4, 0.4))


def relu(x):
    return np.maximum(x, 0)


def hard_sigmoid(x):
    return np.clip(0.2 * x + 0.5, 0, 1)


ALL_CLIPPED = [clipped(sigmoid), clipped(np.tanh), clipped(np.tanh)]
GENERAL = {  # operator, inputs left out, attributes, activations of the specification, those of onnxruntime
    "lstm-clip": ("LSTM", (), {"clip": 0.4}, ALL_CLIPPED, [*ALL_CLIPPED[:2], np.tanh]),
    "lstm-input_forget": ("LSTM", ("P",), {"input_forget": 1}, None, None),
    "lstm-input_forget-peepholes": ("LSTM", (), {"input_forget": 1}, None, None),
    "lstm-activations": (
        "LSTM",
        ("P",),
        {"activations": ["HardSigmoid", "Softsign", "Relu"]},
        [hard_sigmoid, ACTIVATIONS["Softsign"][1], relu],
        [hard_sigmoid, ACTIVATIONS["Softsign"][1], relu],
    ),
    "gru-clip-reset_after": ("GRU", (), {"clip": 0.4, "linear_before_reset": 1}, ALL_CLIPPED, ALL_CLIPPED),
    "gru-activations": (
        "GRU",
        (),
        {"activations": ["HardSigmoid", "LeakyRelu"], "activation_alpha": [0.2, 0.25]},
        [hard_sigmoid, lambda x: np.where(x >= 0, x, 0.25 * x)],
        [hard_sigmoid, lambda x: np.where(x >= 0, x, 0.25 * x)],
    ),
}


@pytest.mark.parametrize("variant", GENERAL)
def test_clip_input_forget_and_activations_follow_the_specification(variant):
    op, without, attributes, functions, theirs = GENERAL[variant]
    node, inputs = a_node(op, without=without, **attributes)
    more = {"reset_after": bool(attributes.get("linear_before_reset")), "coupled": "input_forget" in attributes}
    for got, wanted in zip(interop.run_node(node, inputs), spec(op, inputs, functions=functions, **more), strict=True):
        if got is not None:
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is an optional peer: pip install jaxrnn[peers]")
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in inputs.items()}
    infos = [onnx.helper.make_tensor_value_info(name, kind, inputs[name].shape) for name, kind in kinds.items()]
    node.output[:] = ["Y"]
    output = onnx.helper.make_tensor_value_info("Y", kinds["X"], None)
    graph = onnx.helper.make_graph([node], "graph", infos, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    want = spec(op, inputs, functions=theirs, **more)[0]
    np.testing.assert_allclose(session.run(["Y"], inputs)[0], want, rtol=1e-5, atol=1e-6)


def test_gated_cells_of_nodes_run_with_every_driver():
    attributes = {"clip": 0.4, "input_forget": 1, "activations": ["HardSigmoid", "Softsign", "Elu"]}
    node, inputs = a_node("LSTM", **attributes)
    cell, params, state = interop.from_node(node, inputs)
    assert isinstance(cell, GatedCell)
    assert pickle.loads(pickle.dumps(cell)) == cell
    loss = lambda params, driver: jnp.square(unroll(cell, params, inputs["X"], state, driver=driver)[1]).sum()
    gradients = [jax.jit(jax.grad(loss), static_argnums=1)(params, driver) for driver in (Scan(), BPTT(chunk=2))]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *gradients)


def test_each_direction_has_its_own_activation():
    attributes = {"activations": ["Tanh", "LeakyRelu"], "activation_alpha": [0.5], "direction": "bidirectional"}
    cell = interop.from_node(*a_node("RNN", directions=2, **attributes)).cell
    assert cell.forward == Elman(H)
    assert cell.backward.activation(jnp.array([-2.0])) == -1.0


def test_the_cell_equals_one_written_by_hand():
    convert = lambda *args, **more: interop.from_node(*a_node(*args, **more)).cell
    assert convert("RNN") == convert("RNN", activations=["Tanh", "Tanh"]) == Elman(H)
    assert convert("GRU") == ResetBeforeGRU(H)
    assert convert("GRU", linear_before_reset=1) == GRU(H)
    assert convert("LSTM") == PeepholeLSTM(H)
    assert convert("LSTM", without=["P"], direction="reverse") == Reversed(LSTM(H))
    assert convert("LSTM", without=["P"], directions=2, direction="bidirectional") == Bidirectional(LSTM(H))


@pytest.mark.parametrize("precision", ["float16", "float64"])
def test_the_dtype_is_kept(precision):
    node, inputs = a_node("LSTM")
    floats = {n: a.astype(precision) if a.dtype == np.float32 else a for n, a in inputs.items()}
    with jax.enable_x64(precision == "float64"):
        outputs = interop.run_node(node, floats)
        assert all(a.dtype == precision for a in outputs)
        tolerance = {"float16": 1e-2, "float64": 1e-12}[precision]
        np.testing.assert_allclose(outputs.Y, spec("LSTM", floats)[0], rtol=tolerance, atol=tolerance)


def test_run_node_is_differentiable_and_compiles():
    node, inputs = a_node("RNN")
    fixed = {name: a for name, a in inputs.items() if name != "W"}
    loss = lambda w: jnp.square(interop.run_node(node, fixed | {"W": w}).Y).sum()
    w = jnp.asarray(inputs["W"])
    gradient = jax.jit(jax.grad(loss))(w)
    ahead = w + 1e-2 * gradient / jnp.linalg.norm(gradient)
    slope = (loss(ahead) - loss(2 * w - ahead)) / 2e-2
    np.testing.assert_allclose(slope, jnp.linalg.norm(gradient), rtol=1e-2)
