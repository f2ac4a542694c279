"""Newton's method for a whole trajectory: every step is linearised at once, and the linear recurrence is solved.

Reference: Lim, Zhu, Selfridge and Kasim, "Parallelizing non-linear sequential models over the sequence length" (DEER),
ICLR 2024 (https://arxiv.org/abs/2309.12252); Gonzalez et al., "Towards scalable and stable parallelization of nonlinear
RNNs" (quasi-DEER, damping), NeurIPS 2024 (https://arxiv.org/abs/2407.19115).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .._core.affine_cell import shifted
from .._core.autodiff import reverse_only
from .._core.broadcasting import broadcasting
from .._core.cell import Cell
from .._core.fields import Checked, convert, integer, number, one_of, show
from .._core.masks import StepMasks
from .._core.sharding import zeros_like
from .._core.types import Output, Params, State
from .linearise import Steps
from .live import cut

TOLERANCE = {2: 1e-2, 4: 1e-6, 8: 1e-12}
"""By the bytes of a number."""


def _tolerance(given: Any, what: str) -> float | None:
    """Return a tolerance as a float, or None for None; raise ValueError unless it is a finite number of 0 or more."""
    converted = None if given is None else number(given, what)
    if converted is not None and converted < 0:
        raise ValueError(f"{what} must be a number of 0 or more, or None; got {show(given)}")
    return converted


class Convergence(NamedTuple):
    """How Newton's method went.

    Attributes:
        states: the trajectory found, each leaf (T, *batch, features).
        iterations: how many times all steps were linearised, int32.
        residual: max |s_t - f(s_{t-1}, x_t)| over all steps, as a share of max(1, max |s_t|).
        converged: whether the residual came down to the tolerance.
    """

    states: State
    iterations: jax.Array
    residual: jax.Array
    converged: jax.Array


@dataclasses.dataclass(frozen=True)
class Newton(metaclass=Checked):
    """Any cell in parallel over time: s = f(shift(s), x) is solved for all of s at once.

    s^{k+1}_t = f(s^k_{t-1}) + J_t (s^{k+1}_{t-1} - s^k_{t-1}), a linear recurrence, by a parallel scan. The gradient is
    that of the solution (the implicit function theorem): one reverse linear recurrence, whatever the iterations were,
    and no memory for them. For an accelerator that a step of `lax.scan` leaves idle, long T and few units; on a CPU it
    is slower than `Scan()`. Over a batch it goes on until every row has converged.

    Args:
        jacobian: "full", J (N, N) for all N numbers of the state: T * batch * N^2 numbers, for N up to about 64; or
            "diagonal", what each unit hears of itself (for a state of S arrays S x S numbers a unit), of a `GatedCell`:
            exact for a `Diagonal()` recurrence, and else (quasi-DEER) more iterations, each much cheaper.
        tolerance: the residual that is small enough; None follows the dtype: 1e-6 in float32, 1e-12 in float64.
        iterations: the most there may be.
        damping: what J is made smaller by, 0 to 1, where plain iterations diverge; the solution stays the same.
        otherwise: what is given if it does not converge: "scan" crosses one step after the other (under `vmap` it
            always does, beside), "nan" gives NaN.

    Reverse mode only, first order only.

    Raises:
        ValueError: for a field that is none of these, a state that is not all of one floating dtype, or "diagonal" with
            a cell that is no `GatedCell`.
    """

    jacobian: str = "full"
    tolerance: float | None = None
    iterations: int = 64
    damping: float = 0.0
    otherwise: str = "scan"

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, jacobian=one_of("full", "diagonal"), otherwise=one_of("scan", "nan"))
        convert(self, tolerance=_tolerance, iterations=integer, damping=number)
        if self.iterations < 1 or not 0 <= self.damping <= 1:
            raise ValueError(
                f"Newton needs iterations >= 1 and a damping from 0 to 1; got {self.iterations}, {self.damping}"
            )

    def __call__(
        self, cell: Cell, params: Params, state: State, xs: Any, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Cross time."""
        return cut(functools.partial(self._solve, cell, reverse), params, state, xs, masks, reverse=reverse)

    def _solve(
        self, cell: Cell, reverse: bool, params: Params, state: State, xs: Any, masks: StepMasks
    ) -> tuple[State, Output]:
        """Return what `__call__` does; every step takes part in its gradient."""
        params, state, xs, masks = reverse_only((params, state, xs, masks), self)
        steps = Steps.of(cell, state, self.jacobian, self)
        row = masks._replace(reset_state=None)
        states = _trajectory(self, steps, reverse, params, steps.flat(state), xs, row, masks.reset_state)
        before = shifted(states, steps.flat(state), reverse)
        _, ys = steps.all(params, before, xs, masks)
        final = steps.flat(state) if len(states) == 0 else states[0 if reverse else -1]
        return steps.tree(final), ys

    def converge(
        self,
        cell: Cell,
        params: Params,
        xs: Any,
        state: State = None,
        *,
        masks: StepMasks | None = None,
        guess: State = None,
        reverse: bool = False,
    ) -> Convergence:
        """Say how it goes for a leaf cell; no gradient.

        Args:
            cell: the cell.
            params: its params.
            xs: inputs (T, *batch, D).
            state: before the first step; None takes the cell's own.
            masks: what is known of every step besides; None is nothing.
            guess: a trajectory to begin with, each leaf (T, *batch, features), such as the `states` found for params
                nearby; None begins with the state before the first step.
            reverse: cross from the last step to the first.
        """
        state = cell.initial_state(params, xs.shape[1:-1]) if state is None else state
        steps = Steps.of(cell, state, self.jacobian, self)
        start = None if guess is None else steps.flat(guess)
        states, *how = self.solve(steps, reverse, params, steps.flat(state), xs, masks or StepMasks(), start)
        return Convergence(steps.tree(states), *how)

    def enough(self, dtype: Any) -> float:
        """Give the tolerance in a dtype."""
        return TOLERANCE[dtype.itemsize] if self.tolerance is None else self.tolerance

    def solve(
        self,
        steps: Steps,
        reverse: bool,
        params: Params,
        state: jax.Array,
        xs: Any,
        masks: StepMasks,
        guess: Any = None,
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Iterate: states (T, *batch, N), how many iterations, the residual, and whether that is small enough."""
        tolerance = self.enough(state.dtype)
        if guess is None:
            time = jax.tree.leaves(xs)[0].shape[0]
            guess = jnp.broadcast_to(state, (time, *state.shape))

        def improve(carry: Any) -> Any:
            states, count, _ = carry
            before = shifted(states, state, reverse)
            after, jacobian = steps.linearised(params, before, xs, masks)
            residual = _largest(states - after) / jnp.maximum(1, _largest(states))
            jacobian = jacobian.scaled(1 - self.damping)
            better = jacobian.solve(after - jacobian(before), state, reverse)
            return jnp.where(jnp.isfinite(better), better, after), count + 1, residual

        def goes_on(carry: Any) -> jax.Array:
            _, count, residual = carry
            return ~(residual <= tolerance) & (count < self.iterations)

        worst = _largest(state - state) + jnp.inf
        states, count, residual = lax.while_loop(goes_on, improve, (guess, jnp.zeros((), jnp.int32), worst))
        return states, count, residual, residual <= tolerance


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _trajectory(
    how: Newton, steps: Steps, reverse: bool, params: Params, state: jax.Array, xs: Any, row: StepMasks, initial: State
) -> jax.Array:
    """Give the state after every step, (T, *batch, N), or what is given otherwise."""
    masks = row._replace(reset_state=initial)
    states, _, _, converged = how.solve(steps, reverse, params, state, xs, masks)
    if how.otherwise == "nan":
        return jnp.where(converged, states, jnp.nan)
    return lax.cond(converged, lambda: states, lambda: steps.one_by_one(params, state, xs, masks, reverse))


@broadcasting
def _forward(how: Newton, steps: Steps, reverse: bool, *arguments: Any) -> tuple[jax.Array, Any]:
    states = _trajectory(how, steps, reverse, *reverse_only(arguments, how))
    return states, (arguments, states)


@broadcasting
def _backward(how: Newton, steps: Steps, reverse: bool, residuals: Any, dstates: jax.Array) -> tuple[Any, ...]:
    (params, state, xs, row, initial), states = residuals
    before = shifted(states, state, reverse)
    masks = row._replace(reset_state=initial)
    _, jacobian = steps.linearised(params, before, xs, masks)

    def after(params: Params, before: jax.Array, xs: Any, initial: State) -> jax.Array:
        return steps.all(params, before, xs, row._replace(reset_state=initial))[0]

    _, pull = jax.vjp(after, params, before, xs, initial)
    none = zeros_like(state)
    solve = lambda rest: jacobian.transposed(reverse).solve(rest, none, not reverse)
    rest = lambda adjoint: dstates + shifted(pull(adjoint)[1], none, not reverse) - adjoint
    otherwise = lambda: steps.back_one_by_one(params, before, xs, masks, dstates, reverse)
    adjoint = _refined(how, solve(dstates), rest, solve, otherwise)
    dparams, dbefore, dxs, dinitial = pull(adjoint)
    first = dbefore[-1 if reverse else 0] if len(dbefore) else none
    return dparams, first, dxs, jax.tree.map(lambda m: None, row), dinitial


_trajectory.defvjp(_forward, _backward)


def _refined(how: Newton, adjoint: jax.Array, rest: Any, solve: Any, otherwise: Any) -> jax.Array:
    """Correct what rounding or an approximate Jacobian left, until it is small; or give what is given otherwise.

    What the full Jacobian gave is seldom to be corrected: that is the one linear recurrence.
    """
    tolerance = 4 * how.enough(adjoint.dtype)

    def small(adjoint: jax.Array, left: jax.Array) -> jax.Array:
        return _largest(left) <= tolerance * jnp.maximum(_largest(adjoint), jnp.finfo(adjoint.dtype).tiny)

    def goes_on(carry: Any) -> jax.Array:
        adjoint, left, count = carry
        return ~small(adjoint, left) & (count < how.iterations)

    def improve(carry: Any) -> Any:
        adjoint, left, count = carry
        adjoint = adjoint + solve(left)
        return adjoint, rest(adjoint), count + 1

    adjoint, left, _ = lax.while_loop(goes_on, improve, (adjoint, rest(adjoint), jnp.zeros((), jnp.int32)))
    if how.otherwise == "nan":
        return jnp.where(small(adjoint, left), adjoint, jnp.nan)
    return lax.cond(small(adjoint, left), lambda: adjoint, otherwise)


def _largest(array: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(array), initial=0)
