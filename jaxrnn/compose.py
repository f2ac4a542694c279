"""Cells made of cells: a stack, both directions, a residual connection.

`unroll` takes a composite apart: each says in `cross` how its parts cross time, drivers see leaves only, and every
layer keeps its one big GEMM.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from .cell import Cell, Output, Params, State
from .checks import check_step, check_takes_in_dim
from .exportable import exportable
from .fields import Checked, check_init, convert, show
from .hooks import forbid_alone


class Run(Protocol):
    """How `unroll` crosses time with one part of a composite; `flip` turns the direction around."""

    def __call__(
        self,
        cell: Any,
        params: Params,
        state: State,
        initial: State,
        xs: Any,
        key: jax.Array | None,
        *,
        flip: bool = False,
    ) -> tuple[State, Output]:
        """Give the state after the last step, and the outputs."""
        ...


class Composite(metaclass=Checked):
    """Something that `unroll` takes, made of parts."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a `step` and a `cross` that would not be the same."""
        super().__init_subclass__(**kwargs)
        forbid_alone(cls, "step", "cross", "streaming calls the one and `unroll` the other.")

    @abc.abstractmethod
    def init(self, key: jax.Array, in_dim: int) -> Params:
        """Draw the params for inputs of `in_dim` features."""

    @abc.abstractmethod
    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """Give the state before the first step."""

    @abc.abstractmethod
    def out_dim(self, in_dim: int) -> int:
        """Give the number of output features."""

    @abc.abstractmethod
    def cross(
        self, run: Run, params: Params, state: State, initial: State, xs: Any, key: jax.Array | None
    ) -> tuple[State, Output]:
        """Cross time with `run(part, ...)`; `initial` is what resets go to, `key` what dropout draws from."""


def out_dim(cell: Any, in_dim: int) -> int:
    """Give the number of features that `cell` puts out for inputs of `in_dim` features."""
    if isinstance(cell, Composite):
        return cell.out_dim(in_dim)

    def step(key: jax.Array, x: jax.Array) -> Output:
        params = cell.init(key, in_dim)
        return cell.step(params, cell.initial_state(params), x)[1]

    y = jax.eval_shape(step, jax.random.key(0), jax.ShapeDtypeStruct((in_dim,), jnp.zeros(()).dtype))
    if not isinstance(y, jax.ShapeDtypeStruct):
        raise ValueError(f"{show(cell)} returns {y}, which is no single array, so no layer can stand on it")
    return y.shape[-1]


def part(given: Any, what: str) -> Any:
    """Return a part of a composite; raise ValueError unless it is a cell or a composite."""
    if isinstance(given, type) or not isinstance(given, Cell | Composite):
        raise ValueError(
            f"{what} must be a cell (init, initial_state, step) or a composite: LSTM(8), not LSTM; got {show(given)}"
        )
    check_takes_in_dim(given, what)
    return given


def need_step(layer: Any, whole: Any) -> Cell:
    """Give `layer` if it has a causal step; raise what to do instead if it has none."""
    if not isinstance(layer, Cell):
        raise ValueError(
            f"{type(layer).__name__} has no causal step (it needs the whole sequence), so neither has "
            f"{type(whole).__name__}. Use unroll, or a cell that runs forward in time."
        )
    return layer


def split_key(key: jax.Array | None, count: int) -> Any:
    """Give a key a part, or None for each."""
    return [None] * count if key is None else jax.random.split(key, count)


@dataclasses.dataclass(frozen=True)
class Stack(Composite):
    """Layers on top of each other, the outputs of one being the inputs of the next.

    Args:
        layers: a tuple of cells, composites and dropouts, the lowest first.

    Params and state are tuples with an entry a layer. A stack takes a `step` if all its layers do; over a
    `Bidirectional` its `step` raises.

    >>> stack = Stack((LSTM(8), GRU(4)))
    >>> params = stack.init(jax.random.key(0), in_dim=3)
    >>> state, y = stack.step(params, stack.initial_state(params), jnp.ones(3))
    >>> y.shape
    (4,)
    """

    layers: tuple[Any, ...]

    def __check_init__(self) -> None:
        """Check the layers."""
        if not isinstance(self.layers, tuple) or not self.layers:
            raise ValueError(
                f"Stack takes a tuple of one layer or more: Stack((LSTM(8), GRU(8))); got {show(self.layers)}"
            )
        for k, layer in enumerate(self.layers):
            part(layer, f"Stack.layers[{k}]")

    def init(self, key: jax.Array, in_dim: int) -> tuple[Params, ...]:
        """Draw each layer's params for what the layer below puts out."""
        dims = [check_init(self, key, in_dim)]
        for layer in self.layers[:-1]:
            dims.append(out_dim(layer, dims[-1]))
        keys = split_key(key, len(self.layers))
        return tuple(layer.init(k, dim) for layer, k, dim in zip(self.layers, keys, dims, strict=True))

    def initial_state(self, params: tuple[Params, ...], batch: tuple[int, ...] = ()) -> tuple[State, ...]:
        """Give each layer's initial state."""
        params = (None,) * len(self.layers) if params is None else params
        return tuple(layer.initial_state(p, batch) for layer, p in zip(self.layers, params, strict=True))

    def out_dim(self, in_dim: int) -> int:
        """Give what the top layer puts out."""
        for layer in self.layers:
            in_dim = out_dim(layer, in_dim)
        return in_dim

    def step(self, params: tuple[Params, ...], state: tuple[State, ...], x: Any) -> tuple[State, Output]:
        """Take one step through all layers."""
        check_step(self, params, state, x)
        states = []
        for layer, p, s in zip(self.layers, params, state, strict=True):
            s, x = need_step(layer, self).step(p, s, x)
            states.append(s)
        return tuple(states), x

    def cross(
        self, run: Run, params: Params, state: State, initial: State, xs: Any, key: jax.Array | None
    ) -> tuple[State, Output]:
        """Cross all of time with one layer after the other."""
        states = []
        keys = split_key(key, len(self.layers))
        for layer, p, s, s_0, k in zip(self.layers, params, state, initial, keys, strict=True):
            s, xs = run(layer, p, s, s_0, xs, k)
            states.append(s)
        return tuple(states), xs


