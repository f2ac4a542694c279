"""Models of ONNX as files: conversion, and rejection of damaged and hostile ones."""

import numpy as np
import pytest

from jaxrnn import ResetBeforeGRU, Scan, unroll

onnx = pytest.importorskip("onnx", reason="onnx is an extra")
interop = pytest.importorskip("jaxrnn.interop.onnx", reason="it needs onnx")
from .onnx_nodes import B, H, T, a_model, a_node, spec  # noqa: E402  # it needs onnx


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


REJECTED = {
    "operator": (lambda: (onnx.helper.make_node("Conv", ["X"], ["Y"]), {}), "Conv"),
    "attribute": (lambda: a_node("RNN", output_sequence=1), "output_sequence"),
    "input_forget": (lambda: a_node("LSTM", input_forget=2), "input_forget is 0 or 1"),
    "layout": (lambda: a_node("LSTM", layout=-1), "layout is 0 or 1"),
    "clip": (lambda: a_node("GRU", clip=-1.0), "above 0"),
    "type": (lambda: a_node("GRU", clip="1"), "FLOAT"),
    "alpha": (lambda: a_node("RNN", activations=["Elu"], activation_alpha=[np.nan]), "a finite alpha"),
    "count": (lambda: a_node("RNN", activations=["Relu", "Relu"]), "has 1 activations"),
    "name": (lambda: a_node("RNN", activations=["Gelu"]), "Gelu"),
    "no alpha": (lambda: a_node("RNN", activations=["Affine"]), "needs an alpha"),
    "too many alphas": (lambda: a_node("RNN", activations=["Elu"], activation_alpha=[1.0, 2.0]), "left over"),
    "direction": (lambda: a_node("RNN", direction="sideways"), "sideways"),
    "weights of one direction": (lambda: a_node("RNN", direction="bidirectional"), "directions=2"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_from_node_rejects_invalid_nodes(case):
    make, message = REJECTED[case]
    with pytest.raises(ValueError, match=message):
        interop.from_node(*make())


def test_inputs_that_are_missing_or_do_not_fit_are_rejected():
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
    with pytest.raises(ValueError, match="initial states"):
        interop.from_node(node, inputs | {"initial_h": np.ones((1, B + 1, H), np.float32)})
    with pytest.raises(ValueError, match="R in int64"):
        interop.from_node(node, inputs | {"R": np.ones((1, 12, 3), np.int64)})
    with pytest.raises(ValueError, match="B has NaN"):
        interop.from_node(node, inputs | {"B": np.full((1, 24), np.nan, np.float32)})


def test_load_rejects_models_without_nodes_weights_or_unique_names():
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


def tensor_of(model, name):
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def outside(model, location):
    """Move the weights gru_R to another file."""
    tensor = tensor_of(model, "gru_R")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def shared(model):
    """Let many nodes name one large tensor, so that the weights exceed memory."""
    tensor = tensor_of(model, "gru_B")
    tensor.dims[:] = [1, 1 << 26]
    tensor.raw_data = b""
    model.graph.node.extend([model.graph.node[0]] * 20)


def looped(model):
    body = onnx.helper.make_graph([model.graph.node[0]], "body", [], [])
    del model.graph.node[:]
    model.graph.node.append(onnx.helper.make_node("Loop", ["", ""], ["out"], body=body))


def renamed(model):
    """Rename everything except the weights of the first node to long names."""
    for number, tensor in enumerate(model.graph.initializer):
        tensor.name = f"{number}" * 1000
    model.graph.node[0].name = "n" * 1000
    model.graph.node[0].input[:] = ["X", *("w" * 1000 for _ in range(2))]


HOSTILE = {
    "a huge shape": (lambda m: tensor_of(m, "gru_W").dims.__setitem__(1, 2**62), "at most 2147483648 bytes"),
    "a huge shape without numbers": (
        lambda m: tensor_of(m, "gru_W").dims.__setitem__(slice(3), [0, 2**62, 0]),
        "shape",
    ),
    "a negative shape": (lambda m: tensor_of(m, "gru_W").dims.__setitem__(1, -9), "none negative"),
    "another shape": (lambda m: tensor_of(m, "gru_W").dims.__setitem__(1, 8), "needs 64 bytes; it holds 72"),
    "many axes": (lambda m: tensor_of(m, "gru_W").dims.extend([2**62] * 10000), "at most 3 axes"),
    "another dtype": (lambda m: setattr(tensor_of(m, "gru_W"), "data_type", 7), "data type number 7"),
    "strings": (lambda m: setattr(tensor_of(m, "gru_W"), "data_type", 8), "data type number 8"),
    "two dtypes": (
        lambda m: setattr(tensor_of(m, "gru_B"), "data_type", 1) or mixed(m),
        "B in float16 and W in float32",
    ),
    "NaN": (lambda m: setattr(tensor_of(m, "gru_W"), "raw_data", b"\xff" * 72), "NaN"),
    "shared": (shared, "together have at most"),
    "outside": (lambda m: outside(m, "../secret"), "cannot be read"),
    "outside by root": (lambda m: outside(m, "/etc/passwd"), "cannot be read"),
    "nowhere": (lambda m: outside(m, "nowhere"), "cannot be read"),
    "too short": (lambda m: outside(m, "short"), "cannot be read"),
    "a loop": (looped, "Loop"),
    "no inputs": (lambda m: m.graph.node[0].ClearField("input"), "W and R among them"),
    "too many inputs": (lambda m: m.graph.node[0].input.extend(["x"] * 99), "3 to 6 inputs"),
    "no names": (lambda m: [node.ClearField(f) for node in m.graph.node for f in ("name", "output")], "two nodes"),
    "an old opset": (lambda m: setattr(m.opset_import[0], "version", 1), "opset"),
    "no opset": (lambda m: m.ClearField("opset_import"), "opset"),
    "many nodes": (lambda m: m.graph.node.extend([m.graph.node[0]] * 1000), "1 to 1000"),
    "fixed lengths": (lambda m: m.graph.node[0].input.__setitem__(4, "gru_B"), "fixes sequence_lens"),
    "a long name": (lambda m: setattr(m.graph.node[0], "name", "n" * 100000) or m.graph.initializer.pop(0), "gru_W"),
    "long names": (renamed, "takes W from"),
    "a broken constant": (lambda m: m.graph.node[1].ClearField("attribute"), "lstm_R"),
}


def mixed(model):
    """Convert the bias to half precision."""
    tensor = tensor_of(model, "gru_B")
    tensor.data_type = onnx.TensorProto.FLOAT16
    tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2]


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_model_is_rejected_with_a_short_message(case, tmp_path):
    change, message = HOSTILE[case]
    (tmp_path / "secret").write_bytes(bytes(108))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "short").write_bytes(bytes(8))
    model = a_model()
    change(model)
    (tmp_path / "models" / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=message) as caught:
        interop.load(tmp_path / "models" / "model.onnx")
    assert len(str(caught.value)) < 300


def test_weights_in_a_separate_file_are_read(tmp_path):
    model = a_model()
    want = interop.load(model)["encoder"].params
    (tmp_path / "weights").write_bytes(bytes(4) + tensor_of(model, "gru_R").raw_data + bytes(4))
    outside(model, "weights")
    tensor_of(model, "gru_R").external_data.add(key="offset", value="4")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    np.testing.assert_array_equal(interop.load(tmp_path / "model.onnx")["encoder"].params.w_h, want.w_h)
    with pytest.raises(ValueError, match="in another file"):
        interop.load(model)
