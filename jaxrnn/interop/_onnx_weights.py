"""The cell and the weights of one node of ONNX in one direction."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from .._cells import GRU, LSTM, Elman, IndRNN, PeepholeLSTM, ResetBeforeGRU
from .._cells.peephole_lstm import Peepholes
from .._core.activation import function_of
from .._core.cell import Cell, GatedCell, GatedParams
from .._core.composite import Composite
from .._core.recurrence import Dense
from ._arrays import join_gates, split_gates, to_jax_array
from ._onnx_activations import Activation, from_function, to_function
from ._onnx_cells import OnnxLSTM, OnnxPeepholeLSTM
from ._onnx_node import DEFAULT_ACTIVATIONS, GATES, Node

# for each gate of jaxrnn (r, z, n; i, f, g, o) its index in ONNX (z, r, h; i, o, f, c)
_ORDERS = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}
_DEFAULTS = {op: [Activation(name) for name in names] for op, names in DEFAULT_ACTIVATIONS.items()}
# fields that are exported, and fields that concern `init` alone; a cell with any other field has no operator
_FIELDS = {"activation", "gate_activation", "output_activation", "input_forget", "recurrence"}
_FIELDS |= {"hidden", "forget_bias", "initializer"}
OnnxCell: TypeAlias = Elman | IndRNN | GRU | ResetBeforeGRU | LSTM | PeepholeLSTM | OnnxLSTM
"""A cell that ONNX may have an operator for."""

_ATTRIBUTES: dict[type, tuple[str, dict[str, int]]] = {
    Elman: ("RNN", {}),
    IndRNN: ("RNN", {}),
    GRU: ("GRU", {"linear_before_reset": 1}),
    ResetBeforeGRU: ("GRU", {}),
    LSTM: ("LSTM", {}),
    PeepholeLSTM: ("LSTM", {}),
    OnnxLSTM: ("LSTM", {}),
    OnnxPeepholeLSTM: ("LSTM", {}),
}


def cell_of(node: Node, direction: int) -> OnnxCell:
    """Return the cell of one direction."""
    functions = [to_function(activation) for activation in node.activations[direction]]
    if node.op == "RNN":
        return Elman(node.hidden, activation=functions[0])
    gate_activation, activation, *output_activation = functions
    fields: dict[str, Any] = {"gate_activation": gate_activation, "activation": activation}
    if node.op == "GRU":
        return (GRU if node.reset_after else ResetBeforeGRU)(node.hidden, **fields)
    if not node.input_forget and output_activation == [activation]:
        return (PeepholeLSTM if "P" in node.arrays else LSTM)(node.hidden, **fields)
    kind = OnnxPeepholeLSTM if "P" in node.arrays else OnnxLSTM
    gate, candidate, output = node.activations[direction]
    return kind(node.hidden, gate, candidate, output, node.input_forget)


def params_of(node: Node, cell: OnnxCell, direction: int) -> GatedParams:
    """Return the params of one direction."""
    gates, order = GATES[node.op], _ORDERS[node.op]
    w_x, w_h = (to_jax_array(split_gates(node.arrays[role][direction], gates, order)) for role in ("W", "R"))
    local: jax.Array | Peepholes | tuple[()] = ()
    b_x = b_h = np.zeros((gates, node.hidden), w_x.dtype)
    if "B" in node.arrays:
        b_x, b_h = node.arrays["B"][direction].reshape(2, gates, node.hidden)[:, np.array(order)]
    if isinstance(cell, GRU):
        local = to_jax_array(b_h[2])
        b_h = np.concatenate([b_h[:2], np.zeros_like(b_h[2:])])
    if isinstance(cell, PeepholeLSTM | OnnxPeepholeLSTM):
        i, o, f = (to_jax_array(p) for p in node.arrays["P"][direction].reshape(3, node.hidden))
        local = Peepholes(i, f, o)
    return GatedParams(w_x, w_h, to_jax_array(b_x + b_h), local)


def is_leaf(cell: Cell | Composite) -> TypeGuard[OnnxCell]:
    """Return whether ONNX has an operator for a cell, exactly: a subclass may compute something else."""
    if not isinstance(cell, OnnxCell) or type(cell) not in _ATTRIBUTES:
        return False
    if any(field.name not in _FIELDS for field in dataclasses.fields(cell)):
        return False
    activations = activations_of(cell)
    return None not in activations and len({activation.clip for activation in activations if activation}) == 1


def activations_of(cell: OnnxCell) -> list[Activation | None]:
    """Return the activations of a leaf in ONNX's order, None for one that ONNX does not have."""
    names = {
        "RNN": ["activation"],
        "GRU": ["gate_activation", "activation"],
        "LSTM": ["gate_activation", "activation", "output_activation"],
    }[_ATTRIBUTES[type(cell)][0]]
    return [from_function(function_of(getattr(cell, name, cell.activation))) for name in names]


def operator_of(cell: OnnxCell) -> tuple[str, dict[str, Any]]:
    """Return the operator of a leaf, and its attributes except activations and direction."""
    op, attributes = _ATTRIBUTES[type(cell)]
    coupled = {"input_forget": 1} if isinstance(cell, OnnxLSTM) and cell.input_forget else {}
    return op, {"hidden_size": cell.hidden, **attributes, **coupled}


def activation_attributes(op: str, cells: Sequence[OnnxCell]) -> dict[str, Any]:
    """Return the attributes that name the activations of a node's directions; none where they are the defaults."""
    activations = [activation for cell in cells for activation in activations_of(cell) if activation]
    if activations == _DEFAULTS[op] * len(cells):
        return {}
    numbers = {
        "activation_alpha": [f.alpha for f in activations if f.alpha is not None],
        "activation_beta": [f.beta for f in activations if f.beta is not None],
        "clip": activations[0].clip,
    }
    return {"activations": [f.name for f in activations]} | {name: n for name, n in numbers.items() if n}


def weights_of(cell: OnnxCell, params: GatedParams) -> dict[str, np.ndarray]:
    """Return the weights of a leaf by their roles, without the axis of directions."""
    order = np.argsort(_ORDERS[operator_of(cell)[0]])
    w_x, w_h, b = (np.asarray(a) for a in (params.w_x, params.w_h, params.b))
    b_h = np.zeros_like(b)
    if isinstance(cell, GatedCell) and cell.recurrence != Dense():
        with jax.default_matmul_precision("highest"):
            w_h = np.stack(cell.recurrence(params.w_h, jnp.eye(cell.hidden, dtype=w_h.dtype)), axis=1)
    weights = {"W": join_gates(w_x[:, order]), "R": join_gates(w_h[:, order])}
    if isinstance(cell, GRU):
        b_h[2] = params.local
    weights["B"] = np.concatenate([b[order].ravel(), b_h[order].ravel()])
    if isinstance(cell, PeepholeLSTM | OnnxPeepholeLSTM):
        weights["P"] = np.concatenate([params.local.i, params.local.o, params.local.f])
    return weights
