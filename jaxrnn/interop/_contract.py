"""The checks of every converter: the equation of a cell, and the structure, shapes and dtype of its params."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._cells import ProjectedLSTM, ResetBeforeGRU
from .._core.activation import Activation
from .._core.cell import Cell, GatedCell
from .._core.composite import Composite
from .._core.types import Params
from ._leaves import leaves, split_tree

NOT_IN_EQUATION = ("hidden", "projection", "forget_bias", "initializer")
"""Fields that are sizes, which the weights show, or that `init` alone reads."""

ACTIVATIONS = ("activation", "gate_activation")
"""The fields of an `LSTM` and a `GRU` that a converter carries over where a library has both."""

Leaf: TypeAlias = GatedCell | ResetBeforeGRU | ProjectedLSTM
"""A cell that a library may have a counterpart of."""

Kinds: TypeAlias = Mapping[type, Collection[str]]
"""The classes of which a library has a counterpart, each with the fields that a converter carries over."""


def check_equation(cell: Cell | Composite, kinds: Kinds, library: str) -> Leaf:
    """Return a cell; raise ValueError unless a library can express its equation.

    Args:
        cell: of one of the classes exactly, since a subclass may compute something else. Every field that is part of
            its equation must have its default, except those that `kinds` names.
        kinds: what the library has.
        library: its name, for the message.

    >>> cell = check_equation(LSTM(4, activation="relu", forget_bias=0.0), {LSTM: ACTIVATIONS}, "Keras")
    >>> check_equation(LSTM(4, recurrence=Diagonal()), {LSTM: ACTIVATIONS}, "Keras")
    Traceback (most recent call last):
    ValueError: Keras has no LSTM with recurrence=Diagonal(), only with recurrence=Dense(). ...
    """
    if type(cell) not in kinds or not isinstance(cell, Leaf):
        raise ValueError(
            f"{library} has no counterpart of {cell!r}, only of {', '.join(k.__name__ for k in kinds)}, and of none of "
            "their subclasses. Convert a composite layer by layer: cell.layers[k] with params[k]."
        )
    for field in dataclasses.fields(cell):
        value = getattr(cell, field.name)
        if field.name not in (*NOT_IN_EQUATION, *kinds[type(cell)]) and value != field.default:
            raise ValueError(
                f"{library} has no {type(cell).__name__} with {field.name}={value}, only with "
                f"{field.name}={field.default}. Use the cell itself: its params are plain arrays."
            )
    return cell


def activation_name(cell: Leaf, names: Mapping[str, Activation], library: str, *, field: str = "activation") -> str:
    """Return the name that a library has for an activation of a cell; raise ValueError if it is none of `names`.

    >>> activation_name(Elman(4), {"tanh": Activation("tanh"), "relu": Activation("relu")}, "torch")
    'tanh'
    """
    for name, activation in names.items():
        if activation == getattr(cell, field):
            return name
    raise ValueError(
        f"the counterpart of {type(cell).__name__} in {library} has no {field} equal to {getattr(cell, field)}, only "
        f"{', '.join(names)}. Use the cell itself: its params are plain arrays."
    )


def check_params(cell: Leaf, params: Params) -> None:
    """Raise ValueError unless params have the structure and shapes that `cell.init` returns, and one dtype.

    >>> cell = GRU(2)
    >>> check_params(cell, cell.init(jax.random.key(0), in_dim=3))
    """
    w_x = getattr(params, "w_x", 0)
    in_dim = np.shape(w_x)[0] if np.ndim(w_x) else 1
    needed: Params = jax.eval_shape(lambda key: cell.init(key, in_dim), jax.random.key(0))
    same = jax.tree.structure(params) == jax.tree.structure(needed)  # type: ignore[operator]
    if not same or [*map(np.shape, jax.tree.leaves(params))] != [a.shape for a in jax.tree.leaves(needed)]:
        shapes = jax.tree.map(lambda a: str(list(np.shape(a))), (needed, params))
        raise ValueError(
            f"the params do not fit {cell}: it needs weights of the shapes {shapes[0]}; got {shapes[1]}. Pass those of "
            "cell.init(key, in_dim), or the cell that they were drawn for."
        )
    dtype_of(params)


def checked_leaves(cell: Cell | Composite, params: Params, kinds: Kinds, library: str) -> list[tuple[Leaf, Params]]:
    """Return each cell of a composite with its params; raise ValueError unless a library can express all of them.

    Args:
        cell: a cell, or `Stack`, `Bidirectional` and dropout layers over cells.
        params: its params.
        kinds: what the library has.
        library: its name.
    """
    pairs = []
    for leaf, part in zip(leaves(cell), split_tree(cell, params), strict=True):
        leaf = check_equation(leaf, kinds, library)
        check_params(leaf, part)
        pairs.append((leaf, part))
    if not pairs:
        raise ValueError(f"{cell} holds no recurrent cell, so there is nothing to convert")
    return pairs


def dtype_of(params: Params) -> np.dtype:
    """Return the one floating dtype of the params; raise ValueError if there are several.

    >>> dtype_of(GRU(2).init(jax.random.key(0), in_dim=3))
    dtype('float32')
    """
    dtypes: list[np.dtype] = sorted({jnp.dtype(a.dtype) for a in jax.tree.leaves(params)}, key=str)
    if len(dtypes) != 1 or not jnp.issubdtype(dtypes[0], jnp.floating):
        names = ", ".join(dtype.name for dtype in dtypes)
        raise ValueError(
            f"the weights of a cell have one dtype, a floating one; got {names}. Cast them first: "
            "jax.tree.map(lambda a: a.astype(dtype), params)."
        )
    return dtypes[0]
