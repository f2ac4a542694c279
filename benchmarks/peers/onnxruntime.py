"""onnxruntime: a model of one node, on a CPU."""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

import numpy as np

from jaxrnn.interop.arrays import join_gates

from ..workload import Answer, Data, Workload
from .layout import dense_only, in_order, recurrent_bias
from .peer import Program

NODES = {"elman": "RNN", "gru": "GRU", "lstm": "LSTM"}
ORDERS = {"elman": (0,), "gru": (1, 0, 2), "lstm": (0, 3, 1, 2)}  # z, r, h and i, o, f, c
OPSET, FORMAT = 14, 8  # of the model: the newest RNN, GRU and LSTM, in a file that any onnxruntime reads


@dataclasses.dataclass(frozen=True)
class OnnxRuntime:
    """ONNX's RNN, GRU (`linear_before_reset=1`) or LSTM in an `InferenceSession`, all its options left alone."""

    name: str = "onnxruntime"
    package: str = "onnxruntime"

    def lacks(self, workload: Workload, platform: str) -> str | None:
        """Gradients, other dtypes, other platforms, heads; and onnx, if that is not installed."""
        if workload.gradient:
            return "inference only: no gradients"
        if platform != "cpu":
            return "measured on a CPU only"
        if workload.dtype != "float32":
            return "float32 only"
        if importlib.util.find_spec("onnx") is None:
            return "needs onnx to build its model: pip install onnx"
        return dense_only(workload)

    def equation(self, workload: Workload) -> str | None:
        """The workload's."""
        return None

    def make(self, workload: Workload, data: Data) -> Program:
        """Build the model and its session."""
        import onnxruntime

        session = onnxruntime.InferenceSession(model(workload, data), providers=["CPUExecutionProvider"])
        return Program(lambda: session.run(["Y"], {"X": data.xs})[0], lambda y: Answer(ys=y[:, 0]))


def model(workload: Workload, data: Data) -> bytes:
    """Give a model of one node from X (T, B, I) to Y (T, 1, B, H)."""
    import onnx
    from onnx import helper

    reset = {"linear_before_reset": 1} if workload.cell == "gru" else {}
    inputs = ["X", "W", "R", "B"]
    node = helper.make_node(NODES[workload.cell], inputs, ["Y"], hidden_size=workload.hidden, **reset)
    shapes = {"X": data.xs.shape, "Y": (workload.time, 1, workload.batch, workload.hidden)}
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items())
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in arrays(workload, data).items()]
    graph = helper.make_graph([node], workload.cell, [x], [y], weights)
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=FORMAT).SerializeToString()


def arrays(workload: Workload, data: Data) -> dict[str, Any]:
    """Give the weights under ONNX's names, each with its axis for directions: W, R, and B of two biases."""
    params = in_order(data.params, *ORDERS[workload.cell])
    second = np.asarray(recurrent_bias(data.params))[list(ORDERS[workload.cell])]
    biases = np.concatenate([params.b.ravel(), second.ravel()])
    found = {"W": join_gates(params.w_x), "R": join_gates(params.w_h), "B": biases}
    return {name: np.ascontiguousarray(array[None]) for name, array in found.items()}
