"""Export of cells and composites as nodes of ONNX: RNN, GRU and LSTM, and the operators between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from .._core.cell import Cell, GatedParams
from .._core.composite import Composite
from .._core.extras import extra
from .._core.types import Params, State
from .._drivers import Scan
from .._layers.bidirectional import Bidirectional
from .._layers.dropout import Dropout, VariationalDropout
from .._layers.learned_state import LearnedState
from .._layers.residual import Residual
from .._layers.reversed import Reversed
from .._layers.stack import Stack
from .._unroll import unroll
from ._arrays import to_jax_array
from ._onnx_node import ROLES, brief
from ._onnx_weights import OnnxCell, activation_attributes, is_leaf, operator_of, weights_of

with extra("onnx"):
    import onnx
    from onnx import helper, numpy_helper


OPSET, IR_VERSION = 17, 8
"""The versions of exported models, which onnxruntime 1.12 and newer load."""

_DTYPES = ("float16", "float32", "float64")


class Part(NamedTuple):
    """A part of a graph, which `onnx.helper.make_graph` takes.

    Attributes:
        nodes: in order.
        weights: the initializers that the nodes name.
    """

    nodes: list[onnx.NodeProto]
    weights: list[onnx.TensorProto]

    def __add__(self, other: Part) -> Part:  # type: ignore[override]
        """Return both parts, this one first."""
        return Part(self.nodes + other.nodes, self.weights + other.weights)


def to_onnx(
    cell: Cell | Composite, params: Params, *, xs: str = "xs", lengths: str | None = "lengths", ys: str = "ys"
) -> onnx.ModelProto:
    """Convert a cell or a composite, and its params, into a model with the outputs of `unroll` without a key.

    The model computes ys of `unroll(cell, params, xs, lengths=lengths)`, not the state after the last step.

    Args:
        cell: as for `to_nodes`.
        params: its params.
        xs: the name of the input (T, B, D); T and B are free.
        lengths: the name of the input (B,) of int32; None for a model whose sequences are all T steps long.
        ys: the name of the output (T, B, H).

    Returns:
        A model of opset 17 that has passed `onnx.checker`; `onnx.save` writes it to a file.

    Raises:
        ValueError: as `to_nodes`.

    >>> params = GatedParams(w_x=jnp.ones((3, 4, 2)), w_h=jnp.ones((2, 4, 2)), b=jnp.ones((4, 2)))
    >>> model = to_onnx(Stack((Dropout(0.5), LSTM(2))), ((), params))
    >>> [node.op_type for node in model.graph.node]
    ['LSTM', 'Squeeze']
    """
    part = to_nodes(cell, params, xs, ys, lengths)
    like = _outputs(cell, params)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(like.dtype))
    inputs = [helper.make_tensor_value_info(xs, kind, ("T", "B", _in_dim(params)))]
    if lengths is not None:
        inputs.append(helper.make_tensor_value_info(lengths, onnx.TensorProto.INT32, ("B",)))
    output = helper.make_tensor_value_info(ys, kind, ("T", "B", like.shape[-1]))
    graph = helper.make_graph(part.nodes, "jaxrnn", inputs, [output], part.weights)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, producer_name="jaxrnn", opset_imports=[opset], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def to_nodes(cell: Cell | Composite, params: Params, xs: str, ys: str, lengths: str | None = None) -> Part:
    """Convert a cell or a composite, and its params, into part of a graph of opset `OPSET`, for use in a larger one.

    Args:
        cell: `Elman`, `IndRNN`, `LSTM`, `PeepholeLSTM`, `GRU`, `ResetBeforeGRU` or a cell of `from_node`; `Stack`,
            `Bidirectional`, `Reversed`, `Residual` and `LearnedState` over them. `Dropout` and `VariationalDropout` are
            omitted. Recurrent weights that are diagonal or in heads become dense.
        params: its params, all of one dtype: float16, float32 or float64.
        xs: the name of the input (T, B, D) within the graph.
        ys: the name of the output (T, B, H); other names that the part defines begin with it and a dot.
        lengths: the name of the input (B,) of int32; None if all sequences are T steps long.

    Returns:
        The nodes, in order, and their weights.

    Raises:
        ValueError: for a cell that ONNX has no operator for, for params that do not fit it or have several dtypes, and
            for float64 in JAX's 32-bit mode.

    Note: onnxruntime 1.32 does not clip c_t, as `OnnxLSTM` does if it has a clip.

    >>> params = GatedParams(w_x=jnp.ones((3, 4, 2)), w_h=jnp.ones((2, 4, 2)), b=jnp.ones((4, 2)))
    >>> part = to_nodes(LSTM(2), params, "tokens", "states", "lengths")
    >>> [list(node.input) for node in part.nodes]
    [['tokens', 'states.W', 'states.R', 'states.B', 'lengths'], ['states.Y', 'states.axis']]
    """
    _check_cell(cell)
    params = jax.tree.map(to_jax_array, params)
    dtypes = {np.dtype(a.dtype).name for a in jax.tree.leaves(params)}
    if len(dtypes) != 1 or not dtypes <= set(_DTYPES):
        raise ValueError(f"ONNX takes params of one dtype, one of {_DTYPES}; got {sorted(dtypes)}. Cast them first.")
    _outputs(cell, params)
    params = jax.tree.map(np.asarray, params)
    return _write(cell, params, cell.initial_state(params), xs, ys, lengths, reverse=False)


def _check_cell(cell: Cell | Composite) -> None:
    """Raise ValueError unless ONNX has operators for the cell and all its parts."""
    parts: tuple[Cell | Composite, ...] = ()
    match cell:
        case Stack() if type(cell) is Stack:
            parts = cell.layers
        case Bidirectional() if type(cell) is Bidirectional:
            parts = cell.cells
        case Reversed() | Residual() | LearnedState() if type(cell) in (Reversed, Residual, LearnedState):
            parts = (cell.cell,)
        case _:
            if not is_leaf(cell) and type(cell) not in (Dropout, VariationalDropout):
                raise ValueError(
                    f"ONNX has no operator for {str(cell)[:90]}. to_onnx takes Elman, LSTM, PeepholeLSTM, GRU and "
                    "ResetBeforeGRU with activations of ONNX, in Stack, Bidirectional, Reversed, Residual and "
                    "LearnedState; export others with jax.export."
                )
    for part in parts:
        _check_cell(part)


def _in_dim(params: Params) -> int:
    """Return D, from the params of the first layer."""
    layers = jax.tree.leaves(params, is_leaf=lambda p: isinstance(p, GatedParams))
    if not layers or not isinstance(layers[0], GatedParams):
        raise ValueError(f"to_onnx takes params of cell.init(key, in_dim) with weights; got {brief(params)}")
    return int(layers[0].w_x.shape[0])


def _outputs(cell: Cell | Composite, params: Params) -> jax.ShapeDtypeStruct:
    """Return the shape and the dtype of the outputs for T = B = 1; raise ValueError unless the params fit the cell."""
    xs = np.zeros((1, 1, _in_dim(params)), np.float32)
    ys: jax.ShapeDtypeStruct = jax.eval_shape(lambda p, x: unroll(cell, p, x, driver=Scan())[1], params, xs)
    return ys


def _write(
    cell: Cell | Composite, params: Params, state: State, xs: str, ys: str, lengths: str | None, *, reverse: bool
) -> Part:
    """Return the part that runs a cell from an initial state without batch axes."""
    match cell:
        case Stack():
            return _write_stack(cell, params, state, xs, ys, lengths, reverse)
        case Bidirectional():
            return _write_bidirectional(cell, params, state, xs, ys, lengths, reverse)
        case Reversed():
            return _write(cell.cell, params, state, xs, ys, lengths, reverse=not reverse)
        case LearnedState():
            return _write(cell.cell, params.cell, state, xs, ys, lengths, reverse=reverse)
        case Residual():
            inner = _write(cell.cell, params, state, xs, f"{ys}.inner", lengths, reverse=reverse)
            node = helper.make_node("Add", [f"{ys}.xs", f"{ys}.inner"], [ys])
            return _zero_padding(xs, f"{ys}.xs", lengths) + inner + Part([node], [])
        case Dropout() | VariationalDropout():
            return _zero_padding(xs, ys, lengths)
    assert is_leaf(cell)
    return _node([cell], [params], [state], xs, ys, lengths, "reverse" if reverse else "forward")


def _write_stack(
    cell: Stack, params: Params, state: State, xs: str, ys: str, lengths: str | None, reverse: bool
) -> Part:
    """Return the part of one layer after the other; dropout is omitted unless there is nothing else."""
    layers = list(zip(cell.layers, params, state, strict=True))
    layers = [layer for layer in layers if type(layer[0]) not in (Dropout, VariationalDropout)] or layers[:1]
    names = [xs, *(f"{ys}.{k}" for k in range(len(layers) - 1)), ys]
    whole = Part([], [])
    for layer, below, above in zip(layers, names[:-1], names[1:], strict=True):
        whole += _write(*layer, below, above, lengths, reverse=reverse)
    return whole


def _write_bidirectional(
    cell: Bidirectional, params: Params, state: State, xs: str, ys: str, lengths: str | None, reverse: bool
) -> Part:
    """Return one bidirectional node if ONNX has it, or two parts and the concatenation of their outputs."""
    forward, backward = cell.cells
    if not reverse and is_leaf(forward) and is_leaf(backward) and _share_a_node(forward, backward):
        return _node([forward, backward], params, state, xs, ys, lengths, "bidirectional")
    names = [f"{ys}.forward", f"{ys}.backward"]
    parts = [
        _write(*direction, xs, name, lengths, reverse=reverse != (name is names[1]))
        for direction, name in zip(zip(cell.cells, params, state, strict=True), names, strict=True)
    ]
    return parts[0] + parts[1] + Part([helper.make_node("Concat", names, [ys], axis=-1)], [])


def _share_a_node(forward: OnnxCell, backward: OnnxCell) -> bool:
    """Return whether two leaves differ only in activations with the same clip, which a node has once."""
    same = operator_of(forward) == operator_of(backward) and type(forward) is type(backward)
    clips = [activation_attributes(operator_of(cell)[0], [cell]).get("clip") for cell in (forward, backward)]
    return same and clips[0] == clips[1]


def _node(
    cells: Sequence[OnnxCell],
    params: Sequence[GatedParams],
    states: Sequence[State],
    xs: str,
    ys: str,
    lengths: str | None,
    direction: str,
) -> Part:
    """Return the node of one leaf, or of two directions, with its output as (T, B, H)."""
    op, attributes = operator_of(cells[0])
    by_direction = [weights_of(*pair) for pair in zip(cells, params, strict=True)]
    weights = {role: np.stack([w[role] for w in by_direction]) for role in by_direction[0]}
    part, names = Part([], []), {"X": xs, **{role: f"{ys}.{role}" for role in weights}}
    if lengths is not None:
        names["sequence_lens"] = lengths
    initial = [np.stack(leaf)[:, None] for leaf in zip(*map(jax.tree.leaves, states), strict=True)]
    if any(leaf.any() for leaf in initial):
        part = _initial_states(xs, ys, len(initial))
        names |= {role: f"{ys}.{role}" for role in ROLES[5 : 5 + len(initial)]}
        weights |= {f"{role}.row": row for role, row in zip(ROLES[5:], initial, strict=False)}
    inputs = [names.get(role, "") for role in ROLES]
    while not inputs[-1]:
        inputs.pop()
    attributes |= {"direction": direction, **activation_attributes(op, cells)}
    node = helper.make_node(op, inputs, [f"{ys}.Y"], name=ys, **attributes)
    arrays = {f"{ys}.{role}": array for role, array in weights.items()}
    return part + Part([node], _tensors(arrays)) + _flatten_directions(ys, len(cells) * cells[0].hidden, len(cells))


def _flatten_directions(ys: str, width: int, directions: int) -> Part:
    """Return the part from Y (T, directions, B, H) to (T, B, directions * H)."""
    if directions == 1:
        node = helper.make_node("Squeeze", [f"{ys}.Y", f"{ys}.axis"], [ys])
        return Part([node], _tensors({f"{ys}.axis": np.array([1])}))
    nodes = [
        helper.make_node("Transpose", [f"{ys}.Y"], [f"{ys}.rows"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", [f"{ys}.rows", f"{ys}.flat"], [ys]),
    ]
    return Part(nodes, _tensors({f"{ys}.flat": np.array([0, 0, width])}))


def _initial_states(xs: str, ys: str, count: int) -> Part:
    """Return the part from `count` rows (directions, 1, H) to initial states (directions, B, H)."""
    nodes = [
        helper.make_node("Shape", [xs], [f"{ys}.batch"], start=1, end=2),
        helper.make_node("Concat", [f"{ys}.one", f"{ys}.batch", f"{ys}.one"], [f"{ys}.rows_of"], axis=0),
    ]
    for role in ROLES[5 : 5 + count]:
        nodes.append(helper.make_node("Expand", [f"{ys}.{role}.row", f"{ys}.rows_of"], [f"{ys}.{role}"]))
    return Part(nodes, _tensors({f"{ys}.one": np.array([1])}))


def _zero_padding(xs: str, ys: str, lengths: str | None) -> Part:
    """Return the part that sets inputs (T, B, D) to zero in the padding."""
    if lengths is None:
        return Part([helper.make_node("Identity", [xs], [ys])], [])
    chain: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Shape", [xs], "length", {"start": 0, "end": 1}),
        ("Squeeze", [f"{ys}.length"], "steps", {}),
        ("Range", [f"{ys}.first", f"{ys}.steps", f"{ys}.step"], "times", {}),
        ("Unsqueeze", [f"{ys}.times", f"{ys}.after"], "column", {}),
        ("Cast", [lengths], "long", {"to": onnx.TensorProto.INT64}),
        ("Less", [f"{ys}.column", f"{ys}.long"], "in_time", {}),
        ("Unsqueeze", [f"{ys}.in_time", f"{ys}.last"], "valid", {}),
        ("CastLike", [f"{ys}.first", xs], "zero", {}),
    ]
    nodes = [helper.make_node(op, inputs, [f"{ys}.{name}"], **more) for op, inputs, name, more in chain]
    nodes.append(helper.make_node("Where", [f"{ys}.valid", xs, f"{ys}.zero"], [ys]))
    numbers = {"first": np.array(0), "step": np.array(1), "after": np.array([1]), "last": np.array([2])}
    return Part(nodes, _tensors({f"{ys}.{name}": number for name, number in numbers.items()}))


def _tensors(arrays: Mapping[str, np.ndarray]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()]
