"""onnxruntime: a model of one node, on a CPU."""

from __future__ import annotations

import dataclasses
import importlib.util

from ..workload import Answer, Data, Workload
from .layout import dense_only
from .peer import Program


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

        from jaxrnn.interop.onnx import to_onnx

        model = to_onnx(workload.own_cell(), data.params, lengths=None).SerializeToString()
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        return Program(lambda: session.run(["ys"], {"xs": data.xs})[0], lambda ys: Answer(ys=ys))
