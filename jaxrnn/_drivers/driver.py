"""What a driver is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from .._core.cell import Cell, GatedCell
from .._core.masks import StepMasks, apply_reset, hold_padding, zero_padding
from .._core.types import Output, Params, State


class Driver(Protocol):
    """A way to cross time: a frozen value whose fields are its knobs.

    It is called with a leaf cell (composites are peeled before), inputs whose padding is already cleared, and the
    masks of every step; `reverse` crosses from the last step to the first, outputs staying where their inputs are.
    """

    def __call__(
        self, cell: Cell, params: Params, state: State, xs: Any, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Give the state after the last step, and the outputs (T, *batch, ...)."""
        ...


Step = Callable[[State, Any], tuple[State, Output]]  # from (s_{t-1}, x_t) to (s_t, y_t)


def masked_step(step: Step, initial: State) -> Step:
    """Put the rule on lengths and resets around `step`: it then takes (x_t, valid_t, reset_t) in place of x_t."""

    def one(state: State, inputs: tuple[Any, Any, Any]) -> tuple[State, Output]:
        x, valid, reset = inputs
        masks = StepMasks(valid, reset, initial)
        old = apply_reset(state, masks)
        new, y = step(zero_padding(old, valid), x)
        return hold_padding(new, old, masks), y

    return one


def scan_chunks(cross: Step, state: State, inputs: Any, chunk: int, reverse: bool) -> tuple[State, Any]:
    """`lax.scan` over chunks of time: `cross(state, rows)` takes `chunk` steps, or the fewer left at the end."""
    length = steps(inputs)
    whole = length // chunk * chunk

    def main(state: State) -> tuple[State, Any]:
        cut = lambda a: a[:whole].reshape(whole // chunk, chunk, *a.shape[1:])
        state, ys = lax.scan(cross, state, jax.tree.map(cut, inputs), reverse=reverse)
        return state, jax.tree.map(lambda y: y.reshape(whole, *y.shape[2:]), ys)

    if whole == length:
        return main(state)
    rest = jax.tree.map(lambda a: a[whole:], inputs)
    if whole == 0:
        return cross(state, rest)
    if reverse:
        state, tail = cross(state, rest)
        state, ys = main(state)
    else:
        state, ys = main(state)
        state, tail = cross(state, rest)
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, tail)


def steps(tree: Any) -> int:
    """T, the length of the leading axis."""
    return jax.tree.leaves(tree)[0].shape[0]


def drop_symbolic_zeros(cotangents: Any) -> Any:
    """Give what there is of cotangents: None in place of a symbolic zero."""
    absent = lambda leaf: isinstance(leaf, SymbolicZero)
    return jax.tree.map(lambda leaf: None if absent(leaf) else leaf, cotangents, is_leaf=absent)


def gated(cell: Cell, driver: Any) -> GatedCell:
    """Give `cell` if it is a `GatedCell`; raise what to do instead if it is not."""
    if not isinstance(cell, GatedCell):
        raise ValueError(f"{driver} needs a GatedCell; got {cell}. Use Scan(), which takes any cell.")
    return cell
