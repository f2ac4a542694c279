"""The intent model as a graph of ONNX, for any number of steps, and its answers by onnxruntime on a CPU."""

from __future__ import annotations

import numpy as np
import onnxruntime

from examples.intent.calibration import Calibration
from examples.intent.export import onnx_graph

from .task import Answer, Task


def answering(task: Task) -> Answer:
    """Answer in a session, all of whose options are left alone."""
    graph = onnx_graph(task.model, task.params, task.utterances[0].shape[1], Calibration())
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def answer(ids: np.ndarray) -> np.ndarray:
        inputs = {"ids": ids[:, None], "lengths": np.array([len(ids)], np.int32)}
        return session.run(["probabilities"], inputs)[0][0]

    return answer
