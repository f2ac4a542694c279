"""Conversion from and to Keras's recurrent layers: weights and states.

| Keras | jaxrnn |
|---|---|
| `SimpleRNN(H)` | `Elman(H)` |
| `LSTM(H)` | `LSTM(H)`, the gates in the same order, i, f, c, o in Keras |
| `GRU(H)`, that is `reset_after=True` | `GRU(H)`; Keras has the gates in the order z, r, h, and two biases |
| `GRU(H, reset_after=False)` | `ResetBeforeGRU(H)` |
| `Bidirectional(layer)` | `Bidirectional(cell)` |
| `Sequential([...])`, `RNN([cells])` | `Stack((...))`, each layer one of these, or dropout |
| `Dropout(p)` | `Dropout(p)` |
| `SpatialDropout1D(p)`, `Dropout(p, noise_shape=(None, 1, None))` | `VariationalDropout(p)` |

Keras's `activation` is `activation`, its `recurrent_activation` is `gate_activation`: every function that both
libraries have by name. Not among them are "gelu" (exact in Keras, the tanh approximation in jaxrnn) and "leaky_relu"
(the slope is 0.2 in Keras, 0.01 in jaxrnn).

Keras is batch-major, (B, T, D), `unroll` time-major, (T, B, D). `unroll` always returns the state and all outputs, so
`return_sequences` and `return_state` have no counterpart; `use_bias=False` is a bias of zero. A layer with
`go_backwards` returns its outputs in the order of computation, where `Reversed` keeps each at its step; only the
backward layer of a `Bidirectional` is converted. Options that act on weights before or during training are not
converted: `unit_forget_bias` and initializers (draw with `KerasInit`), regularizers, constraints. Any backend of Keras
works; for JAX's, set KERAS_BACKEND=jax before Keras is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._cells import GRU, LSTM, Elman, LSTMState, ResetBeforeGRU
from .._core.cell import Cell, GatedParams
from .._core.composite import Composite
from .._core.types import Params, State
from .._layers.bidirectional import Bidirectional, Both
from .._layers.dropout import Dropout, VariationalDropout
from .._layers.stack import Stack
from ._arrays import to_jax_array
from ._contract import ACTIVATIONS, Kinds, Leaf, checked_leaves, dtype_of
from ._keras_options import DROPOUTS, activations_from, activations_to, dropout_from, keras
from ._leaves import join_tree, leaves, split_tree
from ._packing import Packing

_LAYERS = (keras.layers.SimpleRNN, keras.layers.LSTM, keras.layers.GRU, keras.layers.RNN)
_CELLS = (keras.layers.SimpleRNNCell, keras.layers.LSTMCell, keras.layers.GRUCell)
_KINDS: Kinds = {Elman: ("activation",), LSTM: ACTIVATIONS, GRU: ACTIVATIONS, ResetBeforeGRU: ACTIVATIONS}
_PACKINGS: dict[type, Packing] = {
    Elman: Packing((0,)),
    LSTM: Packing((0, 1, 2, 3)),
    GRU: Packing((1, 0, 2)),
    ResetBeforeGRU: Packing((1, 0, 2)),
}


def from_keras(layer: keras.Layer) -> tuple[Cell | Composite, Params]:
    """Convert a layer of Keras into a cell or a composite, and its params.

    Args:
        layer: one of the table above, exactly (a subclass may compute something else), or the cell of such a layer.
            It must be built. Of a functional model, pass the layers: `from_keras(keras.Sequential(layers))`.

    Returns:
        The cell and its params, in their own dtype, for each layer w_x (D, G, H), w_h (H, G, H) and b (G, H). Within
        `keras.StatelessScope` the conversion can be traced.

    Raises:
        ValueError: for another layer; for options that have no counterpart (other activations or noise shapes,
            `go_backwards`, `stateful`, dropout within a layer, another `merge_mode`, mixed precision); and for float64
            in JAX's 32-bit mode.

    >>> layer = keras.layers.GRU(4)
    >>> layer.build((None, None, 3))
    >>> cell, params = from_keras(layer)
    >>> cell == GRU(4), params.w_x.shape
    (True, (3, 3, 4))
    """
    kind = type(layer)
    if kind is keras.Sequential:
        return _stack([dropout_from(below) if type(below) in DROPOUTS else below for below in layer.layers])
    if kind is keras.layers.StackedRNNCells:
        return _stack(layer.cells)
    if kind is keras.layers.Bidirectional:
        _require(layer, "merge_mode", "concat", "Convert its two layers, and merge their outputs.")
        _require(layer.forward_layer, "go_backwards", False, "Exchange the two layers.")
        cells, params = zip(*map(_layer, (layer.forward_layer, layer.backward_layer)), strict=True)
        return Bidirectional(*cells), Both(*params)
    if kind in _CELLS:
        return _cell(layer)
    if kind in _LAYERS:
        _require(layer, "go_backwards", False, "Set it to False, and call unroll(..., reverse=True).")
        return _layer(layer)
    raise ValueError(
        f"from_keras takes {', '.join(k.__name__ for k in (*_LAYERS, *_CELLS))}, Bidirectional, StackedRNNCells and "
        f"Sequential of these, Dropout and SpatialDropout1D; got {kind.__module__}.{kind.__qualname__}. Pass the "
        "recurrent layers."
    )


def _stack(layers: Sequence[keras.Layer | Dropout | VariationalDropout]) -> tuple[Stack, tuple[Params, ...]]:
    """Return the layers as a `Stack`, and its params."""
    pairs = [(layer, ()) if isinstance(layer, Dropout | VariationalDropout) else from_keras(layer) for layer in layers]
    return Stack(tuple(cell for cell, _ in pairs)), tuple(params for _, params in pairs)


def _layer(layer: keras.Layer) -> tuple[Cell | Composite, Params]:
    """Convert a layer, whatever its direction."""
    if type(layer) not in _LAYERS:
        raise ValueError(f"Bidirectional must hold two of SimpleRNN, LSTM, GRU and RNN; got {type(layer).__name__}")
    _require(layer, "stateful", False, "Pass the state from call to call: unroll(..., state=state).")
    _require(layer, "compute_dtype", layer.cell.compute_dtype, "Make the layer with one dtype.")
    return from_keras(layer.cell)


def _cell(cell: keras.Layer) -> tuple[Leaf, GatedParams]:
    """Convert a cell of Keras."""
    if not cell.built:
        raise ValueError(f"{cell.name} has no weights yet. Call it once, or layer.build((None, None, features)).")
    for name in ("dropout", "recurrent_dropout"):
        _require(cell, name, 0.0, f"Set cell.{name} = 0.0, and add jaxrnn's dropout to the converted cell.")
    _require(cell, "compute_dtype", cell.variable_dtype, "Make the layer with one dtype, then cast the params.")
    leaf = _equation(cell)
    packing = _PACKINGS[type(leaf)]
    w_x, w_h = (packing.unpack(_array(w)) for w in (cell.kernel, cell.recurrent_kernel))
    b = _array(cell.bias) if cell.use_bias else jnp.zeros(w_x.shape[1] * w_x.shape[2], w_x.dtype)
    if type(leaf) is not GRU:
        return leaf, GatedParams(w_x, w_h, packing.unpack(b))
    b_x, b_h = packing.unpack(b) if cell.use_bias else (packing.unpack(b),) * 2
    return leaf, GatedParams(w_x, w_h, b_x.at[:2].add(b_h[:2]), b_h[2])


def _equation(cell: keras.Layer) -> Leaf:
    """Return the cell with the equation of one of Keras."""
    fields = activations_from(cell)
    match cell:
        case keras.layers.LSTMCell():
            return LSTM(cell.units, **fields)
        case keras.layers.GRUCell():
            return (GRU if cell.reset_after else ResetBeforeGRU)(cell.units, **fields)
    return Elman(cell.units, **fields)


def _require(layer: keras.Layer, option: str, needed: object, fix: str) -> None:
    """Raise ValueError with a fix unless an option of a layer has the one value that has a counterpart."""
    if (got := getattr(layer, option)) != needed:
        raise ValueError(f"{layer.name} has {option}={got}, where only {needed} can be converted. {fix}")


def _array(variable: keras.Variable) -> jax.Array:
    """Return the value of a variable: that of the JAX backend, or a copy from another backend."""
    value = variable.value
    return value if isinstance(value, jax.Array) else to_jax_array(keras.ops.convert_to_numpy(value))


def to_keras(cell: Cell | Composite, params: Params) -> keras.Layer:
    """Convert a cell or a composite, and its params, into a built layer of Keras.

    Args:
        cell: one of the table above, with a `Dense` recurrence.
        params: its params, in the shapes that `cell.init` returns, all of one dtype, which becomes the layer's.

    Returns:
        The layer, with `return_sequences=True`: it maps (B, T, D) to (B, T, H). A `keras.Sequential` for a `Stack`.

    Raises:
        ValueError: for a cell that Keras does not have, and for params that do not fit it.

    >>> cell = Bidirectional(LSTM(4))
    >>> layer = to_keras(cell, cell.init(jax.random.key(0), in_dim=3))
    >>> layer(jnp.ones((2, 7, 3))).shape
    (2, 7, 8)
    """
    arrays = keras_weights(cell, params)
    layer = _make(cell, str(dtype_of(params)))
    layer.build((None, None, arrays[0].shape[0]))
    for variable, array in zip(layer.trainable_variables, arrays, strict=True):
        variable.assign(np.asarray(array))
    return layer


def keras_weights(cell: Cell | Composite, params: Params) -> list[jax.Array]:
    """Return the params as the list of arrays that `layer.set_weights` and `layer.stateless_call` take.

    Args:
        cell: as for `to_keras`.
        params: its params.

    Returns:
        For each layer the kernel (D, G * H), the recurrent kernel (H, G * H) and the bias (G * H,), for a `GRU`
        (2, G * H). The conversion can be traced and differentiated.

    Raises:
        ValueError: as `to_keras`.

    >>> [w.shape for w in keras_weights(GRU(4), GRU(4).init(jax.random.key(0), in_dim=3))]
    [(3, 12), (4, 12), (2, 12)]
    """
    pairs = checked_leaves(cell, params, _KINDS, "Keras")
    return [array for leaf, part in pairs for array in _weights(leaf, part)]


def _weights(cell: Leaf, params: GatedParams) -> list[jax.Array]:
    """Return the kernel, the recurrent kernel and the bias of one cell."""
    pack = _PACKINGS[type(cell)].pack
    b = params.b
    if type(cell) is GRU:
        b = jnp.stack([b, jnp.zeros_like(b).at[2].set(params.local)])
    return [pack(params.w_x), pack(params.w_h), pack(b)]


def _make(cell: Cell | Composite, dtype: str) -> keras.Layer:
    """Return the layer, not built."""
    match cell:
        case Stack():
            return keras.Sequential([_make(layer, dtype) for layer in cell.layers])
        case Dropout():
            return keras.layers.Dropout(cell.rate, dtype=dtype)
        case VariationalDropout():
            return keras.layers.SpatialDropout1D(cell.rate, dtype=dtype)
        case Bidirectional():
            cells = [leaf for leaf in cell.cells if isinstance(leaf, Leaf) and type(leaf) in _KINDS]
            if len(cells) != 2 or cells[0].hidden != cells[1].hidden:
                raise ValueError(f"Keras's Bidirectional holds two single layers of one width; got {cell}")
            layers = _make_leaf(cells[0], dtype), _make_leaf(cells[1], dtype, go_backwards=True)
            return keras.layers.Bidirectional(layers[0], backward_layer=layers[1], dtype=dtype)
    assert isinstance(cell, Leaf)
    return _make_leaf(cell, dtype)


def _make_leaf(cell: Leaf, dtype: str, *, go_backwards: bool = False) -> keras.Layer:
    """Return the layer of one cell, not built; zeros as initial weights draw nothing from Keras's generator."""
    options: dict[str, Any] = {
        "return_sequences": True,
        "dtype": dtype,
        "kernel_initializer": "zeros",
        "recurrent_initializer": "zeros",
        "go_backwards": go_backwards,
        **activations_to(cell),
    }
    match cell:
        case Elman():
            return keras.layers.SimpleRNN(cell.hidden, **options)
        case LSTM():
            return keras.layers.LSTM(cell.hidden, **options)
    return keras.layers.GRU(cell.hidden, reset_after=isinstance(cell, GRU), **options)


