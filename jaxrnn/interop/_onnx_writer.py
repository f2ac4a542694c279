"""Cells and composites as nodes of ONNX: RNN, GRU and LSTM, and what stands between them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from .._core.cell import GatedParams
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
from ._arrays import exact
from ._onnx_node import ROLES, brief
from ._onnx_weights import activation_attributes, is_leaf, operator_of, weights_of

with extra("onnx"):
    import onnx
    from onnx import helper, numpy_helper


OPSET, IR_VERSION = 17, 8  # of the models: what any onnxruntime since 1.12 loads
_DTYPES = ("float16", "float32", "float64")


class Part(NamedTuple):
    """A part of a graph, which `onnx.helper.make_graph` takes.

    Attributes:
        nodes: in order.
        weights: initializers that the nodes name.
    """

    nodes: list[onnx.NodeProto]
    weights: list[onnx.TensorProto]

    def __add__(self, other: Any) -> Part:
        """Return both, this one first."""
        return Part(self.nodes + other.nodes, self.weights + other.weights)


def to_onnx(
    cell: Any, params: Params, *, xs: str = "xs", lengths: str | None = "lengths", ys: str = "ys"
) -> onnx.ModelProto:
    """Return a model that computes what `unroll(cell, params, xs, lengths=lengths)` returns as ys, without a key.

    The state after the last step is not among the outputs.

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


def to_nodes(cell: Any, params: Params, xs: str, ys: str, lengths: str | None = None) -> Part:
    """Return the part of a graph that `to_onnx` makes a model of, to be put into a larger one of opset `OPSET`.

    Args:
        cell: `Elman`, `IndRNN`, `LSTM`, `PeepholeLSTM`, `GRU`, `ResetBeforeGRU` or a cell of `from_node`; `Stack`,
            `Bidirectional`, `Reversed`, `Residual` and `LearnedState` over them. `Dropout` and `VariationalDropout` are
            left out. Recurrent weights that are diagonal or in heads become dense ones.
        params: its params, all of one dtype: float16, float32 or float64.
        xs: the name of the input (T, B, D) within the graph.
        ys: the name of the output (T, B, H); names of what stands between begin with it and a dot.
        lengths: the name of the input (B,) of int32; None if all sequences are T steps long.

    Raises:
        ValueError: for a cell that ONNX has no operator for, and for params that do not belong to it.

    Note: onnxruntime 1.32 does not clip c_t, as `OnnxLSTM` does where it is given a clip.

    >>> params = GatedParams(w_x=jnp.ones((3, 4, 2)), w_h=jnp.ones((2, 4, 2)), b=jnp.ones((4, 2)))
    >>> part = to_nodes(LSTM(2), params, "tokens", "states", "lengths")
    >>> [list(node.input) for node in part.nodes]
    [['tokens', 'states.W', 'states.R', 'states.B', 'lengths'], ['states.Y', 'states.axis']]
    """
    _check_cell(cell)
    params = jax.tree.map(exact, params)
    dtypes = {np.dtype(a.dtype).name for a in jax.tree.leaves(params)}
    if len(dtypes) != 1 or not dtypes <= set(_DTYPES):
        raise ValueError(f"ONNX takes params of one dtype, one of {_DTYPES}; got {sorted(dtypes)}. Cast them first.")
    _outputs(cell, params)
    params = jax.tree.map(np.asarray, params)
    return _write(cell, params, cell.initial_state(params), xs, ys, lengths, reverse=False)


def _check_cell(cell: Any) -> None:
    """Raise unless ONNX has what the cell and all its parts compute."""
    match cell:
        case Stack() if type(cell) is Stack:
            parts = cell.layers
        case Bidirectional() if type(cell) is Bidirectional:
            parts = _directions(cell)
        case Reversed() | Residual() | LearnedState() if type(cell) in (Reversed, Residual, LearnedState):
            parts = (cell.cell,)
        case _:
            parts = ()
            if not is_leaf(cell) and type(cell) not in (Dropout, VariationalDropout):
                raise ValueError(
                    f"ONNX has no operator for {str(cell)[:90]}. to_onnx takes Elman, LSTM, PeepholeLSTM, GRU and "
                    "ResetBeforeGRU with activations of ONNX, in Stack, Bidirectional, Residual and LearnedState; "
                    "export others with jax.export."
                )
    for part in parts:
        _check_cell(part)


def _in_dim(params: Params) -> int:
    """Return D; the first layer's params come first."""
    found = jax.tree.leaves(params, is_leaf=lambda p: isinstance(p, GatedParams))
    if not found or not isinstance(found[0], GatedParams):
        raise ValueError(f"to_onnx takes params of cell.init(key, in_dim) with weights; got {brief(params)}")
    return int(found[0].w_x.shape[0])


def _outputs(cell: Any, params: Params) -> jax.ShapeDtypeStruct:
    """Return the shape and the dtype of the outputs for T = B = 1; raise unless the params are the cell's."""
    xs = jax.ShapeDtypeStruct((1, 1, _in_dim(params)), np.float32)
    like: jax.ShapeDtypeStruct = jax.eval_shape(lambda p, x: unroll(cell, p, x, driver=Scan())[1], params, xs)
    return like


def _directions(cell: Bidirectional) -> tuple[Any, Any]:
    return cell.forward, cell.forward if cell.backward is None else cell.backward


