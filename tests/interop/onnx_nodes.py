"""Nodes of ONNX with every input, a model of two layers, and the equations of the specification in NumPy."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is an extra")

T, B, D, H = 4, 3, 2, 3
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
INPUTS = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]


def a_node(op, *, directions=1, layout=0, without=(), **attributes):
    """Return a node with every input that is not in `without`, and the inputs."""
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


def a_model():
    """Return a model of two layers: a GRU with a name, and an LSTM without, whose initial state is a weight."""
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


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


DEFAULTS = {"RNN": (np.tanh,), "GRU": (sigmoid, np.tanh), "LSTM": (sigmoid, np.tanh, np.tanh)}


def spec_step(op, x, h, c, weights, reset_after, functions, coupled):
    """Compute one step of one row, as in the operators' documentation: W[iofc] and W[zrh]."""
    w, r, w_b, r_b, p = weights
    if op == "RNN":
        return functions[0](x @ w[0].T + h @ r[0].T + w_b[0] + r_b[0]), c
    f, g, *_ = functions
    if op == "GRU":
        z, reset = (f(x @ w[k].T + h @ r[k].T + w_b[k] + r_b[k]) for k in (0, 1))
        inner = reset * (h @ r[2].T + r_b[2]) if reset_after else (reset * h) @ r[2].T + r_b[2]
        return (1 - z) * g(x @ w[2].T + inner + w_b[2]) + z * h, c
    i, o, forget, cell = (x @ w[k].T + h @ r[k].T + w_b[k] + r_b[k] for k in range(4))
    i = f(i + p[0] * c)
    new = (1 - i if coupled else f(forget + p[2] * c)) * c + i * g(cell)
    return f(o + p[1] * new) * functions[2](new), new


def spec(op, inputs, *, reverse=(False,), reset_after=False, functions=None, coupled=False):
    """Compute Y (T, directions, B, H), Y_h and Y_c of layout 0, row by row, in float64."""
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
                weights = (w, r, w_b, r_b, p)
                h, c = spec_step(op, inputs["X"][t, b], h, c, weights, reset_after, functions or DEFAULTS[op], coupled)
                y[t, d, b] = h
            ends[:, d, b] = h, c
    return y, *ends
