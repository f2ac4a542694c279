"""Keras' recurrent layers: their weights and states, in both directions.

| Keras | jaxrnn |
|---|---|
| `SimpleRNN(H)` | `Elman(H)` |
| `LSTM(H)` | `LSTM(H)`, the gates in the same order: Keras' i, f, c, o |
| `GRU(H)`, that is `reset_after=True` | `GRU(H)`; Keras has the gates in the order z, r, h, and two biases |
| `GRU(H, reset_after=False)` | `ResetBeforeGRU(H)` |
| `Bidirectional(layer)` | `Bidirectional(cell)` |
| `Sequential([...])`, `RNN([cells])` | `Stack((...))`, each layer one of these or of dropout |
| `Dropout(p)` | `Dropout(p)` |
| `SpatialDropout1D(p)`, `Dropout(p, noise_shape=(None, 1, None))` | `VariationalDropout(p)` |

Keras' `activation` is our `activation`, its `recurrent_activation` our `gate_activation`: every function that both
libraries have by name. Not among them are "gelu" (Keras' is exact, ours the tanh approximation) and "leaky_relu" (the
slope is 0.2 in Keras, 0.01 in ours).

Keras is batch-major, (B, T, D), `unroll` time-major, (T, B, D). `unroll` always returns the state and all outputs, so
`return_sequences` and `return_state` have no counterpart; `use_bias=False` is a bias of zero. What acts on weights
before or during training is not converted: `unit_forget_bias` and initialisers (draw with `KerasInit`), regularizers,
constraints. Any backend of Keras will do; for JAX's, set KERAS_BACKEND=jax before Keras is imported.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._cells import GRU, LSTM, Elman, LSTMState, ResetBeforeGRU
from .._core.cell import GatedParams
from .._core.types import Params, State
from .._layers.bidirectional import Bidirectional, Both
from .._layers.dropout import Dropout, VariationalDropout
from .._layers.stack import Stack
from ._arrays import exact
from ._contract import ACTIVATIONS, Kinds, checked_leaves, dtype_of
from ._keras_options import DROPOUTS, activations_from, activations_to, dropout_from, keras
from ._leaves import arrange, directions, leaves, parts
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


def from_keras(layer: Any) -> tuple[Any, Params]:
    """Convert a layer of Keras with its weights.

    Args:
        layer: one of the table above, exactly (a subclass may compute something else), or the cell of such a layer.
            It must be built. Of a functional model, hand over the layers: `from_keras(keras.Sequential(layers))`.

    Returns:
        The cell and its params, in their own dtype. Traceable within `keras.StatelessScope`.

    Raises:
        ValueError: for another layer, for what has no counterpart (other activations or noise shapes, `go_backwards`,
            `stateful`, dropout within a layer, another `merge_mode`, mixed precision), and for float64 in JAX's 32 bit
            mode.

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
        _need(layer, "merge_mode", "concat", "Convert its two layers, and merge their outputs.")
        _need(layer.forward_layer, "go_backwards", False, "Exchange the two layers.")
        both, params = zip(*(_layer(part) for part in (layer.forward_layer, layer.backward_layer)), strict=True)
        return Bidirectional(*both), Both(*params)
    if kind in _CELLS:
        return _cell(layer)
    if kind in _LAYERS:
        _need(layer, "go_backwards", False, "Set it to False, and call unroll(..., reverse=True).")
        return _layer(layer)
    raise ValueError(
        f"from_keras takes {', '.join(k.__name__ for k in (*_LAYERS, *_CELLS))}, Bidirectional, StackedRNNCells and "
        f"Sequential of these, Dropout and SpatialDropout1D; got {kind.__module__}.{kind.__qualname__}. Hand over the "
        "recurrent layers."
    )


def _stack(layers: list[Any]) -> tuple[Stack, tuple[Params, ...]]:
    """Return the layers as a `Stack`."""
    found = [(layer, ()) if isinstance(layer, Dropout | VariationalDropout) else from_keras(layer) for layer in layers]
    return Stack(tuple(cell for cell, _ in found)), tuple(params for _, params in found)


def _layer(layer: Any) -> tuple[Any, Params]:
    """Return the cell of a layer, whose direction was checked."""
    if type(layer) not in _LAYERS:
        raise ValueError(f"Bidirectional must hold two of SimpleRNN, LSTM, GRU and RNN; got {type(layer).__name__}")
    _need(layer, "stateful", False, "Hand the state from call to call: unroll(..., state=state).")
    _need(layer, "compute_dtype", layer.cell.compute_dtype, "Make the layer with one dtype.")
    return from_keras(layer.cell)


def _cell(cell: Any) -> tuple[Any, GatedParams]:
    """Return a cell of Keras as ours."""
    if not cell.built:
        raise ValueError(f"{cell.name} has no weights yet. Call it once, or layer.build((None, None, features)).")
    for name in ("dropout", "recurrent_dropout"):
        _need(cell, name, 0.0, f"Set cell.{name} = 0.0, and add jaxrnn's own dropout to the converted cell.")
    _need(cell, "compute_dtype", cell.variable_dtype, "Make the layer with one dtype, then cast the params.")
    ours = _equation(cell)
    packing = _PACKINGS[type(ours)]
    w_x, w_h = (packing.unpack(_array(w)) for w in (cell.kernel, cell.recurrent_kernel))
    b = _array(cell.bias) if cell.use_bias else jnp.zeros(w_x.shape[1] * w_x.shape[2], w_x.dtype)
    if type(ours) is not GRU:
        return ours, GatedParams(w_x, w_h, packing.unpack(b))
    inner, recurrent = packing.unpack(b) if cell.use_bias else (packing.unpack(b),) * 2
    return ours, GatedParams(w_x, w_h, inner.at[:2].add(recurrent[:2]), recurrent[2])