def state_from_keras(cell: Cell | Composite, states: Sequence[Any]) -> State:
    """Convert the states of a layer of Keras into the state of a converted cell.

    Args:
        cell: as `from_keras` returns it.
        states: arrays (B, H): [h], [h, c] for an LSTM, those of both directions one after the other for a
            `Bidirectional`; as they follow the output where `return_state=True`. For a `Stack`, a list with such a list
            for each layer.

    Returns:
        The state as `unroll` takes it, each leaf (B, H).

    Raises:
        ValueError: for another number of arrays, and for float64 in JAX's 32-bit mode.

    >>> state_from_keras(LSTM(4), [jnp.zeros((2, 4)), jnp.ones((2, 4))]).c.shape
    (2, 4)
    """
    rows: Sequence[Any] = states if type(cell) is Stack else [states]
    arrays = [to_jax_array(a) for row in rows for a in (row if isinstance(row, list | tuple) else [row])]
    cells = leaves(cell)
    needed = sum(2 if isinstance(leaf, LSTM) else 1 for leaf in cells)
    if len(arrays) != needed:
        raise ValueError(f"the state of {cell} is {needed} arrays in Keras, h or h, c for each cell; got {len(arrays)}")
    rest = iter(arrays)
    return join_tree(cell, (LSTMState(next(rest), next(rest)) if isinstance(c, LSTM) else next(rest) for c in cells))


def state_to_keras(cell: Cell | Composite, state: State) -> list[Any]:
    """Convert a state into that of Keras, as `initial_state` takes it: the inverse of `state_from_keras`.

    Args:
        cell: one of the table above.
        state: its state, each leaf (B, H).

    Returns:
        Arrays (B, H), nested as `state_from_keras` takes them.

    Raises:
        ValueError: for a state with another number of layers.

    >>> len(state_to_keras(LSTM(4), LSTMState(h=jnp.zeros((2, 4)), c=jnp.ones((2, 4)))))
    2
    """
    if type(cell) is Stack:
        layers = zip(cell.layers, state, strict=True)
        return [state_to_keras(layer, below) for layer, below in layers if leaves(layer)]
    return [a for leaf in split_tree(cell, state) for a in (leaf if isinstance(leaf, LSTMState) else [leaf])]
