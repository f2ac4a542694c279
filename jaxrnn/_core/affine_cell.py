"""Cells whose step is affine in the state, elementwise, so that time can run in parallel.

T time, B batch (any number of leading axes), D input features, H hidden units.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from .autodiff import reverse_only
from .broadcasting import broadcasting
from .checks import check_step
from .fields import Checked, convert, size
from .hooks import forbid
from .masks import StepMasks, zero_padding
from .randomness import draw, no_noise
from .sharding import zeros_like
from .trees import cast, cast_like, float_dtype, where
from .types import Inputs, Key, Output, Params, State

INSTEAD = (
    "override `affine` for another state, `output` for another output; or write a plain cell (init, initial_state, "
    "step) that has this one as a field."
)


@dataclasses.dataclass(frozen=True)
class AffineCell(metaclass=Checked):
    """s_t = a_t * s_{t-1} + b_t, elementwise, where a_t and b_t depend on x_t alone.

    A subclass is a frozen dataclass that defines `init`, `initial_state` and `affine`, and `output` if that is not the
    state itself; it inherits `step` and every driver:

    >>> @dataclasses.dataclass(frozen=True)
    ... class Decay(AffineCell):
    ...     def init(self, key, in_dim): return jnp.full(in_dim, 0.9)
    ...     def initial_state(self, params, batch=()): return jnp.zeros((*batch, len(params)))
    ...     def affine(self, params, x): return jnp.broadcast_to(params, x.shape), x
    >>> cell = Decay()
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params, (2,)), jnp.ones((2, 3)))
    >>> y.shape
    (2, 3)
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse what drivers would ignore."""
        super().__init_subclass__(**kwargs)
        forbid(cls, AffineCell, "step", INSTEAD)

    def __check_init__(self) -> None:
        """Check `hidden`, if the cell has such a field."""
        if "hidden" in type(self).__dataclass_fields__:
            convert(self, hidden=size)

    @abc.abstractmethod
    def init(self, key: Key, in_dim: int) -> Params:
        """Draw the params for inputs of `in_dim` features."""

    @abc.abstractmethod
    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> State:
        """Return the state before the first step, each leaf (*batch, features)."""

    @abc.abstractmethod
    def affine(self, params: Params, x: Inputs) -> tuple[State, State]:
        """Return (a, b), each a tree as the state is, from x (..., D). Any leading axes, time among them.

        A constant may lack leading axes: both are broadcast to those of x and the features of the state.

        A cell with `noise` is handed the tuple (x, noise) in the place of x, here and in `output`.
        """

    noise = no_noise

    def output(self, params: Params, s: State, x: Inputs) -> Output:
        """Return y_t from s_t, here s_t, in the dtype of the params. Any leading axes."""
        return cast(s, float_dtype(params))

    @broadcasting
    def step(self, params: Params, state: State, x: Inputs, *, key: Key | None = None) -> tuple[State, Output]:
        """Return (s_t, y_t) from s_{t-1} and x_t (*batch, D), with the noise of the key."""
        check_step(self, params, state, x)
        if noise := draw(self, key, jax.tree.leaves(x)[0].shape[:-1]):
            x = (x, *noise)
        a, b = self.affine(params, x)
        state = jax.tree.map(lambda a, b, s: a * s + b, cast_like(a, state), cast_like(b, state), state)
        return state, self.output(params, state, x)


SOLVER = "The recurrence of an affine cell under Associative() and Native()"


def shifted(rows: jax.Array, first: jax.Array, reverse: bool) -> jax.Array:
    """Return rows (T, ...) one step later in running order: `first` (...) in front, the last row left out."""
    parts = [rows[1:], first[None]] if reverse else [first[None], rows[:-1]]
    return jnp.concatenate(parts)[: rows.shape[0]]


class Solver(abc.ABC):
    """A way to solve s_t = a_t s_{t-1} + b_t: a frozen value."""

    @abc.abstractmethod
    def __call__(self, a: jax.Array, b: jax.Array, state: jax.Array, reverse: bool) -> jax.Array:
        """Return s_t for every t, (T, ...), from a and b (T, ...) and the state (...) before the first step.

        Where a_t is zero, s_t is b_t, even if s_{t-1} is not finite. It need not be differentiable.
        """

    def shift(self, rows: jax.Array, first: jax.Array, reverse: bool) -> jax.Array:
        """Return rows one step later, across devices if time is split over them."""
        return shifted(rows, first, reverse)

    def initial_state_grad(self, dstate: jax.Array, reverse: bool) -> jax.Array:
        """Return the part of the gradient (...) for the state before the first step that belongs to this device."""
        return dstate


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 4))
def linear_recurrence(solver: Solver, a: jax.Array, b: jax.Array, state: jax.Array, reverse: bool) -> jax.Array:
    """Solve a linear recurrence, with a gradient: the same recurrence in the other direction, by the same solver.

    It keeps a and s, two arrays of (T, ...). Reverse mode of any order; no forward mode.
    """
    return solver(a, b, state, reverse)


def _forward(solver: Solver, a: jax.Array, b: jax.Array, state: jax.Array, reverse: bool) -> tuple[jax.Array, Any]:
    a, b, state = reverse_only((a, b, state), SOLVER)
    states = linear_recurrence(solver, a, b, state, reverse)
    return states, (a, state, states)


def _backward(solver: Solver, reverse: bool, residuals: Any, dstates: jax.Array) -> tuple[jax.Array, ...]:
    a, state, states = residuals
    zeros = zeros_like(state)
    db = linear_recurrence(solver, solver.shift(a, zeros, not reverse), dstates, zeros, not reverse)
    before = solver.shift(states, state, reverse)
    first = -1 if reverse else 0
    return db * before, db, solver.initial_state_grad(a[first] * db[first], reverse) if a.shape[0] else zeros


linear_recurrence.defvjp(_forward, _backward)


def run_affine(
    solver: Solver, cell: AffineCell, params: Params, state: State, xs: Inputs, masks: StepMasks, *, reverse: bool
) -> tuple[State, Output]:
    """Run over time with a solver of the recurrence: a_t and b_t of all steps are computed at once, masks included."""
    length = jax.tree.leaves(xs)[0].shape[0]
    whole = lambda a, s: a if a.ndim > s.ndim else jnp.broadcast_to(a, (length, *s.shape))
    a, b = (jax.tree.map(whole, cast_like(tree, state), state) for tree in cell.affine(params, xs))
    if masks.reset is not None:
        start = jax.tree.map(lambda a, b, i: a * i + b, a, b, masks.reset_state)
        a, b = where(masks.reset, jax.tree.map(jnp.zeros_like, a), a), where(masks.reset, start, b)
    if masks.valid is not None:
        a = where(masks.valid, a, jax.tree.map(jnp.ones_like, a))
        b = where(masks.valid, b, jax.tree.map(jnp.zeros_like, b))
    a, b, state = reverse_only((a, b, state), SOLVER)
    states = jax.tree.map(lambda a, b, s: linear_recurrence(solver, a, b, s, reverse), a, b, state)
    final = jax.tree.map(lambda s, states: states[0 if reverse else -1] if states.shape[0] else s, state, states)
    return final, cell.output(params, zero_padding(states, masks.valid), xs)  # NaN in the padding gets no gradient
