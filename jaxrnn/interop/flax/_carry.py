"""Flax's carries: (c, h) for an LSTM, where jaxrnn has `LSTMState(h, c)`."""

from __future__ import annotations

from typing import TypeAlias

import jax

from ..._cells import LSTM, LSTMState
from ..._core.cell import Cell
from ..._core.composite import Composite
from ..._core.types import State
from ..._layers.bidirectional import Bidirectional, Both
from ..._layers.reversed import Reversed
from ..._layers.stack import Stack
from .._arrays import to_jax_array
from .._leaves import children

Carry: TypeAlias = jax.Array | tuple["Carry", ...]
"""A carry of flax, each leaf (*batch, H)."""


def state_from_flax(cell: Cell | Composite, carry: Carry) -> State:
    """Convert a carry of flax into the state of a converted cell.

    Args:
        cell: as `from_nnx` and `from_linen` return it, or a `Stack` of such cells.
        carry: h (*batch, H), for an LSTM (c, h), each (*batch, H); a tuple of two carries for a `Bidirectional`, of one
            for each layer for a `Stack`.

    Returns:
        The state as `unroll` takes it, each leaf (*batch, H).

    Raises:
        ValueError: if the structure of the carry does not fit the cell, and for float64 in JAX's 32-bit mode.

    >>> state_from_flax(LSTM(4), (jnp.ones((2, 4)), jnp.zeros((2, 4)))).c.max()
    Array(1., dtype=float32)
    """
    if isinstance(cell, Reversed):
        return state_from_flax(cell.cell, carry)
    layers = children(cell)
    needed = 2 if isinstance(cell, LSTM) else len(layers)
    if (len(carry) if isinstance(carry, tuple | list) else 0) != needed or isinstance(carry, LSTMState):
        raise ValueError(
            f"the carry of {cell} is (c, h) for an LSTM, h for another cell, and a tuple of these for a Bidirectional "
            f"or a Stack; got {carry!r:.200}"
        )
    if isinstance(cell, LSTM):
        c, h = jax.tree.map(to_jax_array, carry)
        return LSTMState(h, c)
    if not isinstance(cell, Stack | Bidirectional):
        return jax.tree.map(to_jax_array, carry)
    states = tuple(map(state_from_flax, layers, carry))
    return Both(*states) if isinstance(cell, Bidirectional) else states


def state_to_flax(cell: Cell | Composite, state: State) -> Carry:
    """Convert a state into flax's carry: the inverse of `state_from_flax`.

    Args:
        cell: an `Elman`, `LSTM` or `GRU`, or `Reversed`, `Bidirectional` and `Stack` of these.
        state: its state, each leaf (*batch, H).

    Returns:
        h (*batch, H), for an LSTM (c, h); a tuple of carries for a `Bidirectional` or a `Stack`.

    >>> state_to_flax(LSTM(4), LSTMState(h=jnp.zeros((2, 4)), c=jnp.ones((2, 4))))[0].max()
    Array(1., dtype=float32)
    """
    if isinstance(cell, Reversed):
        return state_to_flax(cell.cell, state)
    if isinstance(cell, Stack | Bidirectional):
        return tuple(map(state_to_flax, children(cell), state))
    return (state.c, state.h) if isinstance(cell, LSTM) else state
