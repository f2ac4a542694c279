"""A recurrent node of ONNX, parsed and checked."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.typing import ArrayLike

from .._core.extras import extra
from ._onnx_activations import Activation, to_activations

with extra("onnx"):
    import onnx

Array: TypeAlias = np.ndarray | jax.Array

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ROLES = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
DEFAULT_ACTIVATIONS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_INPUTS = {"RNN": ROLES[:6], "GRU": ROLES[:6], "LSTM": ROLES}
_KIND = onnx.AttributeProto
_ATTRIBUTES: dict[str, onnx.AttributeProto.AttributeType] = {
    "activation_alpha": _KIND.FLOATS,
    "activation_beta": _KIND.FLOATS,
    "activations": _KIND.STRINGS,
    "clip": _KIND.FLOAT,
    "direction": _KIND.STRING,
    "hidden_size": _KIND.INT,
    "layout": _KIND.INT,
}
_MORE_ATTRIBUTES: dict[str, dict[str, onnx.AttributeProto.AttributeType]] = {
    "RNN": {},
    "GRU": {"linear_before_reset": _KIND.INT},
    "LSTM": {"input_forget": _KIND.INT},
}
_DTYPES = ("float16", "bfloat16", "float32", "float64")

_short = reprlib.Repr()
_short.maxstring, _short.maxlist, _short.maxtuple, _short.maxother = 24, 3, 6, 24


def brief(value: object) -> str:
    """Return the `repr` of a value from a file, cut to a few words for an error message.

    >>> len(brief("x" * 1000))
    24
    """
    return _short.repr(value)


class Node(NamedTuple):
    """A node with valid attributes and weights that fit.

    Attributes:
        op: "RNN", "GRU" or "LSTM".
        title: its name in error messages.
        reverse: whether its one direction is backward.
        directions: 1 or 2.
        hidden: H.
        layout: 0 or 1.
        reset_after: GRU's `linear_before_reset`.
        input_forget: LSTM's.
        activations: those of each direction.
        arrays: the inputs that are given, by their roles: "X", "W", "R", ...
        missing: the roles of inputs that the node names and that are not given.
    """

    op: str
    title: str
    reverse: bool
    directions: int
    hidden: int
    layout: int
    reset_after: bool
    input_forget: bool
    activations: list[list[Activation]]
    arrays: dict[str, Array]
    missing: list[str]


def parse(node: onnx.NodeProto, values: Mapping[str, ArrayLike]) -> Node:
    """Parse a node, whose inputs are in `values` by their names.

    Raises:
        ValueError: for another operator, an invalid attribute, and weights that are missing or do not fit.
    """
    if node.op_type not in GATES or node.domain not in ("", "ai.onnx"):
        operator = brief(f"{node.domain}:{node.op_type}")
        raise ValueError(f"from_node takes RNN, GRU and LSTM of ONNX's own domain; got {operator}")
    title = f"{node.op_type} {brief(node.name or next(filter(None, node.output), ''))}"
    given = _attributes(node, title)
    direction = given.get("direction", "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise ValueError(f"{title}: direction is forward, reverse or bidirectional; got {brief(direction)}")
    directions = 2 if direction == "bidirectional" else 1
    arrays, missing = _find_inputs(node, title, values)
    return Node(
        node.op_type,
        title,
        direction == "reverse",
        directions,
        _check_shapes(node.op_type, title, directions, given.get("hidden_size"), arrays),
        given.get("layout", 0),
        bool(given.get("linear_before_reset", 0)),
        bool(given.get("input_forget", 0)),
        _activations(node.op_type, title, directions, given),
        arrays,
        missing,
    )


def check_finite(node: Node) -> None:
    """Raise ValueError unless all weights are finite; traced ones are not checked."""
    for role, array in node.arrays.items():
        known = role not in ("X", "sequence_lens") and not isinstance(array, jax.core.Tracer)
        if known and not np.isfinite(np.asarray(array)).all():
            raise ValueError(f"{node.title}: {role} has NaN or infinite numbers; weights are finite")


def input_names(node: onnx.NodeProto) -> dict[str, str]:
    """Return the names of a node's inputs by their roles.

    >>> input_names(onnx.helper.make_node("RNN", ["xs", "w", "r", "", "n"], ["ys"]))
    {'X': 'xs', 'W': 'w', 'R': 'r', 'sequence_lens': 'n'}
    """
    return {role: name for role, name in zip(_INPUTS[node.op_type], node.input, strict=False) if name}


def _find_inputs(
    node: onnx.NodeProto, title: str, values: Mapping[str, ArrayLike]
) -> tuple[dict[str, Array], list[str]]:
    """Return the inputs that are given, by their roles, and the roles of the others."""
    names = input_names(node)
    most = len(_INPUTS[node.op_type])
    if not {"X", "W", "R"} <= set(names) or len(node.input) > most:
        raise ValueError(f"{title} has 3 to {most} inputs, X, W and R among them; got {brief(list(node.input))}")
    given = {role: values[name] for role, name in names.items() if name in values}
    missing = [role for role in names if role not in given]
    for role in missing:
        if role in ("W", "R", "B", "P"):
            raise ValueError(
                f"{title} takes {role} from {brief(names[role])}, which is not among the weights given "
                f"({brief(sorted(values, key=str))}). If the graph computes it, fold the graph's constants first."
            )
    arrays = {role: a if isinstance(a, jax.Array) else np.asarray(a) for role, a in given.items()}
    dtypes = {role: a.dtype.name for role, a in arrays.items() if role != "sequence_lens"}
    odd = [role for role, name in dtypes.items() if name not in _DTYPES or (role != "X" and name != dtypes["W"])]
    if odd:
        raise ValueError(
            f"{title} has inputs of one dtype among {list(_DTYPES)}; got {odd[0]} in {dtypes[odd[0]]} and W in "
            f"{dtypes['W']}"
        )
    return arrays, missing


def _attributes(node: onnx.NodeProto, title: str) -> dict[str, Any]:
    """Return the attributes that the node states; raise ValueError unless each has the type that ONNX defines."""
    known = _ATTRIBUTES | _MORE_ATTRIBUTES[node.op_type]
    names = [attribute.name for attribute in node.attribute]
    unknown = sorted(set(names) - set(known), key=str)
    if unknown:
        raise ValueError(
            f"{title} has the attributes {brief(unknown)}, which are not among those of opset 7 and newer. Convert an "
            "older model with onnx.version_converter."
        )
    for attribute in node.attribute:
        kind = known[attribute.name]
        if attribute.type != kind or attribute.ref_attr_name or names.count(attribute.name) > 1:
            raise ValueError(
                f"{title} has one attribute {attribute.name} at most, {_KIND.AttributeType.Name(kind)} and no "
                f"reference to a function's; got {names.count(attribute.name)}, one of the type number {attribute.type}"
            )
    given = {attribute.name: _decoded(onnx.helper.get_attribute_value(attribute)) for attribute in node.attribute}
    for name in ("layout", "input_forget"):
        if given.get(name, 0) not in (0, 1):
            raise ValueError(f"{title}: {name} is 0 or 1; got {given[name]}")
    return given


def _decoded(value: Any) -> Any:
    """Return an attribute with strings in place of bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return [_decoded(item) for item in value] if isinstance(value, list) else value


