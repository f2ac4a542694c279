"""A composite as the list of its cells: the lowest layer first, forward before backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from .._core.cell import Cell
from .._core.composite import Composite
from .._core.types import Params, State
from .._layers.bidirectional import Bidirectional, Both
from .._layers.dropout import Dropout, VariationalDropout
from .._layers.stack import Stack

Tree: TypeAlias = Params | State
"""The params or the state of a cell or a composite."""


def leaves(cell: Cell | Composite) -> list[Cell | Composite]:
    """Return the cells of a `Stack`, a `Bidirectional` or a cell; a dropout layer has none.

    >>> leaves(Stack((Bidirectional(LSTM(2)), Dropout(0.5), GRU(3)))) == [LSTM(2), LSTM(2), GRU(3)]
    True
    """
    return [leaf for layer in children(cell) for leaf in leaves(layer)] if _has_children(cell) else [cell]


def split_tree(cell: Cell | Composite, tree: Tree) -> list[Tree]:
    """Return the params, or the state, of each of the `leaves`.

    Raises:
        ValueError: if the tree has another number of layers.
    """
    if not _has_children(cell):
        return [tree]
    if not isinstance(tree, tuple | list) or len(tree) != len(children(cell)):
        raise ValueError(f"{cell} has a tuple of {len(children(cell))}, an entry for each part; got {tree!r:.200}")
    return [leaf for layer, below in zip(children(cell), tree, strict=True) for leaf in split_tree(layer, below)]


def join_tree(cell: Cell | Composite, trees: Iterator[Tree]) -> Tree:
    """Return the params, or the state, of a composite from those of its `leaves`: the inverse of `split_tree`."""
    if not _has_children(cell):
        return next(trees)
    below = tuple(join_tree(layer, trees) for layer in children(cell))
    return Both(*below) if isinstance(cell, Bidirectional) else below


def children(cell: Cell | Composite) -> tuple[Cell | Composite, ...]:
    """Return the parts of a `Stack` or a `Bidirectional`; a cell and a dropout layer have none."""
    if isinstance(cell, Bidirectional) and type(cell) is Bidirectional:
        return cell.cells
    return cell.layers if isinstance(cell, Stack) and type(cell) is Stack else ()


def _has_children(cell: Cell | Composite) -> bool:
    return type(cell) in (Stack, Bidirectional, Dropout, VariationalDropout)
