"""Cells made of cells: what `unroll` asks of a composite, and the runner that it hands to it."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp

from .cell import Cell, GatedCell
from .checks import check_takes_in_dim
from .context import takes_context, with_context
from .fields import Checked, convert, show
from .hooks import forbid_alone
from .randomness import step, takes_key
from .types import Context, Inputs, Key, Output, Params, State


class Runner(Protocol):
    """What `unroll` hands to a composite: it runs one part over all of time, with the driver, masks and direction.

    A layer that computes all of time by itself reads the masks and the direction here.
    """

    @property
    def valid(self) -> jax.Array | None:
        """The mask (T, *batch) of valid steps, false in the padding; None where there is none."""
        ...

    @property
    def gaps(self) -> bool:
        """Whether padding may lie anywhere; false where it only follows the valid steps of a row."""
        ...

    @property
    def resets(self) -> jax.Array | None:
        """The resets (T, *batch), true at t for a boundary between t - 1 and t; None where there are none."""
        ...

    @property
    def reverse(self) -> bool:
        """Whether time runs from the last step to the first."""
        ...

    @property
    def axis(self) -> str | None:
        """The axis of a mesh that time is split over, under a driver that does so; None for all of time here."""
        ...

    @property
    def key(self) -> Key | None:
        """The key of this part, for what is drawn once a sequence; None where nothing is drawn."""
        ...

    @property
    def step_keys(self) -> Key | None:
        """The keys of the steps (T,), for what is drawn at every step; None where nothing is drawn.

        Step t of `unroll` draws what `step` draws from the key t.
        """
        ...

    def __call__(
        self, cell: Cell | Composite, params: Params, state: State, reset_state: State, xs: Inputs
    ) -> tuple[State, Output]:
        """Return the state after the last step and the outputs (T, *batch, ...); resets go to `reset_state`."""
        ...

    def split(self, num_parts: int) -> Sequence[Runner]:
        """Return a runner for each part, with keys that differ."""
        ...

    def reversed(self) -> Runner:
        """Return a runner that runs in the other direction."""
        ...


class Composite(metaclass=Checked):
    """A cell made of parts: `unroll` lets it run its parts over time, so that drivers see the innermost cells alone."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a subclass whose `step` and `unroll` differ."""
        super().__init_subclass__(**kwargs)
        forbid_alone(cls, "step", "unroll", "streaming calls the one and `unroll` the other.")
        if callable(getattr(cls, "step", None)) and not takes_key(cls):
            raise TypeError(f"{cls.__name__}.step takes no key: write step(self, params, state, x, *, key=None)")

    @abc.abstractmethod
    def init(self, key: Key, in_dim: int) -> Params:
        """Draw the params for inputs of `in_dim` features."""

    @abc.abstractmethod
    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """Return the state before the first step."""

    @abc.abstractmethod
    def out_dim(self, in_dim: int) -> int:
        """Return the number of output features."""

    @abc.abstractmethod
    def unroll(
        self, runner: Runner, params: Params, state: State, reset_state: State, xs: Inputs
    ) -> tuple[State, Output]:
        """Run over time: `runner(part, params, state, reset_state, xs)` does it for one part.

        The masks are the runner's: rows of xs in the padding are zeros, and outputs there are set to zero. State that
        must be held in the padding belongs in a cell.
        """


Part: TypeAlias = Cell | Composite
"""A part of a composite."""


@runtime_checkable
class HasOutDim(Protocol):
    """A cell or a composite that knows the number of its output features."""

    def out_dim(self, in_dim: int) -> int:
        """Return the number of output features for inputs of `in_dim` features."""
        ...


def out_dim(cell: Part, in_dim: int) -> int:
    """Return the number of output features of a cell or a composite for inputs of `in_dim` features.

    It is read off the shapes of one step, unless the cell has a method `out_dim(in_dim)`.

    Raises:
        ValueError: for outputs that are no single array, and for a plain cell with a context and no such method.
    """
    if isinstance(cell, HasOutDim):
        return cell.out_dim(in_dim)
    if takes_context(cell) and not isinstance(cell, GatedCell):
        raise ValueError(
            f"{type(cell).__name__} takes a context, so the number of its output features does not follow from a step. "
            "Give it a method out_dim(in_dim)."
        )

    def one_step(key: Key, x: jax.Array) -> Output:
        params = cell.init(key, in_dim)
        state = cell.initial_state(params)
        return cell.output(params, state, x) if isinstance(cell, GatedCell) else cell.step(params, state, x)[1]

    y = jax.eval_shape(one_step, jax.random.key(0), jax.ShapeDtypeStruct((in_dim,), jnp.zeros(()).dtype))
    if not isinstance(y, jax.ShapeDtypeStruct):
        raise ValueError(f"{show(cell)} returns {y}, which is no single array, so no layer can stand on it")
    return y.shape[-1]


def part(given: object, what: str) -> Part:
    """Return a part of a composite; raise ValueError unless it is a cell or a composite."""
    if isinstance(given, type) or not isinstance(given, Cell | Composite):
        raise ValueError(
            f"{what} must be a cell (init, initial_state, step) or a composite: LSTM(8), not LSTM; got {show(given)}"
        )
    check_takes_in_dim(given, what)
    check_is_composite(given)
    return given


def check_is_composite(cell: object) -> None:
    """Raise ValueError for a class with an `unroll` that is no `Composite`: its `unroll` would never be called."""
    if hasattr(cell, "unroll") and not isinstance(cell, Composite):
        raise ValueError(f"{type(cell).__name__} defines `unroll`: derive it from jaxrnn.Composite")


def need_step(layer: object, whole: object) -> Cell:
    """Return `layer`; raise ValueError if it has no causal step."""
    if not isinstance(layer, Cell):
        raise ValueError(
            f"{type(layer).__name__} has no causal step (it needs the whole sequence), so neither has "
            f"{type(whole).__name__}. Use unroll, or a cell that runs forward in time."
        )
    return layer


@dataclasses.dataclass(frozen=True)
class Wrapper(Composite):
    """A composite of one cell, whose params, state and context are those of the cell."""

    cell: Part

    def __check_init__(self) -> None:
        """Check the cell."""
        convert(self, cell=part)

    def init(self, key: Key, in_dim: int) -> Params:
        """Draw the cell's params."""
        return self.cell.init(key, in_dim)

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """Return the cell's initial state."""
        return self.cell.initial_state(params, batch)

    def out_dim(self, in_dim: int) -> int:
        """Return the number of the cell's output features."""
        return out_dim(self.cell, in_dim)

    def with_context(self, params: Params, context: Context) -> Params:
        """Return the cell's params with the context in them."""
        return with_context(self.cell, params, context)


@dataclasses.dataclass(frozen=True)
class WrappedCell(Wrapper):
    """A composite of one cell that passes everything on to it; a subclass changes what it is for.

    A subclass that changes what a step does overrides both `step` and `unroll`.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Doubled(WrappedCell):
    ...     def step(self, params, state, x, *, key=None):
    ...         return WrappedCell.step(self, params, state, 2 * x, key=key)
    ...     def unroll(self, runner, params, state, reset_state, xs):
    ...         return runner(self.cell, params, state, reset_state, 2 * xs)
    """

    def step(self, params: Params, state: State, x: Inputs, *, key: Key | None = None) -> tuple[State, Output]:
        """Apply one step of the cell."""
        return step(need_step(self.cell, self), params, state, x, key)

    def unroll(
        self, runner: Runner, params: Params, state: State, reset_state: State, xs: Inputs
    ) -> tuple[State, Output]:
        """Run the cell over time."""
        return runner(self.cell, params, state, reset_state, xs)
