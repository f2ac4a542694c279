"""`lax.scan` under autodiff: the reference."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
from jax import lax

from .._core.cell import Cell, GatedCell
from .._core.fields import Checked, convert, count, instance, size, size_or_none
from .._core.live import cut
from .._core.masks import StepMasks
from .._core.types import Inputs, Output, Params, State
from .driver import Step, masked_step, need_gated, num_steps, scan_chunks
from .rows import rows_as_batch


@dataclasses.dataclass(frozen=True)
class Remat(metaclass=Checked):
    """Keep the state once a chunk of time and recompute the steps between in the backward pass.

    Args:
        chunk: steps in a chunk; 1 recomputes each step from its own state; None takes about sqrt(T), which keeps
            about 2 sqrt(T) states in all for one more forward pass.

    Reference: Chen et al., "Training deep nets with sublinear memory cost", 2016 (https://arxiv.org/abs/1604.06174).
    """

    chunk: int | None = None

    def __check_init__(self) -> None:
        """Check the chunk."""
        convert(self, chunk=size_or_none)


@dataclasses.dataclass(frozen=True)
class Scan(metaclass=Checked):
    """`lax.scan` over the cell's step, differentiated by JAX: the reference for every other driver.

    It takes any cell and forward mode (`jax.jvp`, `jax.jacfwd`). With resets a gradient costs one more forward pass.

    Args:
        unroll: steps in one iteration of the loop. More costs compile time, and on a CPU often speed.
        hoist: steps whose inputs are projected by one GEMM before the loop over them (needs a `GatedCell`); 0 projects
            the inputs of every step inside the loop. On a CPU it pays for small batches.
        remat: what the backward pass recomputes: None (keep everything), `Remat(1)` or `Remat()`.
    """

    unroll: int = 1
    hoist: int = 0
    remat: Remat | None = None

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(
            self, unroll=size, hoist=count, remat=instance(Remat | None, "Remat(8) in Scan(remat=Remat(8)), or None")
        )

    def __call__(
        self, cell: Cell, params: Params, state: State, xs: Inputs, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Run `lax.scan` over all steps."""
        run = self._scan if masks.reset is None else self._cut
        return run(cell, params, state, xs, masks, reverse=reverse)

    @rows_as_batch
    def _cut(
        self, cell: Cell, params: Params, state: State, xs: Inputs, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Return what `__call__` does, where there are resets."""
        return cut(functools.partial(self._scan, cell, reverse=reverse), params, state, xs, masks, reverse=reverse)

    def _scan(
        self, cell: Cell, params: Params, state: State, xs: Inputs, masks: StepMasks, *, reverse: bool
    ) -> tuple[State, Output]:
        """Return what `__call__` does; its gradient is JAX's own."""
        if self.hoist:
            run = self._hoisting(need_gated(cell, self), params, masks.reset_state, reverse)
        else:
            run = self._over(functools.partial(cell.step, params), masks.reset_state, reverse)
        inputs = (xs, masks.valid, masks.reset)
        if self.remat is None:
            return run(state, inputs)
        chunk = self.remat.chunk or max(1, _near_root(num_steps(inputs)))
        return scan_chunks(jax.checkpoint(run), state, inputs, chunk, reverse)

    def _over(self, step: Step, reset_state: State, reverse: bool) -> Step:
        """Return the scan of `step` over rows of inputs."""
        masked = masked_step(step, reset_state)
        return lambda state, rows: lax.scan(masked, state, rows, reverse=reverse, unroll=self.unroll)

    def _hoisting(self, cell: GatedCell, params: Params, reset_state: State, reverse: bool) -> Step:
        """Return the scan over rows of inputs, those of `hoist` steps projected at once."""
        local = cell.local(params)

        def step(state: State, inputs: tuple[Inputs, Inputs]) -> tuple[State, Output]:
            u, x = inputs
            state = cell.advance(local, state, u, cell.recur(params, state))
            return state, cell.output(params, state, x)

        over = self._over(step, reset_state, reverse)

        def project(state: State, rows: tuple[Inputs, jax.Array | None, jax.Array | None]) -> tuple[State, Output]:
            xs, *masks = rows
            return over(state, ((cell.project(params, xs), xs), *masks))

        return lambda state, rows: scan_chunks(project, state, rows, self.hoist, reverse)


def _near_root(length: int) -> int:
    """Return the divisor of `length` nearest to its root, if one lies within a factor 2 of it, else the root."""
    root = math.isqrt(length)
    divisors = [c for c in range(max(1, root // 2), 2 * root + 1) if length % c == 0]
    return min(divisors, key=lambda c: abs(math.log(c / root)), default=root)