def _write(cell: Any, params: Params, state: State, xs: str, ys: str, lengths: str | None, *, reverse: bool) -> Part:
    """Return the part of a cell that runs from a state without batch axes."""
    match cell:
        case Stack():
            return _write_stack(cell, params, state, xs, ys, lengths, reverse)
        case Bidirectional():
            return _write_both(cell, params, state, xs, ys, lengths, reverse)
        case Reversed():
            return _write(cell.cell, params, state, xs, ys, lengths, reverse=not reverse)
        case LearnedState():
            return _write(cell.cell, params.cell, state, xs, ys, lengths, reverse=reverse)
        case Residual():
            inner = _write(cell.cell, params, state, xs, f"{ys}.inner", lengths, reverse=reverse)
            node = helper.make_node("Add", [f"{ys}.xs", f"{ys}.inner"], [ys])
            return _cleared(xs, f"{ys}.xs", lengths) + inner + Part([node], [])
        case Dropout() | VariationalDropout():
            return _cleared(xs, ys, lengths)
    return _node([cell], [params], [state], xs, ys, lengths, "reverse" if reverse else "forward")


def _write_stack(
    cell: Stack, params: Params, state: State, xs: str, ys: str, lengths: str | None, reverse: bool
) -> Part:
    """One layer after the other; a dropout only where there is nothing else."""
    layers = list(zip(cell.layers, params, state, strict=True))
    layers = [layer for layer in layers if type(layer[0]) not in (Dropout, VariationalDropout)] or layers[:1]
    names = [xs, *(f"{ys}.{k}" for k in range(len(layers) - 1)), ys]
    whole = Part([], [])
    for layer, below, above in zip(layers, names, names[1:], strict=False):
        whole += _write(*layer, below, above, lengths, reverse=reverse)
    return whole


def _write_both(
    cell: Bidirectional, params: Params, state: State, xs: str, ys: str, lengths: str | None, reverse: bool
) -> Part:
    """Both directions: one node if ONNX has it, or two and their outputs side by side."""
    cells = _directions(cell)
    if not reverse and all(map(is_leaf, cells)) and _alike(*cells):
        return _node(list(cells), list(params), list(state), xs, ys, lengths, "bidirectional")
    names = [f"{ys}.forward", f"{ys}.backward"]
    parts = [
        _write(*direction, xs, name, lengths, reverse=reverse != (name is names[1]))
        for direction, name in zip(zip(cells, params, state, strict=True), names, strict=False)
    ]
    return parts[0] + parts[1] + Part([helper.make_node("Concat", names, [ys], axis=-1)], [])


def _alike(forward: Any, backward: Any) -> bool:
    """Return whether two leaves differ in their activations alone, but for the clip, which a node has once."""
    same = operator_of(forward) == operator_of(backward) and type(forward) is type(backward)
    clips = [activation_attributes(operator_of(cell)[0], [cell]).get("clip") for cell in (forward, backward)]
    return same and clips[0] == clips[1]


def _node(
    cells: list[Any], params: list[Any], states: list[State], xs: str, ys: str, lengths: str | None, direction: str
) -> Part:
    """The node of one leaf, or of two directions, and its output as (T, B, H)."""
    op, attributes = operator_of(cells[0])
    each = [weights_of(*pair) for pair in zip(cells, params, strict=True)]
    weights = {role: np.stack([w[role] for w in each]) for role in each[0]}
    part, names = Part([], []), {"X": xs, **{role: f"{ys}.{role}" for role in weights}}
    if lengths is not None:
        names["sequence_lens"] = lengths
    starts = [np.stack(leaf)[:, None] for leaf in zip(*map(jax.tree.leaves, states), strict=True)]
    if any(start.any() for start in starts):
        part = _expanded(xs, ys, len(starts))
        names |= {role: f"{ys}.{role}" for role in ROLES[5 : 5 + len(starts)]}
        weights |= {f"{role}.row": row for role, row in zip(ROLES[5:], starts, strict=False)}
    inputs = [names.get(role, "") for role in ROLES]
    while not inputs[-1]:
        inputs.pop()
    attributes |= {"direction": direction, **activation_attributes(op, cells)}
    node = helper.make_node(op, inputs, [f"{ys}.Y"], name=ys, **attributes)
    arrays = {f"{ys}.{role}": array for role, array in weights.items()}
    return part + Part([node], _tensors(arrays)) + _flat(ys, len(cells) * cells[0].hidden, len(cells))


def _flat(ys: str, width: int, directions: int) -> Part:
    """From Y (T, directions, B, H) to (T, B, directions * H)."""
    if directions == 1:
        node = helper.make_node("Squeeze", [f"{ys}.Y", f"{ys}.axis"], [ys])
        return Part([node], _tensors({f"{ys}.axis": np.array([1])}))
    nodes = [
        helper.make_node("Transpose", [f"{ys}.Y"], [f"{ys}.rows"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", [f"{ys}.rows", f"{ys}.flat"], [ys]),
    ]
    return Part(nodes, _tensors({f"{ys}.flat": np.array([0, 0, width])}))


def _expanded(xs: str, ys: str, count: int) -> Part:
    """Initial states (directions, B, H) from rows (directions, 1, H), as many as there are."""
    nodes = [
        helper.make_node("Shape", [xs], [f"{ys}.batch"], start=1, end=2),
        helper.make_node("Concat", [f"{ys}.one", f"{ys}.batch", f"{ys}.one"], [f"{ys}.rows_of"], axis=0),
    ]
    for role in ROLES[5 : 5 + count]:
        nodes.append(helper.make_node("Expand", [f"{ys}.{role}.row", f"{ys}.rows_of"], [f"{ys}.{role}"]))
    return Part(nodes, _tensors({f"{ys}.one": np.array([1])}))


def _cleared(xs: str, ys: str, lengths: str | None) -> Part:
    """Inputs (T, B, D), zero in the padding, whatever stands there."""
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


def _tensors(arrays: dict[str, np.ndarray]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()]
