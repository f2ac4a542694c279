"""ONNX's own node tests, and what they leave out against the equations of its specification."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import GRU, LSTM, Bidirectional, Elman, PeepholeLSTM, ResetBeforeGRU, Scan, unroll

onnx = pytest.importorskip("onnx", reason="onnx is an extra")
interop = pytest.importorskip("jaxrnn.interop.onnx", reason="it needs onnx")

T, B, D, H = 4, 3, 2, 3
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
SIMPLE = ["defaults", "with_initial_bias", "batchwise", "reverse", "bidirectional"]
NODE_TESTS = [f"test_{op}_{form}" for op in ("simple_rnn", "gru", "lstm") for form in SIMPLE]
NODE_TESTS += ["test_rnn_seq_length", "test_gru_seq_length", "test_lstm_with_peepholes"]


@pytest.fixture(scope="module")
def node_tests():
    """Every case of RNN, GRU and LSTM, by its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case import node
        from onnx.backend.test.case.node import gru, lstm, rnn  # noqa: F401  # each registers its cases
    # `collect_testcases` would make the cases of every operator, which takes ten seconds.
    return {case.name: case for case in node._NodeTestCases if case.model.graph.node[0].op_type in GATES}


def test_these_are_all_node_tests(node_tests):
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


INPUTS = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]


def a_node(op, *, directions=1, layout=0, without=(), **attributes):
    """A node that has every input, and the inputs."""
    rng, rows = np.random.default_rng(0), GATES[op] * H
    shapes = {"X": (T, B, D), "W": (directions, rows, D), "R": (directions, rows, H), "B": (directions, 2 * rows)}
    shapes |= {"initial_h": (directions, B, H), "initial_c": (directions, B, H), "P": (directions, 3 * H)}
    inputs = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    inputs["sequence_lens"] = np.array([T, 2, 0], np.int32)
    if layout:
        inputs |= {name: inputs[name].swapaxes(0, 1) for name in ("X", "initial_h", "initial_c")}
        attributes["layout"] = layout
    names = INPUTS if op == "LSTM" else INPUTS[:6]
    names = ["" if name in without else name for name in names]
    node = onnx.helper.make_node(op, names, ["Y", "Y_h", "Y_c"], hidden_size=H, **attributes)
    return node, {name: inputs[name] for name in names if name}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def spec_step(op, x, h, c, weights, reset_after, f):
    """One step of one row, as the operators' documentation writes it: W[iofc] and W[zrh]."""
    w, r, w_b, r_b, p = weights
    if op == "RNN":
        return f(x @ w[0].T + h @ r[0].T + w_b[0] + r_b[0]), c
    if op == "GRU":
        z, reset = (sigmoid(x @ w[k].T + h @ r[k].T + w_b[k] + r_b[k]) for k in (0, 1))
        inner = reset * (h @ r[2].T + r_b[2]) if reset_after else (reset * h) @ r[2].T + r_b[2]
        return (1 - z) * np.tanh(x @ w[2].T + inner + w_b[2]) + z * h, c
    i, o, forget, g = (x @ w[k].T + h @ r[k].T + w_b[k] + r_b[k] for k in range(4))
    new = sigmoid(forget + p[2] * c) * c + sigmoid(i + p[0] * c) * np.tanh(g)
    return sigmoid(o + p[1] * new) * np.tanh(new), new


def spec(op, inputs, *, reverse=(False,), reset_after=False, f=np.tanh):
    """Y (T, directions, B, H), Y_h and Y_c of layout 0, row by row, in float64."""
    gates, directions = GATES[op], len(reverse)
    y = np.zeros((T, directions, B, H))
    ends = np.zeros((2, directions, B, H))
    for d, backward in enumerate(reverse):
        w, r = (inputs[name][d].reshape(gates, H, -1) for name in ("W", "R"))
        w_b, r_b = inputs.get("B", np.zeros((directions, 2 * gates * H)))[d].reshape(2, gates, H)
        p = inputs.get("P", np.zeros((directions, 3 * H)))[d].reshape(3, H)
        for b in range(B):
            h, c = (inputs.get(name, np.zeros((directions, B, H)))[d, b] for name in ("initial_h", "initial_c"))
            times = range(inputs["sequence_lens"][b])
            for t in reversed(times) if backward else times:
                h, c = spec_step(op, inputs["X"][t, b], h, c, (w, r, w_b, r_b, p), reset_after, f)
                y[t, d, b] = h
            ends[:, d, b] = h, c
    return y, *ends


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
def test_lengths_states_and_directions_are_the_specifications(variant):
    op, direction, attributes, without = VARIANTS[variant]
    backward = DIRECTIONS[direction]
    node, inputs = a_node(op, directions=len(backward), without=without, direction=direction, **attributes)
    want = spec(op, inputs, reverse=backward, reset_after=bool(attributes.get("linear_before_reset")))
    for got, wanted in zip(interop.run_node(node, inputs), want, strict=True):
        if got is not None:
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", ["GRU", "LSTM"])
def test_layout_1_is_layout_0_with_other_axes(op):
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
    want = spec("RNN", inputs | {"sequence_lens": np.ones(B, int)}, f=f)[0][0, 0]
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


