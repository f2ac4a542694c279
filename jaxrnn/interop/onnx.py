"""ONNX's operators RNN, GRU and LSTM: a node of a graph becomes a cell, its params and its initial state.

| ONNX | jaxrnn |
|---|---|
| `RNN` | `Elman(H, activation=f)`, any activation and `clip` |
| `GRU`, `linear_before_reset=1` | `GRU(H)` |
| `GRU`, `linear_before_reset=0`, the default | `ResetBeforeGRU(H)` |
| `LSTM`; with the input `P` | `LSTM(H)`; `PeepholeLSTM(H)` |
| `direction="reverse"`; `"bidirectional"` | `Backward(cell)`; `Bidirectional(cell)` |

ONNX orders the gates z, r, h and i, o, f, c, and has two biases that are added to each other; here the order is
r, z, n and i, f, g, o, and b is their sum (but for `GRU`'s Rb_h, our `params.local`). `layout` is ONNX's own matter:
`unroll` is time-major, (T, B, D). Not supported, and refused: other activations or `clip` in GRU and LSTM, and
`input_forget=1`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..cell import GatedParams, Params, State
from ..cells import GRU, LSTM, Elman, LSTMState, PeepholeLSTM, ResetBeforeGRU
from ..cells.peephole_lstm import Peepholes
from ..compose import Bidirectional, Both
from ..extras import extra
from ..unroll import unroll
from .arrays import exact, split_gates
from .backward import Backward as Backward
from .onnx_node import GATES, Node, parse

with extra("onnx"):
    import onnx

# where our r, z, n stand in ONNX's z, r, h, and our i, f, g, o in its i, o, f, c
_ORDERS = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}


class Layer(NamedTuple):
    """A node of a graph, converted: `unroll(layer.cell, layer.params, xs, layer.state)`.

    Attributes:
        cell: a cell, `Backward` or `Bidirectional`.
        params: its params.
        state: the initial state, if the node's is among the weights; None for zeros, and where it comes at run time.
    """

    cell: Any
    params: Params
    state: State = None


class Outputs(NamedTuple):
    """What a node puts out, in ONNX's layout; Y_c is None but for an LSTM.

    Attributes:
        Y: (T, directions, B, H), or (B, T, directions, H) for layout 1.
        Y_h: (directions, B, H), or (B, directions, H) for layout 1.
        Y_c: as Y_h.
    """

    Y: jax.Array
    Y_h: jax.Array
    Y_c: jax.Array | None = None


def from_node(node: onnx.NodeProto, weights: Mapping[str, Any]) -> Layer:
    """Turn a node of a graph into a cell, its params and its initial state.

    Args:
        node: an RNN, GRU or LSTM of ONNX, opset 7 or newer.
        weights: arrays under the names that the node calls them by: W, R, and B, P, initial_h and initial_c if the
            node has these. An initial state that is not among them comes at run time, and is the caller's.

    Returns:
        The cell, params in their own dtype, and the initial state, or None.

    Raises:
        ValueError: for another operator, an attribute that is not supported, weights that are missing or do not fit.

    >>> node = onnx.helper.make_node("LSTM", ["X", "W", "R"], ["Y"], hidden_size=4)
    >>> layer = from_node(node, {"W": np.ones((1, 16, 3), np.float32), "R": np.ones((1, 16, 4), np.float32)})
    >>> layer.cell == LSTM(4), layer.params.w_x.shape
    (True, (3, 4, 4))
    """
    return _layer(parse(node, weights))


def run_node(node: onnx.NodeProto, inputs: Mapping[str, Any]) -> Outputs:
    """Compute a node: what `onnx.backend.base.Backend.run_node` does, for RNN, GRU and LSTM.

    Args:
        node: as for `from_node`.
        inputs: all inputs of the node under the names that it calls them by, in ONNX's layout.

    Returns:
        All outputs, whether the node names them or not.

    Raises:
        ValueError: as `from_node`, and for inputs that are missing.

    Note: for a sequence of length 0, Y_h and Y_c are the initial states; onnxruntime gives zeros.

    >>> node = onnx.helper.make_node("RNN", ["X", "W", "R"], ["Y"])
    >>> shapes = {"X": (7, 2, 3), "W": (1, 4, 3), "R": (1, 4, 4)}
    >>> run_node(node, {name: np.ones(shape, np.float32) for name, shape in shapes.items()}).Y.shape
    (7, 1, 2, 4)
    """
    parsed = parse(node, inputs)
    if parsed.missing:
        raise ValueError(f"{parsed.title} has the inputs {parsed.missing}, which are not given; got {sorted(inputs)}")
    cell, params, state = _layer(parsed)
    xs = parsed.arrays["X"]
    xs = xs.swapaxes(0, 1) if parsed.layout else xs
    last, ys = unroll(cell, params, xs, state, lengths=parsed.arrays.get("sequence_lens"))
    y = ys.reshape(*ys.shape[:2], parsed.directions, parsed.hidden)
    y = jnp.moveaxis(y, 0, 1) if parsed.layout else jnp.moveaxis(y, 2, 1)
    ends = list(last) if isinstance(last, Both) else [last]
    axis = 1 if parsed.layout else 0
    if isinstance(ends[0], LSTMState):
        return Outputs(y, jnp.stack([s.h for s in ends], axis), jnp.stack([s.c for s in ends], axis))
    return Outputs(y, jnp.stack(ends, axis))


def load(model: onnx.ModelProto | str | os.PathLike[str]) -> dict[str, Layer]:
    """Convert the RNN, GRU and LSTM nodes of a model's main graph.

    Args:
        model: a model, or the path of one.

    Returns:
        A `Layer` for each, in the order of the graph, under its name, or that of its first output if it has none. What
        stands between them in the graph (transposes, dense layers) is not converted.

    Raises:
        ValueError: if there is no such node, one is not supported, or its weights are computed within the graph.

    >>> node = onnx.helper.make_node("GRU", ["X", "W", "R"], ["Y"], name="gru")
    >>> w, r = np.ones((1, 12, 3), np.float32), np.ones((1, 12, 4), np.float32)
    >>> weights = [onnx.numpy_helper.from_array(a, name) for a, name in [(w, "W"), (r, "R")]]
    >>> graph = onnx.helper.make_graph([node], "graph", [], [], weights)
    >>> load(onnx.helper.make_model(graph))["gru"].cell == ResetBeforeGRU(4)
    True
    """
    proto = model if isinstance(model, onnx.ModelProto) else onnx.load(model)
    graph = proto.graph
    nodes = [node for node in graph.node if node.op_type in ("RNN", "GRU", "LSTM") and node.domain in ("", "ai.onnx")]
    if not nodes:
        raise ValueError(
            f"the main graph has no RNN, GRU or LSTM; it has {sorted({node.op_type for node in graph.node})}. Nodes "
            "within a Loop, an If or a function: hand them to from_node."
        )
    tensors = _tensors(graph)
    wanted = {name for node in nodes for name in node.input if name in tensors}
    weights = {name: onnx.numpy_helper.to_array(tensors[name]) for name in wanted}
    layers: dict[str, Layer] = {}
    for node in nodes:
        name = node.name or next(filter(None, node.output))
        if name in layers:
            raise ValueError(f"two nodes have the name {name!r}; ONNX wants names to be unique. Rename one.")
        layers[name] = from_node(node, weights)
    return layers


def _tensors(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """What the graph holds, by name: initializers and constants."""
    constants = [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    return tensors | {node.output[0]: node.attribute[0].t for node in constants}


def _layer(node: Node) -> Layer:
    """The cell, the params and the state of a node."""
    cells = [_cell(node, direction) for direction in range(node.directions)]
    params = [_params(node, cell, direction) for direction, cell in enumerate(cells)]
    state = _state(node)
    if node.directions == 2:
        return Layer(Bidirectional(cells[0], None if cells[0] == cells[1] else cells[1]), Both(*params), state)
    return Layer(Backward(cells[0]) if node.reverse else cells[0], params[0], state)


def _cell(node: Node, direction: int) -> Any:
    """The cell of one direction."""
    if node.op == "RNN":
        return Elman(node.hidden, activation=node.functions[direction])
    if node.op == "GRU":
        return GRU(node.hidden) if node.reset_after else ResetBeforeGRU(node.hidden)
    return PeepholeLSTM(node.hidden) if "P" in node.arrays else LSTM(node.hidden)


def _params(node: Node, cell: Any, direction: int) -> GatedParams:
    """The params of one direction."""
    gates, order = GATES[node.op], _ORDERS[node.op]
    w_x, w_h = (exact(split_gates(node.arrays[role][direction], gates, order)) for role in ("W", "R"))
    local: Any = ()
    b_x = b_h = np.zeros((gates, node.hidden), w_x.dtype)
    if "B" in node.arrays:
        b_x, b_h = node.arrays["B"][direction].reshape(2, gates, node.hidden)[:, np.array(order)]
    if isinstance(cell, GRU):
        local = exact(b_h[2])
        b_h = np.concatenate([b_h[:2], np.zeros_like(b_h[2:])])
    if isinstance(cell, PeepholeLSTM):
        i, o, f = (exact(p) for p in node.arrays["P"][direction].reshape(3, node.hidden))
        local = Peepholes(i, f, o)
    return GatedParams(w_x, w_h, exact(b_x + b_h), local)


def _state(node: Node) -> State:
    """The initial state, if it is given."""
    roles = [role for role in ("initial_h", "initial_c") if role in node.arrays]
    late = [role for role in ("initial_h", "initial_c") if role in node.missing]
    if roles and late:
        raise ValueError(f"{node.title} has {roles} among the weights and {late} not. Hand over both, or neither.")
    if not roles:
        return None
    arrays = {role: exact(node.arrays[role]) for role in roles}
    arrays = {role: a.swapaxes(0, 1) if node.layout else a for role, a in arrays.items()}
    if any(a.ndim != 3 or a.shape[0] != node.directions for a in arrays.values()):
        raise ValueError(
            f"{node.title} has initial states ({node.directions}, B, {node.hidden}), or (B, {node.directions}, "
            f"{node.hidden}) for layout 1; got {[node.arrays[role].shape for role in roles]}"
        )
    zeros = jnp.zeros_like(arrays[roles[0]])
    h, c = (arrays.get(role, zeros) for role in ("initial_h", "initial_c"))
    states = [LSTMState(*pair) if node.op == "LSTM" else pair[0] for pair in zip(h, c, strict=True)]
    return Both(*states) if node.directions == 2 else states[0]