def _equation(cell: Any) -> Any:
    """Return our cell with the equation of one of Keras."""
    fields = activations_from(cell)
    match cell:
        case keras.layers.LSTMCell():
            return LSTM(cell.units, **fields)
        case keras.layers.GRUCell():
            return (GRU if cell.reset_after else ResetBeforeGRU)(cell.units, **fields)
    return Elman(cell.units, **fields)


def _need(layer: Any, name: str, needed: Any, mend: str) -> None:
    """Raise what to do unless an option of a layer has the one value that has a counterpart."""
    if (got := getattr(layer, name)) != needed:
        raise ValueError(f"{layer.name} has {name}={got}, where only {needed} can be converted. {mend}")


def _array(variable: Any) -> jax.Array:
    """Return the value of a variable: JAX's own, or a copy from another backend."""
    value = variable.value
    return value if isinstance(value, jax.Array) else exact(keras.ops.convert_to_numpy(value))


def to_keras(cell: Any, params: Params) -> Any:
    """Convert a cell, or a composite, and its params into a built layer of Keras.

    Args:
        cell: one of the table above, with a `Dense` recurrence.
        params: its params, all of one dtype, which becomes the layer's.

    Returns:
        The layer, with `return_sequences=True`; a `keras.Sequential` for a `Stack`.

    Raises:
        ValueError: for a cell that Keras does not have, or params that do not belong to it.

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


def keras_weights(cell: Any, params: Params) -> list[Any]:
    """Return the params as the list of arrays that `layer.set_weights` and `layer.stateless_call` take; traceable.

    Raises:
        ValueError: for a cell that Keras does not have, or params that do not belong to it.

    >>> [w.shape for w in keras_weights(GRU(4), GRU(4).init(jax.random.key(0), in_dim=3))]
    [(3, 12), (4, 12), (2, 12)]
    """
    pairs = checked_leaves(cell, params, _KINDS, "Keras")
    return [array for leaf, part in pairs for array in _weights(leaf, part)]


def _weights(cell: Any, params: GatedParams) -> list[Any]:
    """Return kernel, recurrent kernel and bias of one cell."""
    pack = _PACKINGS[type(cell)].pack
    b = params.b
    if type(cell) is GRU:
        b = jnp.stack([b, jnp.zeros_like(b).at[2].set(params.local)])
    return [pack(params.w_x), pack(params.w_h), pack(b)]


def _make(cell: Any, dtype: str, **options: Any) -> Any:
    """Return the layer, not built; its weights begin as zeros, so that nothing is drawn from Keras' generator."""
    zeros = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}
    options = {"return_sequences": True, "dtype": dtype, **zeros, **activations_to(cell), **options}
    match cell:
        case Stack():
            return keras.Sequential([_make(layer, dtype) for layer in cell.layers])
        case Dropout():
            return keras.layers.Dropout(cell.rate, dtype=dtype)
        case VariationalDropout():
            return keras.layers.SpatialDropout1D(cell.rate, dtype=dtype)
        case Bidirectional():
            forward, backward = directions(cell)
            if any(type(c) not in _KINDS or c.hidden != forward.hidden for c in (forward, backward)):
                raise ValueError(f"Keras' Bidirectional holds two single layers of one width; got {cell}")
            backward = _make(backward, dtype, go_backwards=True)
            return keras.layers.Bidirectional(_make(forward, dtype), backward_layer=backward, dtype=dtype)
        case Elman():
            return keras.layers.SimpleRNN(cell.hidden, **options)
        case LSTM():
            return keras.layers.LSTM(cell.hidden, **options)
    return keras.layers.GRU(cell.hidden, reset_after=isinstance(cell, GRU), **options)


def state_from_keras(cell: Any, states: Any) -> State:
    """Convert the states of a layer of Keras into the state of a converted cell.

    Args:
        cell: as `from_keras` returns it.
        states: [h], [h, c] for an LSTM, those of both directions one after the other for a `Bidirectional`; as they
            follow the output where `return_state=True`. For a `Stack`, a list with such a list for each layer.

    >>> state_from_keras(LSTM(4), [jnp.zeros((2, 4)), jnp.ones((2, 4))]).c.shape
    (2, 4)
    """
    rows = states if type(cell) is Stack else [states]
    arrays = [exact(a) for row in rows for a in (row if isinstance(row, list | tuple) else [row])]
    cells = leaves(cell)
    needed = sum(2 if isinstance(leaf, LSTM) else 1 for leaf in cells)
    if len(arrays) != needed:
        raise ValueError(f"the state of {cell} is {needed} arrays in Keras, h or h, c for each cell; got {len(arrays)}")
    left = iter(arrays)
    return arrange(cell, (LSTMState(next(left), next(left)) if isinstance(c, LSTM) else next(left) for c in cells))


def state_to_keras(cell: Any, state: State) -> list[Any]:
    """Convert a state into that of Keras, as `initial_state` takes it: the inverse of `state_from_keras`.

    >>> len(state_to_keras(LSTM(4), LSTMState(h=jnp.zeros((2, 4)), c=jnp.ones((2, 4)))))
    2
    """
    if type(cell) is Stack:
        layers = zip(cell.layers, state, strict=True)
        return [state_to_keras(layer, below) for layer, below in layers if leaves(layer)]
    return [a for part in parts(cell, state) for a in (part if isinstance(part, LSTMState) else [part])]
