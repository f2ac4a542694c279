"""A recurrent node of ONNX, read and checked: what `interop.onnx` is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from ..extras import extra
from .onnx_activations import activations

with extra("onnx"):
    import onnx

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
_DEFAULT_ACTIVATIONS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_ATTRIBUTES = ["activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "layout"]
_MORE_ATTRIBUTES = {"RNN": [], "GRU": ["linear_before_reset"], "LSTM": ["input_forget"]}


class Node(NamedTuple):
    """A node whose attributes are supported and whose weights fit.

    Attributes:
        op: "RNN", "GRU" or "LSTM".
        title: what errors call it.
        reverse: whether its one direction is backward.
        directions: 1 or 2.
        hidden: H.
        layout: 0 or 1.
        reset_after: GRU's `linear_before_reset`.
        functions: RNN's activation, one a direction.
        arrays: the inputs that were found, by their role: "X", "W", "R", ...
        missing: the roles of those that the node names and that were not found.
    """

    op: str
    title: str
    reverse: bool
    directions: int
    hidden: int
    layout: int
    reset_after: bool
    functions: list[Callable[[jax.Array], jax.Array]]
    arrays: dict[str, Any]
    missing: list[str]


def parse(node: onnx.NodeProto, values: Mapping[str, Any]) -> Node:
    """Read a node, its inputs being found in `values` by their names.

    Raises:
        ValueError: for another operator, an attribute that is not supported, weights that are missing or do not fit.
    """
    if node.op_type not in GATES or node.domain not in ("", "ai.onnx"):
        raise ValueError(f"from_node takes RNN, GRU and LSTM of ONNX's own domain; got {node.domain}:{node.op_type}")
    title = f"{node.op_type} {node.name or next(filter(None, node.output), '')!r}"
    given = _attributes(node, title)
    direction = given.get("direction", b"forward").decode()
    if direction not in ("forward", "reverse", "bidirectional"):
        raise ValueError(f"{title}: direction is forward, reverse or bidirectional; got {direction!r}")
    directions = 2 if direction == "bidirectional" else 1
    arrays, missing = _find(node, title, values)
    return Node(
        node.op_type,
        title,
        direction == "reverse",
        directions,
        _check_shapes(node.op_type, title, directions, given.get("hidden_size"), arrays),
        given.get("layout", 0),
        bool(given.get("linear_before_reset", 0)),
        _functions(node.op_type, title, directions, given),
        arrays,
        missing,
    )


def _find(node: onnx.NodeProto, title: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The inputs that are found, by their roles, and the roles of the others."""
    names = {role: name for role, name in zip(_INPUTS, node.input, strict=False) if name}
    found = {role: values[name] for role, name in names.items() if name in values}
    missing = [role for role in names if role not in found]
    for role in missing:
        if role in ("W", "R", "B", "P"):
            raise ValueError(
                f"{title} takes {role} from {names[role]!r}, which is not among the weights given ({sorted(values)}). "
                "If the graph computes it, fold the graph's constants first."
            )
    return {role: a if isinstance(a, jax.Array) else np.asarray(a) for role, a in found.items()}, missing


def _attributes(node: onnx.NodeProto, title: str) -> dict[str, Any]:
    """The attributes that are given, none of which changes the equation in a way that no cell has."""
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    known = _ATTRIBUTES + _MORE_ATTRIBUTES[node.op_type]
    if set(given) - set(known):
        raise ValueError(
            f"{title} has the attributes {sorted(set(given) - set(known))}; opset 7 and newer have {sorted(known)}. "
            "Convert an older model with onnx.version_converter."
        )
    if given.get("input_forget"):
        raise ValueError(
            f"{title}: input_forget=1 couples the gates i and f, which no cell here does. Write a GatedCell that does."
        )
    return given


def _functions(
    op: str, title: str, directions: int, given: Mapping[str, Any]
) -> list[Callable[[jax.Array], jax.Array]]:
    """RNN's activations; GRU and LSTM have the default ones, or raise."""
    default = _DEFAULT_ACTIVATIONS[op] * directions
    names = [name.decode() for name in given.get("activations", [])] or default
    if op == "RNN" and names == ["Tanh", "Tanh"]:  # the default that the schema writes down for one direction too
        names = default
    if len(names) != len(default):
        raise ValueError(f"{title} has {len(default)} activations; got {names}")
    clip = given.get("clip")
    if op == "RNN":
        return activations(names, given.get("activation_alpha", []), given.get("activation_beta", []), clip)
    if [name.lower() for name in names] != [name.lower() for name in default] or clip is not None:
        raise ValueError(
            f"{title}: the cells here have the activations {default} and no clip; got {names} and clip={clip}. Write a "
            "GatedCell with these."
        )
    return []


def _check_shapes(op: str, title: str, directions: int, size: int | None, arrays: Mapping[str, Any]) -> int:
    """Give H; raise unless the weights have the shapes that ONNX gives them, and `size` is H if it is given."""
    if arrays["R"].ndim != 3 or arrays["W"].ndim != 3:
        raise ValueError(
            f"{title} has W (directions, G * H, D) and R (directions, G * H, H); got {arrays['W'].shape} and "
            f"{arrays['R'].shape}"
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
                f"{arrays[role].shape}"
            )
    return hidden
