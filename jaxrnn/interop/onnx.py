"""Conversion from and to ONNX's operators RNN, GRU and LSTM.

`from_node` and `load` convert nodes into cells, params and initial states; `to_nodes` and `to_onnx` write a cell or a
composite as part of a graph, or as a model; `run_node` computes a node.

| ONNX | jaxrnn |
|---|---|
| `RNN` | `Elman(H, activation=f)` |
| `GRU`, `linear_before_reset=1` | `GRU(H)` |
| `GRU`, `linear_before_reset=0`, the default | `ResetBeforeGRU(H)` |
| `LSTM`; with the input `P` | `LSTM(H)`; `PeepholeLSTM(H)` |
| `LSTM` with an `h` that is not its `g`, or `input_forget` | `OnnxLSTM(H, f, g, h, input_forget)`; `OnnxPeepholeLSTM` |
| other activations, `clip` | `gate_activation=f`, `activation=g`, as functions of JAX or as `Activation` |
| `direction="reverse"`; `"bidirectional"` | `Reversed(cell)`; `Bidirectional(cell)` |

ONNX orders the gates z, r, h and i, o, f, c, and has two biases that are added to each other; jaxrnn orders them
r, z, n and i, f, g, o, and b is the sum of the biases, except `GRU`'s Rb_h, which is `params.local`. `layout` has no
counterpart: `unroll` is time-major, (T, B, D).

This module follows the specification. onnxruntime 1.32 does not clip c_t before an LSTM's h, takes alpha=0 for a
ThresholdedRelu without one, returns zeros as the states of a sequence of length 0, and rejects layout 1. The reference
evaluator of onnx 1.23 ignores sequence_lens, clip and input_forget, and all activations of GRU and LSTM.

`load` accepts files that are not trusted: any fault of one raises a ValueError with a short message.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from .._cells import LSTMState
from .._core.cell import Cell
from .._core.composite import Composite
from .._core.extras import extra
from .._core.types import Params, State
from .._layers.bidirectional import Bidirectional, Both
from .._layers.reversed import Reversed
from .._unroll import unroll
from ._arrays import to_jax_array
from ._onnx_activations import Activation as Activation
from ._onnx_cells import OnnxLSTM as OnnxLSTM
from ._onnx_cells import OnnxPeepholeLSTM as OnnxPeepholeLSTM
from ._onnx_file import MAX_BYTES, MAX_NODES, check_opset, read_model, size_of, tensors_of, to_array
from ._onnx_node import GATES, Node, brief, check_finite, input_names, parse
from ._onnx_weights import cell_of, params_of
from ._onnx_writer import IR_VERSION as IR_VERSION
from ._onnx_writer import OPSET as OPSET
from ._onnx_writer import Part as Part
from ._onnx_writer import to_nodes as to_nodes
from ._onnx_writer import to_onnx as to_onnx

with extra("onnx"):
    import onnx

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class Layer(NamedTuple):
    """A node of a graph, converted: `unroll(layer.cell, layer.params, xs, layer.state)`.

    Attributes:
        cell: a cell, `Reversed` or `Bidirectional`.
        params: its params.
        state: the initial state, if the node's is among the weights. None for zeros, and where it is an input of the
            graph or computed in it: then the caller passes it to `unroll`, as lengths.
    """

    cell: Cell | Composite
    params: Params
    state: State = None


class Outputs(NamedTuple):
    """The outputs of a node, in ONNX's layout.

    Attributes:
        Y: (T, directions, B, H), or (B, T, directions, H) for layout 1.
        Y_h: (directions, B, H), or (B, directions, H) for layout 1.
        Y_c: of the shape of Y_h; None except for an LSTM.
    """

    Y: Float[Array, "T directions B H"] | Float[Array, "B T directions H"]
    Y_h: Float[Array, "directions B H"] | Float[Array, "B directions H"]
    Y_c: Float[Array, "directions B H"] | Float[Array, "B directions H"] | None = None


def from_node(node: onnx.NodeProto, weights: Mapping[str, ArrayLike]) -> Layer:
    """Convert a node of a graph into a cell, its params and its initial state.

    Args:
        node: an RNN, GRU or LSTM of ONNX, opset 7 or newer.
        weights: arrays by the names of the node's inputs: W (directions, G * H, D), R (directions, G * H, H), and B, P,
            initial_h and initial_c if the node has these. An initial state that is not among them is an input at run
            time: the caller passes it to `unroll`.

    Returns:
        The cell; params in their own dtype, for each direction w_x (D, G, H), w_h (H, G, H) and b (G, H); and the
        initial state, each leaf (B, H), or None.

    Raises:
        ValueError: for another operator, an invalid attribute, and weights that are missing, do not fit or are not
            finite; and for float64 in JAX's 32-bit mode.

    >>> node = onnx.helper.make_node("LSTM", ["X", "W", "R"], ["Y"], hidden_size=4)
    >>> layer = from_node(node, {"W": np.ones((1, 16, 3), np.float32), "R": np.ones((1, 16, 4), np.float32)})
    >>> layer.cell == LSTM(4), layer.params.w_x.shape
    (True, (3, 4, 4))
    """
    parsed = parse(node, weights)
    check_finite(parsed)
    return _layer(parsed)


def run_node(node: onnx.NodeProto, inputs: Mapping[str, ArrayLike]) -> Outputs:
    """Compute the outputs of an RNN, GRU or LSTM node, as `onnx.backend.base.Backend.run_node` does.

    Args:
        node: as for `from_node`.
        inputs: all inputs of the node by its names for them, in ONNX's layout: X (T, B, D), or (B, T, D) for layout 1,
            sequence_lens (B,), initial states (directions, B, H), or (B, directions, H) for layout 1, and weights.

    Returns:
        All outputs, whether the node names them or not. They can be differentiated with respect to the inputs.

    Raises:
        ValueError: as `from_node`, except that numbers need not be finite; and for inputs that are missing.

    Note: for a sequence of length 0, Y_h and Y_c are the initial states; onnxruntime returns zeros.

    >>> node = onnx.helper.make_node("RNN", ["X", "W", "R"], ["Y"])
    >>> shapes = {"X": (7, 2, 3), "W": (1, 4, 3), "R": (1, 4, 4)}
    >>> run_node(node, {name: np.ones(shape, np.float32) for name, shape in shapes.items()}).Y.shape
    (7, 1, 2, 4)
    """
    parsed = parse(node, inputs)
    if parsed.missing:
        given = brief(sorted(inputs, key=str))
        raise ValueError(f"{parsed.title} has the inputs {parsed.missing}, which are not given; got {given}")
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
        A `Layer` for each, in the order of the graph, by its name, or by that of its first output if it has none. Other
        nodes of the graph (transposes, dense layers) are not converted.

    Raises:
        ValueError: if the file is damaged or too large, if there is no such node, if two have the same name, and if
            weights are computed within the graph, not finite, or in a file outside the model's folder; and as
            `from_node`.

    >>> node = onnx.helper.make_node("GRU", ["X", "W", "R"], ["Y"], name="gru")
    >>> w, r = np.ones((1, 12, 3), np.float32), np.ones((1, 12, 4), np.float32)
    >>> weights = [onnx.numpy_helper.from_array(a, name) for a, name in [(w, "W"), (r, "R")]]
    >>> graph = onnx.helper.make_graph([node], "graph", [], [], weights)
    >>> load(onnx.helper.make_model(graph))["gru"].cell == ResetBeforeGRU(4)
    True
    """
    folder = None if isinstance(model, onnx.ModelProto) else os.path.dirname(os.path.abspath(model))
    proto = model if isinstance(model, onnx.ModelProto) else read_model(model)
    graph = proto.graph
    nodes = [node for node in graph.node if node.op_type in GATES and node.domain in ("", "ai.onnx")]
    if not 0 < len(nodes) <= MAX_NODES:
        operators = brief(sorted({node.op_type for node in graph.node}, key=str))
        raise ValueError(
            f"load takes 1 to {MAX_NODES} RNN, GRU and LSTM nodes in the main graph; got {len(nodes)}, among the "
            f"operators {operators}. Pass nodes within a Loop, an If or a function to from_node."
        )
    check_opset(proto)
    weights = _weights(nodes, tensors_of(graph), folder)
    layers: dict[str, Layer] = {}
    for node in nodes:
        name = node.name or next(filter(None, node.output), "")
        if name in layers:
            raise ValueError(f"two nodes have the name {brief(name)}; ONNX requires unique names. Rename one.")
        layers[name] = from_node(node, weights)
    return layers