@exportable
class Both(NamedTuple):
    """The params, or the state, of the two directions."""

    forward: Any
    backward: Any


@dataclasses.dataclass(frozen=True)
class Bidirectional(Composite):
    """One cell forward and one backward in time, their outputs side by side: y = [y_forward, y_backward].

    Args:
        forward: the cell that runs forward in time.
        backward: the cell that runs backward; None takes an equal one (with params of its own).

    It has no causal step and so is no cell; `unroll` takes it all the same, within a `Stack` too.

    >>> both = Bidirectional(GRU(4))
    >>> params = both.init(jax.random.key(0), in_dim=3)
    >>> isinstance(both, Cell), both.out_dim(3)
    (False, 8)

    Reference: Schuster and Paliwal, "Bidirectional recurrent neural networks", 1997.
    """

    forward: Any
    backward: Any = None

    def __check_init__(self) -> None:
        """Check the cells."""
        convert(self, forward=part)
        if self.backward is not None:
            convert(self, backward=part)

    @property
    def _cells(self) -> tuple[Any, Any]:
        return self.forward, self.forward if self.backward is None else self.backward

    def init(self, key: jax.Array, in_dim: int) -> Both:
        """Draw the params of both directions."""
        self.out_dim(check_init(self, key, in_dim))
        return Both(*(cell.init(k, in_dim) for cell, k in zip(self._cells, jax.random.split(key), strict=True)))

    def initial_state(self, params: Both, batch: tuple[int, ...] = ()) -> Both:
        """Give the initial states: the backward cell's is the one before the last step."""
        params = Both(None, None) if params is None else params
        return Both(*(cell.initial_state(p, batch) for cell, p in zip(self._cells, params, strict=True)))

    def out_dim(self, in_dim: int) -> int:
        """Give the sum of what both put out."""
        return sum(out_dim(cell, in_dim) for cell in self._cells)

    def cross(
        self, run: Run, params: Params, state: State, initial: State, xs: Any, key: jax.Array | None
    ) -> tuple[State, Output]:
        """Cross time forward, and backward."""
        there, back = self._cells
        k_there, k_back = split_key(key, 2)
        s_there, y_there = run(there, params.forward, state.forward, initial.forward, xs, k_there)
        s_back, y_back = run(back, params.backward, state.backward, initial.backward, xs, k_back, flip=True)
        return Both(s_there, s_back), jnp.concatenate([y_there, y_back], axis=-1)


@dataclasses.dataclass(frozen=True)
class Residual(Composite):
    """y_t = x_t + cell(x_t): the cell puts out as many features as it takes in.

    >>> residual = Residual(GRU(3))
    >>> params = residual.init(jax.random.key(0), in_dim=3)
    >>> residual.step(params, residual.initial_state(params), jnp.ones(3))[1].shape
    (3,)
    """

    cell: Any

    def __check_init__(self) -> None:
        """Check the cell."""
        convert(self, cell=part)

    def init(self, key: jax.Array, in_dim: int) -> Params:
        """Draw the cell's params."""
        self.out_dim(check_init(self, key, in_dim))
        return self.cell.init(key, in_dim)

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """Give the cell's initial state."""
        return self.cell.initial_state(params, batch)

    def out_dim(self, in_dim: int) -> int:
        """Give `in_dim`, which the cell must put out."""
        got = out_dim(self.cell, in_dim)
        if got != in_dim:
            raise ValueError(
                f"Residual adds inputs to outputs: {show(self.cell)} takes {in_dim} features and puts out {got}. Give "
                f"it inputs of {got} features{f', or a cell that puts out {in_dim}' if in_dim else ''}."
            )
        return in_dim

    def step(self, params: Params, state: State, x: jax.Array) -> tuple[State, jax.Array]:
        """Take one step of the cell, and add x."""
        state, y = need_step(self.cell, self).step(params, state, x)
        return state, x.astype(y.dtype) + y

    def cross(
        self, run: Run, params: Params, state: State, initial: State, xs: Any, key: jax.Array | None
    ) -> tuple[State, Output]:
        """Cross time with the cell, and add the inputs."""
        state, ys = run(self.cell, params, state, initial, xs, key)
        return state, xs.astype(ys.dtype) + ys
