"""`lax.scan` under autodiff: the reference."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..cell import Cell, GatedCell, Marks, Output, Params, State
from .driver import Step, body, gated, steps


@dataclasses.dataclass(frozen=True)
class Remat:
    """Keep the state once a chunk of time and recompute the steps between in the backward pass.

    Args:
        chunk: steps in a chunk; 1 recomputes each step from its own state; None takes about sqrt(T), which keeps
            about 2 sqrt(T) states in all for one more forward pass.

    Reference: Chen et al., "Training deep nets with sublinear memory cost", 2016 (https://arxiv.org/abs/1604.06174).
    """

    chunk: int | None = None

    def __post_init__(self) -> None:
        """Check the chunk."""
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"Remat's chunk is a number of steps, 1 or more, or None; got {self.chunk}")


@dataclasses.dataclass(frozen=True)
class Scan:
    """`lax.scan` over the cell's step, differentiated by JAX: the reference for every other driver.

    It takes any cell and forward mode (`jax.jvp`, `jax.jacfwd`).

    Args:
        unroll: steps in one round of the loop. More costs compile time, and on a CPU often speed.
        hoist: project all inputs by one GEMM before the loop (needs a `GatedCell`); it keeps (T, B, G * H) more.
        remat: what the backward pass recomputes: None (keep everything), `Remat(1)` or `Remat()`.
    """

    unroll: int = 1
    hoist: bool = False
    remat: Remat | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.unroll < 1:
            raise ValueError(f"Scan's unroll is a number of steps, 1 or more; got {self.unroll}")
        if not (self.remat is None or isinstance(self.remat, Remat)):
            raise ValueError(f"Scan's remat is None or a Remat, as in Scan(remat=Remat(8)); got {self.remat!r}")

    def __call__(
        self, cell: Cell, params: Params, state: State, xs: Any, marks: Marks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Cross time with `lax.scan`."""
        step: Step = functools.partial(cell.step, params)
        if self.hoist:
            cell = gated(cell, self)
            step, xs = _hoisted(cell, params), (cell.project(params, xs), xs)
        step = body(step, marks.initial)
        inputs = (xs, marks.valid, marks.fresh)
        if self.remat is None:
            return lax.scan(step, state, inputs, reverse=reverse, unroll=self.unroll)
        return _chunked(step, state, inputs, self.remat.chunk, reverse, self.unroll)


def _hoisted(cell: GatedCell, params: Params) -> Step:
    """The step of `cell` for inputs that are projected already."""
    local = cell.local(params)

    def step(state: State, inputs: tuple[Any, Any]) -> tuple[State, Output]:
        u, x = inputs
        state = cell.advance(local, state, u, cell.recur(params, state))
        return state, cell.output(params, state, x)

    return step


def _chunked(step: Step, state: State, inputs: Any, chunk: int | None, reverse: bool, unroll: int) -> Any:
    """A scan over chunks, each a checkpointed scan over its steps; the steps left over make a last, shorter one."""
    length = steps(inputs)
    chunk = chunk or max(1, _near_root(length))
    whole = length // chunk * chunk

    @jax.checkpoint
    def cross(state: State, rows: Any) -> tuple[State, Output]:
        return lax.scan(step, state, rows, reverse=reverse, unroll=unroll)

    def main(state: State) -> tuple[State, Output]:
        cut = lambda a: a[:whole].reshape(whole // chunk, chunk, *a.shape[1:])
        state, ys = lax.scan(cross, state, jax.tree.map(cut, inputs), reverse=reverse)
        return state, jax.tree.map(lambda y: y.reshape(whole, *y.shape[2:]), ys)

    if whole == length:
        return main(state)
    rest = jax.tree.map(lambda a: a[whole:], inputs)
    if reverse:
        state, tail = cross(state, rest)
        state, ys = main(state)
    else:
        state, ys = main(state)
        state, tail = cross(state, rest)
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, tail)


def _near_root(length: int) -> int:
    """The divisor of `length` within a factor 2 of its root, and nearest to it, or else the root."""
    root = math.isqrt(length)
    divisors = [c for c in range(max(1, root // 2), 2 * root + 1) if length % c == 0]
    return min(divisors, key=lambda c: abs(math.log(c / root)), default=root)