def test_each_direction_has_its_own_activation():
    attributes = {"activations": ["Tanh", "LeakyRelu"], "activation_alpha": [0.5], "direction": "bidirectional"}
    cell = interop.from_node(*a_node("RNN", directions=2, **attributes)).cell
    assert cell.forward == Elman(H)
    assert cell.backward.activation(jnp.array([-2.0])) == -1.0


def test_the_cell_is_what_one_would_write_by_hand():
    convert = lambda *args, **more: interop.from_node(*a_node(*args, **more)).cell
    assert convert("RNN") == convert("RNN", activations=["Tanh", "Tanh"]) == Elman(H)
    assert convert("GRU") == ResetBeforeGRU(H)
    assert convert("GRU", linear_before_reset=1) == GRU(H)
    assert convert("LSTM") == PeepholeLSTM(H)
    assert convert("LSTM", without=["P"], direction="reverse") == interop.Backward(LSTM(H))
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


def a_model():
    """Two layers: a GRU with a name, an LSTM without, whose initial state is among the weights."""
    gru, gru_inputs = a_node("GRU", without=["sequence_lens", "initial_h"])
    lstm, lstm_inputs = a_node("LSTM", without=["sequence_lens", "P"])
    gru.name = "encoder"
    tensors = []
    for prefix, node, inputs in (("gru_", gru, gru_inputs), ("lstm_", lstm, lstm_inputs)):
        node.input[:] = [name and prefix + name for name in node.input]
        node.output[:] = [prefix + name for name in node.output]
        tensors += [onnx.numpy_helper.from_array(a, prefix + name) for name, a in inputs.items() if name != "X"]
    constant = onnx.helper.make_node("Constant", [], ["lstm_R"], value=next(t for t in tensors if t.name == "lstm_R"))
    tensors = [tensor for tensor in tensors if tensor.name != "lstm_R"]
    return onnx.helper.make_model(onnx.helper.make_graph([gru, constant, lstm], "graph", [], [], tensors))


def test_load_converts_the_nodes_of_a_model(tmp_path):
    model = a_model()
    onnx.save(model, tmp_path / "model.onnx")
    layers = interop.load(tmp_path / "model.onnx")
    assert list(layers) == ["encoder", "lstm_Y"]
    assert layers["encoder"].cell == interop.load(model)["encoder"].cell == ResetBeforeGRU(H)
    assert layers["encoder"].state is None
    _, inputs = a_node("LSTM", without=["P"])
    cell, params, state = layers["lstm_Y"]
    last, ys = unroll(cell, params, inputs["X"], state, driver=Scan())
    y, h, c = spec("LSTM", {n: a for n, a in inputs.items() if n != "P"} | {"sequence_lens": np.full(B, T)})
    for got, want in [(ys, y[:, 0]), (last.h, h[0]), (last.c, c[0])]:
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


REFUSED = {
    "operator": (lambda: (onnx.helper.make_node("Conv", ["X"], ["Y"]), {}), "Conv"),
    "attribute": (lambda: a_node("RNN", output_sequence=1), "output_sequence"),
    "input_forget": (lambda: a_node("LSTM", input_forget=1), "input_forget"),
    "clip": (lambda: a_node("GRU", clip=1.0), "clip"),
    "activations": (lambda: a_node("LSTM", activations=["Relu", "Tanh", "Tanh"]), "Relu"),
    "count": (lambda: a_node("RNN", activations=["Relu", "Relu"]), "has 1 activations"),
    "name": (lambda: a_node("RNN", activations=["Gelu"]), "Gelu"),
    "no alpha": (lambda: a_node("RNN", activations=["Affine"]), "needs an alpha"),
    "too many alphas": (lambda: a_node("RNN", activations=["Elu"], activation_alpha=[1.0, 2.0]), "left over"),
    "direction": (lambda: a_node("RNN", direction="sideways"), "sideways"),
    "weights of one direction": (lambda: a_node("RNN", direction="bidirectional"), "directions=2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_from_node_says_what_it_does_not_take(case):
    make, said = REFUSED[case]
    with pytest.raises(ValueError, match=said):
        interop.from_node(*make())


def test_inputs_that_are_missing_or_do_not_fit_are_refused():
    node, inputs = a_node("LSTM")
    without = lambda name: {n: a for n, a in inputs.items() if n != name}
    with pytest.raises(ValueError, match="takes R from 'R'"):
        interop.from_node(node, without("R"))
    with pytest.raises(ValueError, match="'initial_c'"):
        interop.from_node(node, without("initial_c"))
    with pytest.raises(ValueError, match="'X'"):
        interop.run_node(node, without("X"))
    with pytest.raises(ValueError, match="hidden_size=3"):
        interop.from_node(node, inputs | {"R": np.ones((1, 20, 5), np.float32)})
    with pytest.raises(ValueError, match="initial states"):
        interop.from_node(node, inputs | {"initial_h": np.ones((2, B, H), np.float32)})


def test_load_says_what_it_misses():
    relu = onnx.helper.make_node("Relu", ["X"], ["Y"])
    with pytest.raises(ValueError, match="Relu"):
        interop.load(onnx.helper.make_model(onnx.helper.make_graph([relu], "graph", [], [])))
    model = a_model()
    model.graph.initializer.pop(0)
    with pytest.raises(ValueError, match="gru_W"):
        interop.load(model)
    model = a_model()
    model.graph.node[2].name = "encoder"
    with pytest.raises(ValueError, match="encoder"):
        interop.load(model)
