"""Context: what is constant over time and is no param, such as the memory of an attention or a static covariate.

A cell that takes a context puts it among its params, once for all steps: `with_context(params, context)`. So what
follows from the context alone (the keys of a memory) is computed once, and drivers sum its gradient over time as they
sum that of params, without a copy for every step.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Protocol, runtime_checkable

from .fields import show
from .types import Context, Params


@runtime_checkable
class TakesContext(Protocol):
    """A cell with a context, or a composite that passes one on to its parts."""

    def with_context(self, params: Params, context: Context) -> Params:
        """Return what the other methods take for params: the params, and what follows from the context."""
        ...


def takes_context(cell: Any) -> bool:
    """Return whether a cell takes a context; for a composite, whether any of its parts does."""
    return _searched(cell)


def _search(cell: object) -> bool:
    if isinstance(cell, TakesContext) and not hasattr(cell, "unroll"):  # a composite passes it on
        return True
    fields = [getattr(cell, field.name) for field in dataclasses.fields(cell)] if dataclasses.is_dataclass(cell) else []
    parts = [part for field in fields for part in (field if isinstance(field, tuple) else (field,))]
    return any(map(_search, parts))


_searched = functools.lru_cache(maxsize=256)(_search)  # an eager `step` asks each time


def with_context(cell: object, params: Params, context: Context) -> Params:
    """Return the params that `cell.step` takes: with the context in them, where the cell takes one.

    Raises:
        ValueError: if the cell takes a context and gets None, or is a composite that passes none on.
    """
    if not takes_context(cell):
        return params
    if context is None:
        raise ValueError(f"{show(cell)} takes a context: pass it to unroll(..., context=...)")
    if not isinstance(cell, TakesContext):
        raise ValueError(
            f"{type(cell).__name__} has a part that takes a context, and no method with_context(params, context) to "
            "pass it on. Write one; a WrappedCell has it."
        )
    return cell.with_context(params, context)
