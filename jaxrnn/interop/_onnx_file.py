"""Reading of ONNX files that are not trusted: their contents are checked before they are converted."""

from __future__ import annotations

import math
import os
import pathlib

import numpy as np

from .._core.extras import extra
from ._onnx_node import brief

with extra("onnx"):
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import TensorProto
    from onnx.external_data_helper import load_external_data_for_tensor


MAX_BYTES = 2**31
"""The limit of a file, as of any protobuf message, and of all weights that are converted."""

MAX_NODES = 1000
"""The limit of recurrent nodes in a graph."""

MIN_OPSET = 7

_FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.FLOAT16: "int32_data",
    TensorProto.BFLOAT16: "int32_data",
}
_EXTERNAL_KEYS = {"location", "offset", "length", "checksum"}


def read_model(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read the model in a file, without data in other files.

    Raises:
        ValueError: if it is too large, or not a model of ONNX.
    """
    with pathlib.Path(path).open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(
            f"a model of ONNX has at most {MAX_BYTES} bytes, and its other data in separate files; got more"
        )
    try:
        return onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ValueError(
            f"a file of {len(content)} bytes is not a model of ONNX, or is damaged: protobuf cannot parse it"
        ) from error


def check_opset(model: onnx.ModelProto) -> None:
    """Raise ValueError unless the model states an opset whose recurrent operators are supported."""
    versions = [opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")]
    if not versions or min(versions) < MIN_OPSET:
        raise ValueError(
            f"a model states an opset of ONNX, {MIN_OPSET} or newer; got {brief(versions)}. Convert an older model "
            "with onnx.version_converter."
        )


def tensors_of(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """Return the initializers and constants of a graph by name."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        single = node.op_type == "Constant" and len(node.attribute) == len(node.output) == 1
        if single and node.attribute[0].name == "value" and node.attribute[0].HasField("t"):
            tensors[node.output[0]] = node.attribute[0].t
    return tensors


def size_of(tensor: TensorProto) -> int:
    """Return the bytes that a tensor needs; raise ValueError if its shape or dtype is not that of weights."""
    title = f"the tensor {brief(tensor.name)}"
    if tensor.data_type not in _FIELDS:
        raise ValueError(
            f"{title} has the data type number {tensor.data_type}; weights are float16, bfloat16, float or double"
        )
    if len(tensor.dims) > 3 or any(dim < 0 for dim in tensor.dims):
        raise ValueError(
            f"{title} has the shape {brief(list(tensor.dims))}; weights have at most 3 axes, none negative"
        )
    size = int(math.prod(tensor.dims)) * _itemsize(tensor)
    if max(size, *tensor.dims, 0) > MAX_BYTES:
        raise ValueError(f"{title} has the shape {brief(list(tensor.dims))}; weights have at most {MAX_BYTES} bytes")
    return size


def to_array(tensor: TensorProto, folder: str | None) -> np.ndarray:
    """Return a tensor as an array of NumPy.

    Args:
        tensor: a floating tensor.
        folder: the folder of files with external data; None if there is none.

    Raises:
        ValueError: if its shape, dtype and data do not agree, or its data is outside the folder.
    """
    needed, title = size_of(tensor), f"the tensor {brief(tensor.name)}"
    if tensor.data_location == TensorProto.EXTERNAL:
        tensor = _fetch(tensor, folder, needed, title)
    data = tensor.raw_data
    size = len(data)
    if not tensor.HasField("raw_data"):
        data = getattr(tensor, _FIELDS[tensor.data_type])
        size = len(data) * _itemsize(tensor)
    if size != needed or tensor.HasField("segment"):
        raise ValueError(f"{title} has the shape {list(tensor.dims)}, which needs {needed} bytes; it holds {size}")
    return np.asarray(onnx.numpy_helper.to_array(tensor))


def _itemsize(tensor: TensorProto) -> int:
    return int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _fetch(tensor: TensorProto, folder: str | None, needed: int, title: str) -> TensorProto:
    """Return the tensor with its external data, `needed` bytes of a file in the folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if folder is None or set(entries) - _EXTERNAL_KEYS or entries.get("length", str(needed)) != str(needed):
        raise ValueError(
            f"{title} has its data in another file ({brief(entries.get('location', ''))}), {needed} bytes of it. Pass "
            "the path of the model, in a folder with that file, or a model of onnx.load."
        )
    copy = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    copy.data_location = TensorProto.EXTERNAL
    for key, value in (entries | {"length": str(needed)}).items():
        copy.external_data.add(key=key, value=value)
    try:
        load_external_data_for_tensor(copy, folder)
    except (ValueError, OSError, RuntimeError, onnx.checker.ValidationError) as error:
        raise ValueError(
            f"{title} needs {needed} bytes of the file {brief(entries.get('location', ''))} in the model's folder, "
            f"which cannot be read: {str(error)[:80]}"
        ) from error
    return copy
