"""A composite as a list of the cells it is made of, lowest layer first, forward before backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .._layers.bidirectional import Bidirectional, Both
from .._layers.dropout import Dropout, VariationalDropout
from .._layers.stack import Stack


def directions(both: Bidirectional) -> tuple[Any, Any]:
    """Return the two cells of a `Bidirectional`."""
    return both.forward, both.forward if both.backward is None else both.backward


def leaves(cell: Any) -> list[Any]:
    """Return the cells of a `Stack`, a `Bidirectional` or a cell; a layer of dropout has none.

    >>> leaves(Stack((Bidirectional(LSTM(2)), Dropout(0.5), GRU(3)))) == [LSTM(2), LSTM(2), GRU(3)]
    True
    """
    return [leaf for layer in children(cell) for leaf in leaves(layer)] if _composite(cell) else [cell]


def parts(cell: Any, tree: Any) -> list[Any]:
    """Return what belongs to each of the `leaves`, of the params or the state of a cell.

    Raises:
        ValueError: if the tree has another number of layers.
    """
    if not _composite(cell):
        return [tree]
    if not isinstance(tree, tuple | list) or len(tree) != len(children(cell)):
        raise ValueError(f"{cell} has a tuple of {len(children(cell))}, an entry for each part; got {tree!r:.200}")
    return [part for layer, below in zip(children(cell), tree, strict=True) for part in parts(layer, below)]


def arrange(cell: Any, found: Iterator[Any]) -> Any:
    """Put what belongs to each of the `leaves` where the composite keeps it: the inverse of `parts`."""
    if not _composite(cell):
        return next(found)
    below = tuple(arrange(layer, found) for layer in children(cell))
    return Both(*below) if isinstance(cell, Bidirectional) else below


def children(cell: Any) -> tuple[Any, ...]:
    """Return the parts of a `Stack` or a `Bidirectional`; a cell has none, nor has a layer of dropout."""
    if type(cell) is Bidirectional:
        return directions(cell)
    return cell.layers if type(cell) is Stack else ()


def _composite(cell: Any) -> bool:
    return type(cell) in (Stack, Bidirectional, Dropout, VariationalDropout)
