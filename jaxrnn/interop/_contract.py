"""What every converter checks before it converts: the equation of a cell, and that the params are its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core.activation import Activation
from .._core.types import Params
from ._leaves import leaves, parts

OF_INIT = ("hidden", "projection", "forget_bias", "initializer")
"""Fields that say nothing of the equation: sizes, which the weights show, and how weights are drawn."""


ACTIVATIONS = ("activation", "gate_activation")
"""The fields of an `LSTM` and a `GRU` that a converter carries over where a library has both."""

Kinds = Mapping[type, Collection[str]]
"""The classes of which a library has a counterpart, each with the fields that a converter carries over."""


def check_equation(cell: Any, kinds: Kinds, library: str) -> None:
    """Raise unless a library can express the equation of a cell.

    Args:
        cell: it must be of one of the classes exactly, since a subclass may compute something else; and every field
            that is part of its equation must have its default, but for those that `kinds` names.
        kinds: what the library has.
        library: its name, for the message.

    >>> check_equation(LSTM(4, activation="relu", forget_bias=0.0), {LSTM: ACTIVATIONS}, "Keras")
    >>> check_equation(LSTM(4, recurrence=Diagonal()), {LSTM: ACTIVATIONS}, "Keras")
    Traceback (most recent call last):
    ValueError: Keras has no LSTM with recurrence=Diagonal(), only with recurrence=Dense(). ...
    """
    if type(cell) not in kinds:
        raise ValueError(
            f"{library} has no counterpart of {cell!r}, only of {', '.join(k.__name__ for k in kinds)}, and of none of "
            "their subclasses. A composite may go layer by layer: cell.layers[k] with params[k]."
        )
    for field in dataclasses.fields(cell):
        value = getattr(cell, field.name)
        if field.name not in (*OF_INIT, *kinds[type(cell)]) and value != field.default:
            raise ValueError(
                f"{library} has no {type(cell).__name__} with {field.name}={value}, only with "
                f"{field.name}={field.default}. Use the cell itself: its params are plain arrays."
            )


def activation_of(cell: Any, named: Mapping[str, Activation], library: str, *, field: str = "activation") -> str:
    """Return the name by which a library knows an activation of a cell; raise if it is none of `named`.

    >>> activation_of(Elman(4), {"tanh": Activation("tanh"), "relu": Activation("relu")}, "torch")
    'tanh'
    """
    for name, activation in named.items():
        if activation == getattr(cell, field):
            return name
    raise ValueError(
        f"the counterpart of {type(cell).__name__} in {library} has no {field} equal to {getattr(cell, field)}, only "
        f"{', '.join(named)}. Use the cell itself: its params are plain arrays."
    )


def check_params(cell: Any, params: Params) -> None:
    """Raise unless the params of a cell have the structure and the shapes that its `init` gives them, and one dtype.

    >>> cell = GRU(2)
    >>> check_params(cell, cell.init(jax.random.key(0), in_dim=3))
    """
    w_x: Any = getattr(params, "w_x", 0)
    in_dim = np.shape(w_x)[0] if np.ndim(w_x) else 1
    needed = jax.eval_shape(lambda key: cell.init(key, in_dim), jax.random.key(0))
    same = jax.tree.structure(params) == jax.tree.structure(needed)  # type: ignore[operator]
    if not same or [*map(np.shape, jax.tree.leaves(params))] != [a.shape for a in jax.tree.leaves(needed)]:
        shapes = jax.tree.map(lambda a: str(list(np.shape(a))), (needed, params))
        raise ValueError(
            f"the params are not those of {cell}: it needs weights of the shapes {shapes[0]}; got {shapes[1]}. Take "
            "those of cell.init(key, in_dim), or the cell that they were made for."
        )
    dtype_of(params)


def checked_leaves(cell: Any, params: Params, kinds: Kinds, library: str) -> list[tuple[Any, Any]]:
    """Return each cell of a composite with its params; raise unless a library can express all of them.

    Args:
        cell: a cell, or `Stack`, `Bidirectional` and layers of dropout over cells.
        params: its params.
        kinds: what the library has.
        library: its name.
    """
    pairs = list(zip(leaves(cell), parts(cell, params), strict=True))
    if not pairs:
        raise ValueError(f"{cell} holds no recurrent cell, so there is nothing to convert")
    for leaf, part in pairs:
        check_equation(leaf, kinds, library)
        check_params(leaf, part)
    return pairs


def dtype_of(params: Params) -> np.dtype:
    """Return the one floating dtype of the params; raise if there are several.

    >>> dtype_of(GRU(2).init(jax.random.key(0), in_dim=3))
    dtype('float32')
    """
    dtypes = {jnp.dtype(a.dtype) for a in jax.tree.leaves(params)}
    if len(dtypes) != 1 or not jnp.issubdtype((dtype := dtypes.pop()), jnp.floating):
        names = sorted(jnp.dtype(a.dtype).name for a in jax.tree.leaves(params))
        raise ValueError(
            f"the weights of a cell are kept in one dtype, a floating one; got {', '.join(dict.fromkeys(names))}. Cast "
            "them first: jax.tree.map(lambda a: a.astype(dtype), params)."
        )
    return dtype
