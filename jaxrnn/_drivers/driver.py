"""What a driver is, and what drivers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from .._core.cell import Cell, GatedCell
from .._core.masks import StepMasks, apply_reset, hold_padding, zero_padding
from .._core.types import Inputs, Output, Params, State


@runtime_checkable
class Driver(Protocol):
    """A way to run a cell over time, `driver(cell, params, state, xs, masks, *, reverse=False) -> (state, ys)`.

    It is a frozen value whose fields are its options.

    It is called with a cell (never a composite), inputs whose padding is zero, and the masks of every step. With
    `reverse` it runs from the last step to the first, and outputs stay at the steps of their inputs.
    """

    def __call__(
        self, cell: Cell, params: Params, state: State, xs: Inputs, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Return the state after the last step, and the outputs (T, *batch, ...)."""
        ...


@runtime_checkable
class SplitsTime(Protocol):
    """A driver that may split time over devices, inside a `jax.shard_map`, such as `Associative`."""

    @property
    def axis(self) -> str | None:
        """The axis of a mesh that time is split over; None for none."""
        ...


Step: TypeAlias = Callable[[State, Any], tuple[State, Output]]
"""From (s_{t-1}, x_t) to (s_t, y_t)."""

Tree = TypeVar("Tree")


def masked_step(step: Step, reset_state: State) -> Step:
    """Return `step` with the rule on padding and resets around it: it takes (x_t, valid_t, reset_t) in place of x_t.

    Args:
        step: from (s_{t-1}, x_t) to (s_t, y_t).
        reset_state: the state that a reset puts in place of s_{t-1}.
    """

    def masked(state: State, inputs: tuple[Inputs, jax.Array | None, jax.Array | None]) -> tuple[State, Output]:
        x, valid, reset = inputs
        masks = StepMasks(valid, reset, reset_state)
        old = apply_reset(state, masks)
        new, y = step(zero_padding(old, valid), x)
        return hold_padding(new, old, masks), y

    return masked


def scan_chunks(run: Step, state: State, inputs: Any, chunk: int, reverse: bool) -> tuple[State, Output]:
    """Run `lax.scan` over chunks of time.

    Args:
        run: from the state and the rows of a chunk to the state after it and its outputs. It is called with `chunk`
            steps, and with the fewer steps that are left at the end.
        state: the state before the first step.
        inputs: a pytree of arrays (T, ...).
        chunk: the number of steps in a chunk.
        reverse: whether to run from the last chunk to the first.
    """
    length = num_steps(inputs)
    whole = length // chunk * chunk

    def run_whole(state: State) -> tuple[State, Output]:
        split = lambda a: a[:whole].reshape(whole // chunk, chunk, *a.shape[1:])
        state, ys = lax.scan(run, state, jax.tree.map(split, inputs), reverse=reverse)
        return state, jax.tree.map(lambda y: y.reshape(whole, *y.shape[2:]), ys)

    if whole == length:
        return run_whole(state)
    rest = jax.tree.map(lambda a: a[whole:], inputs)
    if whole == 0:
        return run(state, rest)
    if reverse:
        state, tail = run(state, rest)
        state, ys = run_whole(state)
    else:
        state, ys = run_whole(state)
        state, tail = run(state, rest)
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, tail)


def num_steps(tree: Any) -> int:
    """Return T, the length of the first axis of every leaf."""
    return jax.tree.leaves(tree)[0].shape[0]


def drop_symbolic_zeros(cotangents: Tree) -> Tree:
    """Return cotangents with None in place of each symbolic zero."""
    is_zero = lambda leaf: isinstance(leaf, SymbolicZero)
    return jax.tree.map(lambda leaf: None if is_zero(leaf) else leaf, cotangents, is_leaf=is_zero)


def need_gated(cell: Cell, driver: Driver) -> GatedCell:
    """Return `cell`; raise ValueError unless it is a `GatedCell`."""
    if not isinstance(cell, GatedCell):
        raise ValueError(
            f"{driver} needs a GatedCell; got {cell}. Use Scan(), which takes any cell, or name no driver: "
            "then each cell of a composite gets its own."
        )
    return cell