def _activations(op: str, title: str, directions: int, given: Mapping[str, Any]) -> list[list[Activation]]:
    """Return the activations of each direction."""
    each = DEFAULT_ACTIVATIONS[op]
    names = given.get("activations") or each * directions
    if op == "RNN" and names == ["Tanh", "Tanh"]:  # the schema's default, for one direction too
        names = each * directions
    if len(names) != len(each) * directions:
        raise ValueError(f"{title} has {len(each) * directions} activations; got {brief(names)}")
    alphas, betas = (given.get(f"activation_{key}", []) for key in ("alpha", "beta"))
    try:
        functions = to_activations(names, alphas, betas, given.get("clip"))
    except ValueError as error:
        raise ValueError(f"{title}: {error}") from error
    return [functions[d * len(each) : (d + 1) * len(each)] for d in range(directions)]


def _check_shapes(op: str, title: str, directions: int, size: int | None, arrays: Mapping[str, Array]) -> int:
    """Return H; raise ValueError unless inputs have the shapes that ONNX defines, and `size` is H or None."""
    if arrays["R"].ndim != 3 or arrays["W"].ndim != 3 or not arrays["R"].shape[-1]:
        raise ValueError(
            f"{title} has W (directions, G * H, D) and R (directions, G * H, H), H above 0; got "
            f"{brief(arrays['W'].shape)} and {brief(arrays['R'].shape)}"
        )
    hidden = arrays["R"].shape[-1]
    if size not in (None, hidden):
        raise ValueError(f"{title}: hidden_size={size}, but R has the shape {arrays['R'].shape}")
    rows = GATES[op] * hidden
    needed = {
        "W": (directions, rows, arrays["W"].shape[-1]),
        "R": (directions, rows, hidden),
        "B": (directions, 2 * rows),
        "P": (directions, 3 * hidden),
    }
    for role, shape in needed.items():
        if role in arrays and arrays[role].shape != shape:
            raise ValueError(
                f"{title} with directions={directions} and H={hidden} has {role} of the shape {shape}; got "
                f"{brief(arrays[role].shape)}"
            )
    if "X" in arrays and (arrays["X"].ndim != 3 or arrays["X"].shape[2] != needed["W"][2]):
        raise ValueError(f"{title} takes X of 3 axes with D={needed['W'][2]}; got {brief(arrays['X'].shape)}")
    return int(hidden)
