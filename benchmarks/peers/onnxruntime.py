"""onnxruntime: a model of one node, on a CPU."""

from __future__ import annotations

import importlib.util

from ..workload import Answer, Data, Workload
from .peer import Program, Supports


def _needs_onnx(workload: Workload, platform: str) -> str | None:
    missing = importlib.util.find_spec("onnx") is None
    return "needs onnx to build its model: pip install onnx" if missing else None


SUPPORTS = Supports(("cpu",), dtypes=("float32",), gradients=False, reason=_needs_onnx)


def make(workload: Workload, data: Data) -> Program:
    """Build ONNX's RNN, GRU (`linear_before_reset=1`) or LSTM and its session, all options left alone."""
    import onnxruntime

    from jaxrnn.interop.onnx import to_onnx

    model = to_onnx(workload.own_cell(), data.params, lengths=None).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return Program(lambda: session.run(["ys"], {"xs": data.xs})[0], lambda ys: Answer(ys=ys))
