"""The classifier for other programs: ONNX, whose GRU `jaxrnn.interop.onnx` writes, and JAX's own portable form."""

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
from .classifier import Classifier, heard_of
from .errors import UserError
from .layers import LOUDER

FAR = 1e-3  # what no rounding explains
PLATFORMS = ("cpu", "cuda", "tpu")
OUTPUTS = ("logits", "probabilities", "none")  # (B, K), calibrated (B, K), and (B,), whether the answer is none

# The nodes of the graph before the layers, and after them: operator, inputs, outputs, attributes.
EMBED: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
    ("Split", ["ids", "split"], ["word", "grams"], {"axis": 2}),
    ("Gather", ["table", "word"], ["words"], {}),  # row 0 is zero: nothing counts for nothing
    ("ReduceSum", ["words", "two"], ["own"], {"keepdims": 0}),
    ("Gather", ["table", "grams"], ["vectors"], {}),
    ("ReduceSum", ["vectors", "two"], ["total"], {"keepdims": 0}),
    ("Equal", ["grams", "nothing"], ["missing"], {}),
    ("Not", ["missing"], ["there"], {}),
    ("Cast", ["there"], ["ones"], {"to": onnx.TensorProto.FLOAT}),
    ("ReduceSum", ["ones", "two"], ["count"], {"keepdims": 1}),
    ("Max", ["count", "least"], ["divisor"], {}),
    ("Div", ["total", "divisor"], ["mean"], {}),
    ("Add", ["own", "mean"], ["xs"], {}),  # (T, B, F)
]
ANSWER: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
    ("Shape", ["ids"], ["length"], {"start": 0, "end": 1}),
    ("Squeeze", ["length"], ["steps"], {}),
    ("Range", ["zero", "steps", "step"], ["times"], {}),
    ("Unsqueeze", ["times", "after"], ["column"], {}),
    ("Cast", ["lengths"], ["long_lengths"], {"to": onnx.TensorProto.INT64}),
    ("Less", ["column", "long_lengths"], ["in_time"], {}),
    ("Unsqueeze", ["in_time", "two"], ["valid"], {}),
    ("Where", ["valid", "ys", "lowest"], ["heard"], {}),
    ("ReduceMax", ["heard"], ["highest"], {"axes": [0], "keepdims": 0}),
    ("Where", ["valid", "xs", "silence"], ["tokens"], {}),
    ("ReduceSum", ["tokens", "first"], ["sum"], {"keepdims": 0}),
    ("Cast", ["lengths"], ["float_lengths"], {"to": onnx.TensorProto.FLOAT}),
    ("Unsqueeze", ["float_lengths", "after"], ["counts"], {}),
    ("Div", ["sum", "counts"], ["mean_token"], {}),
    ("Mul", ["mean_token", "louder"], ["loud"], {}),
    ("Concat", ["highest", "loud"], ["features"], {"axis": 1}),
    ("Gemm", ["features", "v", "c"], ["read"], {}),
    ("Where", ["valid", "word", "nothing"], ["words_in_time"], {}),
    ("ReduceMax", ["words_in_time"], ["last_word"], {"axes": [0], "keepdims": 0}),
    ("Greater", ["last_word", "nothing"], ["known"], {}),  # (B, 1)
    ("Where", ["known", "read", "silence"], ["logits"], {}),
    ("Div", ["logits", "temperature"], ["sharpened"], {}),
    ("Softmax", ["sharpened"], ["probabilities"], {"axis": -1}),
    ("Sqrt", ["probabilities"], ["roots"], {}),
    ("ReduceSum", ["roots", "after"], ["spread"], {"keepdims": 1}),
    ("Mul", ["spread", "spread"], ["doubt"], {}),
    ("LessOrEqual", ["doubt", "threshold"], ["sure"], {}),
    ("And", ["known", "sure"], ["both"], {}),
    ("Squeeze", ["both", "after"], ["named"], {}),
    ("Not", ["named"], ["none"], {}),
]


