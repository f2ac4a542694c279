"""Newton's method for a whole trajectory: all steps are linearized at once, and a linear recurrence is solved.

Reference: Lim, Zhu, Selfridge and Kasim, "Parallelizing non-linear sequential models over the sequence length" (DEER),
ICLR 2024 (https://arxiv.org/abs/2309.12252); Gonzalez et al., "Towards scalable and stable parallelization of nonlinear
RNNs" (quasi-DEER, damping), NeurIPS 2024 (https://arxiv.org/abs/2407.19115).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .._core.affine_cell import shifted
from .._core.autodiff import reverse_only
from .._core.broadcasting import broadcasting
from .._core.cell import Cell
from .._core.fields import Checked, convert, instance, integer, number, show
from .._core.live import cut
from .._core.masks import StepMasks
from .._core.sharding import sharded, zeros_like
from .._core.types import Inputs, Output, Params, State
from .driver import num_steps
from .linearized import DiagonalJacobian, FullJacobian, Steps
from .rows import rows_as_batch
from .scan import Scan

DEFAULT_TOLERANCE = {2: 1e-2, 4: 1e-6, 8: 1e-12}
"""By the bytes of a number."""


def _tolerance(given: Any, what: str) -> float | None:
    """Return a tolerance as a float, or None for None; raise ValueError unless it is a finite number of 0 or more."""
    converted = None if given is None else number(given, what)
    if converted is not None and converted < 0:
        raise ValueError(f"{what} must be a number of 0 or more, or None; got {show(given)}")
    return converted


def _fallback(given: Any, what: str) -> Scan | None:
    """Return a fallback; raise ValueError unless it is `Scan()`, with any `unroll`, or None."""
    scan = instance(Scan | None, "Scan() or None")(given, what)
    if scan is not None and (scan.hoist or scan.remat):
        raise ValueError(f"{what} projects all inputs at once and keeps no gradient: Scan(unroll) alone; got {scan}")
    return scan


class Convergence(NamedTuple):
    """How Newton's method converged.

    Attributes:
        states: the trajectory, each leaf (T, *batch, features).
        iterations: how many times all steps were linearized, int32.
        residual: max |s_t - f(s_{t-1}, x_t)| over all steps, relative to max(1, max |s_t|) of its row.
        converged: whether the residual reached the tolerance.
    """

    states: State
    iterations: jax.Array
    residual: jax.Array
    converged: jax.Array


@dataclasses.dataclass(frozen=True)
class Newton(metaclass=Checked):
    """Any cell in parallel over time: s = f(shift(s), x) is solved for all of s at once.

    s^{k+1}_t = f(s^k_{t-1}) + J_t (s^{k+1}_{t-1} - s^k_{t-1}) is a linear recurrence, solved by a parallel scan. The
    gradient is that of the solution (the implicit function theorem): one linear recurrence in the other direction,
    which needs no memory for the iterations. It is for accelerators that a step of `lax.scan` leaves idle: long T and
    few units. On a CPU it is slower than `Scan()`. Over a batch it iterates until every row has converged, each by its
    own residual.

    Args:
        jacobian: `FullJacobian()` or `DiagonalJacobian()`.
        tolerance: the residual to reach; None follows the dtype: 1e-6 in float32, 1e-12 in float64.
        iterations: the maximum number of iterations.
        damping: J is multiplied by 1 - damping, from 0 to 1, where plain iterations diverge; the solution is the same.
        fallback: what runs if the iterations of any row do not converge: `Scan()`, one step after the other (under
            `vmap` over params it always runs too), or None for NaN in the trajectory of that row.

    Reverse mode only, first order only.

    Raises:
        ValueError: for a field of another kind, a state that is not of one floating dtype, and a cell that
            `DiagonalJacobian()` does not take.
    """

    jacobian: FullJacobian | DiagonalJacobian = FullJacobian()
    tolerance: float | None = None
    iterations: int = 64
    damping: float = 0.0
    fallback: Scan | None = Scan()

    def __check_init__(self) -> None:
        """Check the fields."""
        kind = instance(FullJacobian | DiagonalJacobian, "FullJacobian() or DiagonalJacobian()")
        convert(self, jacobian=kind, fallback=_fallback)
        convert(self, tolerance=_tolerance, iterations=integer, damping=number)
        if self.iterations < 1 or not 0 <= self.damping <= 1:
            raise ValueError(
                f"Newton needs iterations >= 1 and a damping from 0 to 1; got {self.iterations}, {self.damping}"
            )

    @rows_as_batch
    def __call__(
        self, cell: Cell, params: Params, state: State, xs: Inputs, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Solve for the trajectory."""
        if any(map(sharded, jax.tree.leaves(params))):
            raise ValueError(f"{self} needs whole params on every device, not sharded ones. Use Scan() or BPTT().")
        return cut(functools.partial(self._solve, cell, reverse), params, state, xs, masks, reverse=reverse)

    def _solve(
        self, cell: Cell, reverse: bool, params: Params, state: State, xs: Inputs, masks: StepMasks
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
        xs: Inputs,
        state: State = None,
        *,
        masks: StepMasks | None = None,
        guess: State = None,
        reverse: bool = False,
    ) -> Convergence:
        """Return the trajectory of a cell and how the iterations converged; no gradient.

        Args:
            cell: a cell, not a composite.
            params: its params.
            xs: inputs (T, *batch, D).
            state: the state before the first step; None takes the cell's own.
            masks: the masks of the steps; None for none.
            guess: a trajectory to start from, each leaf (T, *batch, features), such as the `states` of nearby params;
                None starts from the state before the first step.
            reverse: whether to run from the last step to the first.
        """
        state = cell.initial_state(params, xs.shape[1:-1]) if state is None else state
        steps = Steps.of(cell, state, self.jacobian, self)
        start = None if guess is None else steps.flat(guess)
        states, count, residual = self.solve(steps, reverse, params, steps.flat(state), xs, masks or StepMasks(), start)
        worst = jnp.max(residual, initial=0)
        return Convergence(steps.tree(states), count, worst, worst <= self.tolerance_of(worst.dtype))

    def tolerance_of(self, dtype: Any) -> float:
        """Return the tolerance for a dtype."""
        return DEFAULT_TOLERANCE[dtype.itemsize] if self.tolerance is None else self.tolerance

    def solve(
        self,
        steps: Steps,
        reverse: bool,
        params: Params,
        state: jax.Array,
        xs: Inputs,
        masks: StepMasks,
        guess: Any = None,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return states (T, *batch, N), the number of iterations and the residuals (*batch)."""
        tolerance = self.tolerance_of(state.dtype)
        if guess is None:
            guess = jnp.broadcast_to(state, (num_steps(xs), *state.shape))

        def improve(carry: Any) -> Any:
            states, count, _ = carry
            before = shifted(states, state, reverse)
            after, jacobian = steps.linearized(params, before, xs, masks)
            residual = _largest(states - after) / jnp.maximum(1, _largest(states))
            jacobian = jacobian.scaled(1 - self.damping)
            better = jacobian.solve(after - jacobian(before), state, reverse)
            return jnp.where(jnp.isfinite(better), better, after), count + 1, residual

        def unfinished(carry: Any) -> jax.Array:
            _, count, residual = carry
            return ~(residual <= tolerance).all() & (count < self.iterations)

        first = _largest((state - state)[None]) + jnp.inf
        result: tuple[jax.Array, jax.Array, jax.Array]
        result = lax.while_loop(unfinished, improve, (guess, jnp.zeros((), jnp.int32), first))
        return result


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _trajectory(
    how: Newton,
    steps: Steps,
    reverse: bool,
    params: Params,
    state: jax.Array,
    xs: Inputs,
    row: StepMasks,
    reset_state: State,
) -> jax.Array:
    """Return the state after every step, (T, *batch, N), or that of the fallback."""
    masks = row._replace(reset_state=reset_state)
    states, _, residual = how.solve(steps, reverse, params, state, xs, masks)
    converged = residual <= how.tolerance_of(state.dtype)
    if how.fallback is None:
        return jnp.where(converged[..., None], states, jnp.nan)
    one_by_one = lambda: steps.one_by_one(params, state, xs, masks, reverse, how.fallback.unroll)
    return lax.cond(converged.all(), lambda: states, one_by_one)


@broadcasting
def _forward(how: Newton, steps: Steps, reverse: bool, *arguments: Any) -> tuple[jax.Array, Any]:
    states = _trajectory(how, steps, reverse, *reverse_only(arguments, how))
    return states, (arguments, states)


@broadcasting
def _backward(how: Newton, steps: Steps, reverse: bool, residuals: Any, dstates: jax.Array) -> tuple[Any, ...]:
    (params, state, xs, row, reset_state), states = residuals
    before = shifted(states, state, reverse)
    masks = row._replace(reset_state=reset_state)
    _, jacobian = steps.linearized(params, before, xs, masks)

    def after(params: Params, before: jax.Array, xs: Inputs, reset_state: State) -> jax.Array:
        return steps.all(params, before, xs, row._replace(reset_state=reset_state))[0]

    _, pull = jax.vjp(after, params, before, xs, reset_state)
    zeros = zeros_like(state)
    solve = lambda rest: jacobian.transposed(reverse).solve(rest, zeros, not reverse)
    residual = lambda adjoint: dstates + shifted(pull(adjoint)[1], zeros, not reverse) - adjoint
    fallback = lambda: steps.adjoint_one_by_one(params, before, xs, masks, dstates, reverse)
    adjoint = _refined(how, solve(dstates), residual, solve, fallback)
    dparams, dbefore, dxs, dreset_state = pull(adjoint)
    first = dbefore[-1 if reverse else 0] if len(dbefore) else zeros
    return dparams, first, dxs, jax.tree.map(lambda m: None, row), dreset_state


_trajectory.defvjp(_forward, _backward)


def _refined(
    how: Newton,
    adjoint: jax.Array,
    residual: Callable[[jax.Array], jax.Array],
    solve: Callable[[jax.Array], jax.Array],
    fallback: Callable[[], jax.Array],
) -> jax.Array:
    """Return the adjoint, corrected until its residual is small, or that of the fallback.

    Rounding and an approximate Jacobian leave a residual. With the full Jacobian a correction is seldom needed.
    """
    tolerance = 4 * how.tolerance_of(adjoint.dtype)

    def small(adjoint: jax.Array, left: jax.Array) -> jax.Array:
        return _largest(left) <= tolerance * jnp.maximum(_largest(adjoint), jnp.finfo(adjoint.dtype).tiny)

    def unfinished(carry: Any) -> jax.Array:
        adjoint, left, count = carry
        return ~small(adjoint, left).all() & (count < how.iterations)

    def improve(carry: Any) -> Any:
        adjoint, left, count = carry
        adjoint = adjoint + solve(left)
        return adjoint, residual(adjoint), count + 1

    adjoint, left, _ = lax.while_loop(unfinished, improve, (adjoint, residual(adjoint), jnp.zeros((), jnp.int32)))
    if how.fallback is None:
        return jnp.where(small(adjoint, left)[..., None], adjoint, jnp.nan)
    return lax.cond(small(adjoint, left).all(), lambda: adjoint, fallback)


def _largest(array: jax.Array) -> jax.Array:
    """Return the largest magnitude in each row of (T, *batch, N)."""
    return jnp.max(jnp.abs(array), axis=(0, -1), initial=0)
