"""`unroll`: the checks, the padding, and the runner that a composite is handed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from ._core import checks
from ._core.broadcasting import broadcasting
from ._core.cell import Cell
from ._core.composite import Composite, check_is_composite
from ._core.context import with_context
from ._core.masks import StepMasks, length_mask, reset_boundaries, zero_padding
from ._core.noise import with_noise
from ._core.randomness import sequence_and_step_keys, split
from ._core.sharding import lift, sharded
from ._core.trees import cast
from ._core.types import Context, Inputs, Key, Output, Params, State
from ._drivers import Driver, Loop
from ._drivers.driver import SplitsTime
from ._drivers.rows import rows_as_batch
from ._select import select

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Int


class UnrollOptions(TypedDict, total=False):
    """The keywords of `unroll` that models and modules pass on."""

    state: State
    mask: Bool[ArrayLike, T * batch] | None
    resets: Bool[ArrayLike, T * batch] | None
    reverse: bool
    context: Context
    key: Key | None
    state_dtype: DTypeLike | None
    driver: Driver | None


@broadcasting
def unroll(
    cell: Cell | Composite,
    params: Params,
    xs: Inputs,
    state: State = None,
    *,
    lengths: Int[ArrayLike, "*batch"] | Sequence[int] | None = None,
    mask: Bool[ArrayLike, T * batch] | None = None,
    resets: Bool[ArrayLike, T * batch] | None = None,
    reverse: bool = False,
    context: Context = None,
    key: Key | None = None,
    state_dtype: DTypeLike | None = None,
    driver: Driver | None = None,
) -> tuple[State, Output]:
    """Run a cell or a composite over time, in the order of `lax.scan`, with time as the first axis.

    Args:
        cell: a `Cell`, or a composite such as `Stack` and `Bidirectional`.
        params: from `cell.init(key, in_dim)`. They decide the dtype of matmuls and outputs; xs are cast to it.
        xs: inputs (T, *batch, D), any number of batch axes, none included; or a pytree of such arrays.
        state: the state before the first step, each leaf (*batch, ...); None takes `cell.initial_state(params, batch)`.
        lengths: integers (*batch): step t of row b is valid where t < lengths[b]. Past it the state is held, the
            output is zero, and nothing in the padding reaches an output or a gradient (of a cell that is
            differentiable at an input of zeros). Length 0 returns the state handed in. NumPy arrays and lists are
            checked to lie between 0 and T; values on a device are not.
        mask: booleans (T, *batch): a step where it is false holds the state, yields zeros, and is padding in every
            other way: padding on the left, or gaps. With `lengths`, a step is valid where both say so.
        resets: booleans, or numbers 0 and 1, (T, *batch): true at t is a boundary between t - 1 and t, where the
            state becomes `cell.initial_state(params)` whatever it was, before x_t is consumed. With `reverse` the same
            boundary holds between the same two steps. A boundary inside a gap of `mask` takes effect at the next valid
            step. Nothing before a boundary reaches a gradient of what comes after it, NaN included. Numbers on a
            device are not checked: all but 0 are true.
        reverse: run from the last step to the first; the output of step t stays at t.
        context: what is constant over time, for every cell in it that takes a context (`with_context`): an array or a
            pytree, such as (memory, memory_mask). Its gradient is kept once, not once a step.
        key: what noise, dropout and zoneout are drawn from; None is deterministic.
        state_dtype: the dtype that the state is kept in, if not its own: `jnp.float32` for a bfloat16 run.
        driver: how to run over time; None asks `select` for each innermost cell.

    Returns:
        The state after the last step, and the outputs (T, *batch, H): those of `cell.step` at every step.

    Raises:
        ValueError: if shapes, dtypes or structures do not fit; it says which, and how to mend it.

    >>> cell = LSTM(8)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, ys = unroll(cell, params, jnp.ones((10, 2, 3)), lengths=jnp.array([10, 4]))
    >>> state.h.shape, ys.shape
    ((2, 8), (10, 2, 8))
    """
    checks.check_cell(cell, Cell | Composite, "unroll")
    check_is_composite(cell)
    checks.check_driver(driver)
    checks.check_key(key)
    checks.check_context(cell, context)
    num_steps, batch = checks.check_inputs(xs)
    named = {"xs": xs, "params": params, "state": state, "context": context}
    xs, params, state, context = (checks.as_numbers(name, tree) for name, tree in named.items())
    flags = (checks.as_flags(*pair, num_steps, batch) for pair in (("mask", mask), ("resets", resets)))
    masks = (checks.as_lengths(lengths, num_steps, batch), *flags)
    dtype = checks.float_kind("state_dtype", state_dtype)
    run = _run if isinstance(driver, Loop) else _compiled
    return run(cell, params, xs, state, masks, context, key, batch, bool(reverse), dtype, driver)


def _run(
    cell: Cell | Composite,
    params: Params,
    xs: Inputs,
    state: State,
    masks: tuple[ArrayLike | None, ArrayLike | None, ArrayLike | None],
    context: Context,
    key: Key | None,
    batch: tuple[int, ...],
    reverse: bool,
    state_dtype: jnp.dtype | None,
    driver: Driver | None,
) -> tuple[State, Output]:
    """Return what `unroll` does, for arguments that are checked."""
    xs, params = jax.tree.map(jnp.asarray, (xs, params))
    num_steps = jax.tree.leaves(xs)[0].shape[0]
    lengths, mask, resets = (None if m is None else jnp.asarray(m) for m in masks)
    valid = None if lengths is None else length_mask(lengths, num_steps)
    if mask is not None:
        valid = mask if valid is None else valid & mask
    xs = zero_padding(xs, valid)
    checks.check_params(cell, params, jax.tree.leaves(xs)[0].shape[-1])
    params = with_context(cell, params, context)
    reset_state = cast(cell.initial_state(params, batch), state_dtype)
    if state is None:
        state = reset_state
    else:
        state = jax.tree.map(jnp.asarray, state)
        checks.check_state(cell, batch, state, reset_state)
        state = cast(state, state_dtype)
    reset_state = jax.tree.map(lambda r, s: r.astype(s.dtype), reset_state, state)
    runner = _Runner(valid, mask is not None, resets, batch, reverse, driver)
    if key is not None:
        key, later = sequence_and_step_keys(key)
        runner = dataclasses.replace(runner, key=key, step_keys=_step_keys(later, num_steps, driver))
    state, ys = runner(cell, params, state, reset_state, xs)
    return state, zero_padding(ys, valid) if isinstance(cell, Composite) else ys


def _step_keys(key: Key, num_steps: int, driver: Driver | None) -> Key:
    """Return the keys (T,) of the steps; where time is split over devices, those of this device's part."""
    axis = _axis(driver)
    if axis is None:
        return jax.random.split(key, num_steps)
    keys = jax.random.split(key, num_steps * jax.lax.axis_size(axis))
    return jax.lax.dynamic_slice_in_dim(keys, jax.lax.axis_index(axis) * num_steps, num_steps)


