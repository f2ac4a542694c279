"""The intent model as a graph of ONNX, for any number of steps, and its answers by onnxruntime on a CPU."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from jaxrnn import GatedParams
from jaxrnn.interop.arrays import join_gates

from .task import Answer, Task

OPSET, FORMAT = 17, 8
ORDER = (1, 0, 2)  # of the gates: ours are r, z, n, ONNX's z, r, h


def answering(task: Task) -> Answer:
    """Answer in a session, all of whose options are left alone."""
    session = onnxruntime.InferenceSession(model(task), providers=["CPUExecutionProvider"])
    return lambda ids: session.run(None, {"ids": ids})[0][0]


def model(task: Task) -> bytes:
    """Give the model from ids (T, N) to probabilities (1, K)."""
    node, hidden = helper.make_node, task.config.hidden
    mean = [
        node("Split", ["ids", "split"], ["word", "grams"], axis=1),
        node("Gather", ["table", "word"], ["own"]),  # row 0 is zero: nothing counts for nothing
        node("Gather", ["table", "grams"], ["vectors"]),
        node("ReduceSum", ["vectors", "one"], ["total"], keepdims=0),
        node("Equal", ["grams", "nothing"], ["missing"]),
        node("Not", ["missing"], ["there"]),
        node("Cast", ["there"], ["ones"], to=onnx.TensorProto.FLOAT),
        node("ReduceSum", ["ones", "one"], ["count"], keepdims=1),
        node("Max", ["count", "least"], ["divisor"]),
        node("Div", ["total", "divisor"], ["means"]),
        node("Unsqueeze", ["means", "one"], ["of_grams"]),
        node("Add", ["own", "of_grams"], ["xs"]),  # (T, 1, F)
    ]
    gru = {"hidden_size": hidden, "direction": "bidirectional", "linear_before_reset": 1}
    answer = [
        node("GRU", ["xs", "w", "r", "b"], ["ys"], **gru),
        node("ReduceMax", ["ys"], ["highest"], axes=[0], keepdims=0),  # (2, 1, H)
        node("Reshape", ["highest", "flat"], ["features"]),
        node("Gemm", ["features", "v", "c"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    ids = helper.make_tensor_value_info("ids", onnx.TensorProto.INT32, ("T", "N"))
    out = helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, (1, task.model.outputs))
    weights = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays(task).items()]
    graph = helper.make_graph([*mean, *answer], "intent", [ids], [out], weights)
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=FORMAT).SerializeToString()


def arrays(task: Task) -> dict[str, np.ndarray]:
    """Give weights and constants under their names in the graph."""
    params = task.params
    table = params.embed.copy()
    table[0] = 0
    directions = [direction(p) for p in params.layers[1]]
    return {
        "table": table,
        **{name: np.stack([weights[name] for weights in directions]) for name in ("w", "r", "b")},
        "v": params.readout.v,
        "c": params.readout.c,
        "one": np.array([1]),
        "split": np.array([1, task.utterances[0].shape[1] - 1]),
        "nothing": np.array(0, np.int32),
        "least": np.array(1, np.float32),
        "flat": np.array([1, 2 * task.config.hidden]),
    }


def direction(params: GatedParams) -> dict[str, np.ndarray]:
    """Give the weights of one direction, the gates in ONNX's order; its second bias is b_hn and zeros."""
    order = np.array(ORDER)
    second = np.zeros_like(params.b)
    second[2] = params.local
    w, r = (join_gates(weights[:, order]) for weights in (params.w_x, params.w_h))
    return {"w": w, "r": r, "b": np.concatenate([params.b[order].ravel(), second[order].ravel()])}
