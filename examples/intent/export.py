"""Exports of the classifier: ONNX, with a GRU node from `jaxrnn.interop.onnx`, and a portable JAX program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax import export
from onnx import helper, numpy_helper

from jaxrnn import Scan
from jaxrnn.interop.onnx import IR_VERSION, OPSET, to_nodes
from jaxrnn.model import SequenceModel

from .calibration import Calibration
from .classifier import Classifier, zero_unknown
from .errors import UserError
from .layers import MEAN_SCALE

TOLERANCE = 1e-3  # above rounding errors
PLATFORMS = ("cpu", "cuda", "tpu")
OUTPUTS = ("logits", "probabilities", "none")  # (B, K), calibrated (B, K), and (B,), whether the text is rejected

# The nodes of the graph before the layers, and after them: operator, inputs, outputs, attributes.
EMBED: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
    ("Split", ["ids", "split"], ["word", "grams"], {"axis": 2}),
    ("Gather", ["table", "word"], ["words"], {}),  # row 0 of the table is zero
    ("ReduceSum", ["words", "two"], ["own"], {"keepdims": 0}),
    ("Gather", ["table", "grams"], ["vectors"], {}),
    ("ReduceSum", ["vectors", "two"], ["total"], {"keepdims": 0}),
    ("Equal", ["grams", "no_id"], ["missing"], {}),
    ("Not", ["missing"], ["present"], {}),
    ("Cast", ["present"], ["ones"], {"to": onnx.TensorProto.FLOAT}),
    ("ReduceSum", ["ones", "two"], ["count"], {"keepdims": 1}),
    ("Max", ["count", "min_count"], ["divisor"], {}),
    ("Div", ["total", "divisor"], ["mean"], {}),
    ("Add", ["own", "mean"], ["xs"], {}),  # (T, B, F)
]
PREDICT: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
    ("Shape", ["ids"], ["length"], {"start": 0, "end": 1}),
    ("Squeeze", ["length"], ["num_steps"], {}),
    ("Range", ["zero", "num_steps", "one_step"], ["steps"], {}),
    ("Unsqueeze", ["steps", "one"], ["column"], {}),
    ("Cast", ["lengths"], ["long_lengths"], {"to": onnx.TensorProto.INT64}),
    ("Less", ["column", "long_lengths"], ["before_end"], {}),
    ("Unsqueeze", ["before_end", "two"], ["valid"], {}),
    ("Where", ["valid", "ys", "lowest"], ["valid_states"], {}),
    ("ReduceMax", ["valid_states"], ["max_state"], {"axes": [0], "keepdims": 0}),
    ("Where", ["valid", "xs", "zero_float"], ["valid_tokens"], {}),
    ("ReduceSum", ["valid_tokens", "first"], ["sum"], {"keepdims": 0}),
    ("Cast", ["lengths"], ["float_lengths"], {"to": onnx.TensorProto.FLOAT}),
    ("Unsqueeze", ["float_lengths", "one"], ["counts"], {}),
    ("Div", ["sum", "counts"], ["mean_token"], {}),
    ("Mul", ["mean_token", "mean_scale"], ["scaled_mean"], {}),
    ("Concat", ["max_state", "scaled_mean"], ["features"], {"axis": 1}),
    ("Gemm", ["features", "v", "c"], ["raw_logits"], {}),
    ("Where", ["valid", "word", "no_id"], ["valid_words"], {}),
    ("ReduceMax", ["valid_words"], ["max_word"], {"axes": [0], "keepdims": 0}),
    ("Greater", ["max_word", "no_id"], ["known"], {}),  # (B, 1)
    ("Where", ["known", "raw_logits", "zero_float"], ["logits"], {}),
    ("Div", ["logits", "temperature"], ["scaled_logits"], {}),
    ("Softmax", ["scaled_logits"], ["probabilities"], {"axis": -1}),
    ("Sqrt", ["probabilities"], ["roots"], {}),
    ("ReduceSum", ["roots", "one"], ["root_sum"], {"keepdims": 1}),
    ("Mul", ["root_sum", "root_sum"], ["uncertainty"], {}),
    ("LessOrEqual", ["uncertainty", "threshold"], ["certain"], {}),
    ("And", ["known", "certain"], ["accepted_column"], {}),
    ("Squeeze", ["accepted_column", "one"], ["accepted"], {}),
    ("Not", ["accepted"], ["none"], {}),
]


def to_jax(classifier: Classifier) -> bytes:
    """Return a program for `jax.export.deserialize`: ids (T, B, N) and lengths (B,), int32, to `OUTPUTS`.

    Padding ids are 0. It takes any T and B, includes the weights, and runs on CPUs, NVIDIA GPUs and TPUs.
    """
    model, params = classifier.model, jax.tree.map(np.asarray, classifier.params.model)

    def run(ids: jax.Array, lengths: jax.Array) -> tuple[jax.Array, ...]:
        logits = zero_unknown(ids, model(params, ids, lengths, driver=Scan()))
        return logits, classifier.calibration.probabilities(logits), classifier.calibration.rejects(logits)

    shape = export.symbolic_shape("t, b", constraints=["t >= 1"])
    ids = jax.ShapeDtypeStruct((*shape, classifier.vocabulary.width), np.int32)
    lengths = jax.ShapeDtypeStruct(shape[1:], np.int32)
    return bytes(export.export(jax.jit(run), platforms=PLATFORMS)(ids, lengths).serialize())


def to_onnx(classifier: Classifier) -> bytes:
    """Return an ONNX model: ids (T, B, N) and lengths (B,), int32, to `OUTPUTS`."""
    return onnx_graph(classifier.model, classifier.params.model, classifier.vocabulary.width, classifier.calibration)


def onnx_graph(model: SequenceModel, params: Any, width: int, calibration: Calibration) -> bytes:
    """Return the ONNX graph of a model, for bags of N = `width` ids."""
    layers = to_nodes(model.layers.layers[0].cell, params.layers[0], "xs", "ys", "lengths")
    embed, predict = (
        [helper.make_node(*node, **attributes) for *node, attributes in part] for part in (EMBED, PREDICT)
    )
    count = params.readout.c.shape[0]
    ids = helper.make_tensor_value_info("ids", onnx.TensorProto.INT32, ("T", "B", width))
    lengths = helper.make_tensor_value_info("lengths", onnx.TensorProto.INT32, ("B",))
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("B", count)) for name in OUTPUTS[:2]]
    outputs.append(helper.make_tensor_value_info("none", onnx.TensorProto.BOOL, ("B",)))
    arrays = _arrays(params) | {
        "split": np.array([1, width - 1]),
        "temperature": np.array(calibration.temperature, np.float32),
        "threshold": np.array(np.inf if calibration.threshold is None else calibration.threshold, np.float32),
    }
    weights = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()]
    nodes = [*embed, *layers.nodes, *predict]
    graph = helper.make_graph(nodes, "intent", [ids, lengths], outputs, [*weights, *layers.weights])
    opset = helper.make_opsetid("", OPSET)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION).SerializeToString())


def _arrays(params: Any) -> dict[str, np.ndarray]:
    """Return weights and constants, named as in the graph."""
    table = np.array(params.embed)
    table[0] = 0
    return {
        "table": table,
        "v": np.asarray(params.readout.v),
        "c": np.asarray(params.readout.c),
        "two": np.array([2]),
        "one": np.array([1]),
        "first": np.array([0]),
        "zero_float": np.array(0, np.float32),
        "mean_scale": np.array(MEAN_SCALE, np.float32),
        "zero": np.array(0),
        "one_step": np.array(1),
        "no_id": np.array(0, np.int32),
        "min_count": np.array(1, np.float32),
        "lowest": np.array(-np.inf, np.float32),
    }


def check_jax(classifier: Classifier, content: bytes) -> str:
    """Compare the exported program with the classifier and return a summary. Raise UserError if they differ."""
    call = export.deserialize(bytearray(content)).call
    return _difference(classifier, lambda ids, lengths: [np.asarray(out) for out in call(ids, lengths)])


def check_onnx(classifier: Classifier, content: bytes) -> str:
    """Compare the graph with the classifier as `check_jax` does, if onnxruntime is installed."""
    try:
        import onnxruntime
    except ImportError:
        return "not checked: pip install onnxruntime"
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return _difference(classifier, lambda ids, lengths: session.run(OUTPUTS, {"ids": ids, "lengths": lengths}))


def _difference(classifier: Classifier, call: Callable[[np.ndarray, np.ndarray], Sequence[np.ndarray]]) -> str:
    texts = ["what time is it ?", "now", "!!!", "现在几点了", "turn the lights in the kitchen on and play some music"]
    sequences = [classifier.encode(text) for text in texts]
    lengths = np.array([len(ids) for ids in sequences], np.int32)
    ids = np.zeros((max(lengths), len(texts), classifier.vocabulary.width), np.int32)
    for row, sequence in enumerate(sequences):
        ids[: len(sequence), row] = sequence
    logits, probabilities, none = call(ids, lengths)
    expected = classifier.logits(texts)
    error = np.abs(logits - expected).max()
    close = np.allclose(probabilities, classifier.calibration.probabilities(expected), atol=TOLERANCE)
    if not (error < TOLERANCE and close and np.array_equal(none, classifier.calibration.rejects(expected))):
        raise UserError(f"the exported program differs from the classifier: maximum error of its logits {error:.1e}")
    return f"maximum error of its logits {error:.0e}"


EXPORTS = (("intent.onnx", to_onnx, check_onnx), ("intent.jax", to_jax, check_jax))
"""File name, writer and check of each export."""