def _axis(driver: Driver | None) -> str | None:
    """Return the axis of a mesh that a driver splits time over; None if it does not."""
    return driver.axis if isinstance(driver, SplitsTime) else None


_compiled = jax.jit(_run, static_argnames=("cell", "batch", "reverse", "state_dtype", "driver"))


@dataclasses.dataclass(frozen=True)
class _Runner:
    """What one call of `unroll` knows of its steps; it runs a part of a composite, or a cell by a driver.

    Attributes:
        valid: (T, *batch) bool, false in the padding; None where there is none.
        gaps: whether padding may lie anywhere; false where it only follows the valid steps of a row.
        resets: (T, *batch) bool; None where there are none.
        batch: the batch axes.
        reverse: whether to run from the last step to the first.
        driver: how to run over time; None asks `select`.
        key: for what is drawn once a sequence.
        step_keys: (T,), for what is drawn at every step.
    """

    valid: Bool[Array, T * batch] | None
    gaps: bool
    resets: Bool[Array, T * batch] | None
    batch: tuple[int, ...]
    reverse: bool
    driver: Driver | None
    key: Key | None = None
    step_keys: Key | None = None

    def __call__(
        self, cell: Cell | Composite, params: Params, state: State, reset_state: State, xs: Inputs
    ) -> tuple[State, Output]:
        """Return the state after the last step and the outputs."""
        if isinstance(cell, Composite):
            return cell.unroll(self, params, state, reset_state, xs)
        cell, xs = with_noise(cell, xs, self.step_keys, self.batch)
        params, state, reset_state = lift((params, state, reset_state), xs, len(self.batch))
        masks = StepMasks(self.valid)
        if self.resets is not None:
            masks = StepMasks(self.valid, reset_boundaries(self.resets, self.valid, self.reverse), reset_state)
        with jax.named_scope(type(cell).__name__):
            driver = self.driver or _Selected()
            state, ys = driver(cell, params, state, xs, masks, reverse=self.reverse)
        return state, zero_padding(ys, self.valid)

    @property
    def axis(self) -> str | None:
        """The axis of a mesh that time is split over."""
        return _axis(self.driver)

    def split(self, num_parts: int) -> list[_Runner]:
        """Return a runner for each part, with its own keys."""
        keys = zip(split(self.key, num_parts), split(self.step_keys, num_parts), strict=True)
        return [dataclasses.replace(self, key=key, step_keys=step_keys) for key, step_keys in keys]

    def reversed(self) -> _Runner:
        """Return a runner in the other direction."""
        return dataclasses.replace(self, reverse=not self.reverse)


@dataclasses.dataclass(frozen=True)
class _Selected:
    """The driver that `select` chooses; under `vmap` over rows with shared weights it chooses for all rows together."""

    @rows_as_batch
    def __call__(
        self, cell: Cell, params: Params, state: State, xs: Inputs, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Run the cell over time."""
        dtypes = {a.dtype for a in jax.tree.leaves(params)}
        whole = not any(map(sharded, jax.tree.leaves(params)))  # no kernel takes sharded weights
        dtype = dtypes.pop() if len(dtypes) == 1 and whole else None
        resets = masks.reset is not None
        driver = select(cell, jax.tree.leaves(xs)[0].shape, dtype, jax.default_backend(), state, resets=resets)
        return driver(cell, params, state, xs, masks, reverse=reverse)