def to_jax(classifier: Classifier) -> bytes:
    """Return what `jax.export.deserialize` takes: ids (T, B, N) and lengths (B,), int32, to `OUTPUTS`.

    The ids are 0 in the padding. Any T and B, on a CPU, on NVIDIA's GPUs and on TPUs; the weights are in it.
    """
    model, params = classifier.model, jax.tree.map(np.asarray, classifier.params.model)

    def run(ids: jax.Array, lengths: jax.Array) -> tuple[jax.Array, ...]:
        logits = heard_of(ids, model(params, ids, lengths, driver=Scan()))
        return logits, classifier.calibration.probabilities(logits), classifier.calibration.unknown(logits)

    shape = export.symbolic_shape("t, b", constraints=["t >= 1"])
    ids = jax.ShapeDtypeStruct((*shape, classifier.vocabulary.width), np.int32)
    lengths = jax.ShapeDtypeStruct(shape[1:], np.int32)
    return bytes(export.export(jax.jit(run), platforms=PLATFORMS)(ids, lengths).serialize())


def to_onnx(classifier: Classifier) -> bytes:
    """Return a model of ONNX: ids (T, B, N) and lengths (B,), int32, to `OUTPUTS`."""
    return onnx_graph(classifier.model, classifier.params.model, classifier.vocabulary.width, classifier.calibration)


def onnx_graph(model: SequenceModel, params: Any, width: int, calibration: Calibration) -> bytes:
    """Return the graph of a model for bags of N ids."""
    layers = to_nodes(model.layers.layers[0].cell, params.layers[0], "xs", "ys", "lengths")
    before, after = ([helper.make_node(*rest, **more) for *rest, more in part] for part in (EMBED, ANSWER))
    outputs = params.readout.c.shape[0]
    ids = helper.make_tensor_value_info("ids", onnx.TensorProto.INT32, ("T", "B", width))
    lengths = helper.make_tensor_value_info("lengths", onnx.TensorProto.INT32, ("B",))
    out = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ("B", outputs)) for name in OUTPUTS[:2]]
    out.append(helper.make_tensor_value_info("none", onnx.TensorProto.BOOL, ("B",)))
    arrays = _arrays(params) | {
        "split": np.array([1, width - 1]),
        "temperature": np.array(calibration.temperature, np.float32),
        "threshold": np.array(np.inf if calibration.threshold is None else calibration.threshold, np.float32),
    }
    weights = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()]
    nodes = [*before, *layers.nodes, *after]
    graph = helper.make_graph(nodes, "intent", [ids, lengths], out, [*weights, *layers.weights])
    opset = helper.make_opsetid("", OPSET)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION).SerializeToString())


def _arrays(params: Any) -> dict[str, np.ndarray]:
    """Return weights and constants under their names in the graph."""
    table = np.array(params.embed)
    table[0] = 0
    return {
        "table": table,
        "v": np.asarray(params.readout.v),
        "c": np.asarray(params.readout.c),
        "two": np.array([2]),
        "after": np.array([1]),
        "first": np.array([0]),
        "silence": np.array(0, np.float32),
        "louder": np.array(LOUDER, np.float32),
        "zero": np.array(0),
        "step": np.array(1),
        "nothing": np.array(0, np.int32),
        "least": np.array(1, np.float32),
        "lowest": np.array(-np.inf, np.float32),
    }


def check_jax(classifier: Classifier, content: bytes) -> str:
    """Say how far the exported program is from the classifier."""
    call = export.deserialize(bytearray(content)).call
    return _difference(classifier, lambda ids, lengths: [np.asarray(out) for out in call(ids, lengths)])


def check_onnx(classifier: Classifier, content: bytes) -> str:
    """Say how far the graph is from the classifier, if onnxruntime is here."""
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
    wanted = classifier.logits(texts)
    far = np.abs(logits - wanted).max()
    agrees = np.allclose(probabilities, classifier.calibration.probabilities(wanted), atol=FAR)
    if not (far < FAR and agrees and np.array_equal(none, classifier.calibration.unknown(wanted))):
        raise UserError(f"the exported program answers otherwise: its logits are {far:.1e} off")
    return f"its logits are {far:.0e} off"


FORMS = (("intent.onnx", to_onnx, check_onnx), ("intent.jax", to_jax, check_jax))
"""The file, what writes it, and what checks it."""
