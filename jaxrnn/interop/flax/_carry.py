"""Flax's carries: an LSTM's is (c, h) there and `LSTMState(h, c)` here."""

from __future__ import annotations

from typing import Any

from ..._cells import LSTM, LSTMState
from ..._core.types import State
from ..._layers.bidirectional import Bidirectional, Both
from ..._layers.stack import Stack
from .._arrays import exact
from .._leaves import children


def state_from_flax(cell: Any, carry: Any) -> State:
    """Convert a carry of flax into the state of a converted cell.

    Args:
        cell: as `from_nnx` and `from_linen` return it, or a `Stack` of such cells.
        carry: h, for an LSTM (c, h); a tuple of two carries for a `Bidirectional`, of one for each layer for a `Stack`.

    Raises:
        ValueError: if the carry is nested otherwise.

    >>> state_from_flax(LSTM(4), (jnp.ones((2, 4)), jnp.zeros((2, 4)))).c.max()
    Array(1., dtype=float32)
    """
    below = children(cell)
    needed = 2 if isinstance(cell, LSTM) else len(below)
    if (len(carry) if isinstance(carry, tuple | list) else 0) != needed or isinstance(carry, LSTMState):
        raise ValueError(
            f"the carry of {cell} is (c, h) for an LSTM, h for another cell, and a tuple of these for a Bidirectional "
            f"or a Stack; got {carry!r:.200}"
        )
    if isinstance(cell, LSTM):
        return LSTMState(h=exact(carry[1]), c=exact(carry[0]))
    if not isinstance(cell, Stack | Bidirectional):
        return exact(carry)
    found = tuple(map(state_from_flax, below, carry))
    return Both(*found) if isinstance(cell, Bidirectional) else found


def state_to_flax(cell: Any, state: State) -> Any:
    """Convert a state into flax's carry: the inverse of `state_from_flax`.

    >>> state_to_flax(LSTM(4), LSTMState(h=jnp.zeros((2, 4)), c=jnp.ones((2, 4))))[0].max()
    Array(1., dtype=float32)
    """
    if isinstance(cell, Stack | Bidirectional):
        return tuple(map(state_to_flax, children(cell), state))
    return (state.c, state.h) if isinstance(cell, LSTM) else state