def _weights(
    nodes: list[onnx.NodeProto], tensors: Mapping[str, onnx.TensorProto], folder: str | None
) -> dict[str, np.ndarray]:
    """Return the weights of nodes by their names in the graph."""
    inputs = [pair for node in nodes for pair in input_names(node).items() if pair[1] in tensors]
    for role, name in inputs:
        if role == "sequence_lens":
            raise ValueError(
                f"the graph fixes sequence_lens, {brief(name)}, which is no part of a Layer. Pass the node to "
                "from_node, and lengths to unroll."
            )
    wanted = [name for role, name in inputs if role != "X"]
    total = sum(size_of(tensors[name]) for name in wanted)
    if total > MAX_BYTES:
        raise ValueError(f"all nodes together have at most {MAX_BYTES} bytes of weights; got {total}")
    return {name: to_array(tensors[name], folder) for name in set(wanted)}


def _layer(node: Node) -> Layer:
    """Return the cell, the params and the state of a node."""
    cells = [cell_of(node, direction) for direction in range(node.directions)]
    params = [params_of(node, cell, direction) for direction, cell in enumerate(cells)]
    state = _state(node)
    if node.directions == 2:
        return Layer(Bidirectional(cells[0], None if cells[0] == cells[1] else cells[1]), Both(*params), state)
    return Layer(Reversed(cells[0]) if node.reverse else cells[0], params[0], state)


def _state(node: Node) -> State:
    """Return the initial state; None if it is not given."""
    roles = [role for role in ("initial_h", "initial_c") if role in node.arrays]
    missing = [role for role in ("initial_h", "initial_c") if role in node.missing]
    if roles and missing:
        raise ValueError(f"{node.title} has {roles} among the weights and {missing} not. Pass both, or neither.")
    if not roles:
        return None
    arrays = {role: to_jax_array(node.arrays[role]) for role in roles}
    arrays = {role: a.swapaxes(0, 1) if node.layout else a for role, a in arrays.items()}
    shapes = {a.shape[:1] + a.shape[2:] + (a.ndim, a.size) for a in arrays.values()}
    if len(shapes) > 1 or next(iter(shapes))[:3] != (node.directions, node.hidden, 3):
        raise ValueError(
            f"{node.title} has initial states ({node.directions}, B, {node.hidden}), or (B, {node.directions}, "
            f"{node.hidden}) for layout 1; got {brief([node.arrays[role].shape for role in roles])}"
        )
    zeros = jnp.zeros_like(arrays[roles[0]])
    h, c = (arrays.get(role, zeros) for role in ("initial_h", "initial_c"))
    states = [LSTMState(*pair) if node.op == "LSTM" else pair[0] for pair in zip(h, c, strict=True)]
    return Both(*states) if node.directions == 2 else states[0]
