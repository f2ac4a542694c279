"""`vmap` of a driver over rows that share their weights: a larger batch, before the call is differentiated.

JAX maps the backward pass of a `custom_vjp`, and sums what it returns: a gradient of all weights for every row. Here
the call of a driver is one primitive. Under `vmap` it becomes the same call with one more batch axis, so a gradient
taken around the `vmap` is that of a batch. A gradient taken inside the `vmap`, one for each row, differentiates the
call first; so it is JAX's own, as it is under `vmap` over weights.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from .._core.broadcasting import broadcasting
from .._core.cell import Cell
from .._core.context import takes_context
from .._core.masks import StepMasks
from .._core.row_cells import over_rows
from .._core.types import Inputs, Output, Params, State

DriverCall = Callable[..., tuple[State, Output]]
"""The `__call__` of a driver."""

Fits = Callable[[Any, Cell, Params, State, Inputs], bool]
"""From a driver, a cell, its params, a state and inputs to whether the driver takes a batch of that size."""


def rows_as_batch(call: DriverCall, *, fits: Fits | None = None) -> DriverCall:
    """Decorate the `__call__` of a driver: `vmap` over rows with shared weights runs it on a larger batch.

    Args:
        call: the method; it takes any number of batch axes.
        fits: whether the driver takes a larger batch; None for any size.
    """

    @functools.wraps(call)
    def with_rule(
        driver: Any, cell: Cell, params: Params, state: State, xs: Inputs, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
        return _bind(Run(call, fits, driver, cell, reverse, precision), params, state, xs, masks)

    return with_rule


@dataclasses.dataclass(frozen=True)
class Run:
    """The call of a driver, with all but its arrays. `precision` is the default of matmuls where it was called."""

    call: DriverCall
    fits: Fits | None
    driver: Any
    cell: Cell
    reverse: bool
    precision: str | None

    @broadcasting
    def __call__(self, params: Params, state: State, xs: Inputs, masks: StepMasks) -> tuple[State, Output]:
        """Run the cell over time."""
        with jax.default_matmul_precision(self.precision):
            return self.call(self.driver, self.cell, params, state, xs, masks, reverse=self.reverse)

    def over_rows(self) -> Run:
        """Return the run with one more batch axis."""
        return dataclasses.replace(self, cell=over_rows(self.cell))

    def may_widen(self, xs: Inputs) -> bool:
        """Return whether rows may be a batch: not with a context, whose batch axes its cell alone knows, or with keys.

        A key would draw the noise of the whole batch, where `vmap` draws that of a row.
        """
        is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return not takes_context(self.cell) and not any(map(is_key, jax.tree.leaves(xs)))

    def takes(self, params: Params, state: State, xs: Inputs) -> bool:
        """Return whether the driver takes a batch of this size."""
        return self.fits is None or self.fits(self.driver, self.cell, params, state, xs)


def _bind(run: Run, *operands: Any) -> tuple[State, Output]:
    """Return `run(*operands)`, as one primitive where a transformation may reach it.

    A call with effects, such as collectives and callbacks, is no primitive.
    """
    leaves, form = jax.tree.flatten(operands)
    if not any(isinstance(leaf, Tracer) for leaf in leaves) or not run.may_widen(operands[2]):
        return run(*operands)
    traced, out = jax.make_jaxpr(lambda *operands: run(*operands), return_shape=True)(*operands)
    if traced.effects or any(isinstance(const, Tracer) for const in traced.consts):
        results = jaxpr_as_fun(traced)(*leaves)
    else:
        results = _run_p.bind(*leaves, traced=traced, run=run, form=form)
    outputs: tuple[State, Output] = jax.tree.unflatten(jax.tree.structure(out), results)
    return outputs


def _jvp(primals: Any, tangents: Any, *, traced: Any, **_: Any) -> Any:
    """Differentiate the call itself, for the arguments that have tangents alone."""
    moving = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, ad.Zero)]

    def call(*given: Any) -> Any:
        arrays = dict(enumerate(primals)) | dict(zip(moving, given, strict=True))
        return jaxpr_as_fun(traced)(*arrays.values())

    return jax.jvp(call, [primals[i] for i in moving], [tangents[i] for i in moving])


UNMAPPED = -1
"""The mapped axis of an array that has none."""


@broadcasting
def _batched(arrays: Any, axes: Any, *, traced: Any, run: Run, form: Any) -> Any:
    """Map the call over rows: one more batch axis where they share their weights, else JAX's own rules."""
    size = next(a.shape[i] for a, i in zip(arrays, axes, strict=True) if i is not None)
    params, state, xs, masks = jax.tree.unflatten(form, [UNMAPPED if i is None else i for i in axes])
    shared = all(i == UNMAPPED for i in jax.tree.leaves(params)) and not any(map(_mesh_axis, arrays, axes))
    if shared:
        move = lambda axis: functools.partial(_move, size=size, to=axis)
        given = jax.tree.unflatten(form, arrays)
        params = given[0]
        state = jax.tree.map(move(0), given[1], state)
        xs = jax.tree.map(move(1), given[2], xs)
        masks = StepMasks(*(jax.tree.map(move(i), a, m) for i, a, m in zip((1, 1, 0), given[3], masks, strict=True)))
        wide = run.over_rows()
        if wide.takes(params, state, xs):
            final, ys = (jax.tree.leaves(tree) for tree in _bind(wide, params, state, xs, masks))
            return [*final, *ys], [0] * len(final) + [1] * len(ys)
    out = jax.vmap(jaxpr_as_fun(traced), in_axes=axes, axis_size=size)(*arrays)
    return out, [0] * len(out)


def _move(array: jax.Array, mapped: int, size: int, to: int) -> jax.Array:
    """Return the array with its mapped axis at `to`; one that is not mapped is repeated along it."""
    if mapped != UNMAPPED:
        return jnp.moveaxis(array, mapped, to)
    array = jnp.expand_dims(array, to)
    return jnp.broadcast_to(array, (*array.shape[:to], size, *array.shape[to + 1 :]))


def _mesh_axis(array: jax.Array, axis: int | None) -> Any:
    """Return what the mapped axis is sharded over, of the explicit axes of a mesh: JAX hides them from this rule."""
    return None if axis is None else jax.typeof(array).sharding.spec[axis]


_run_p = Primitive("jaxrnn_run")
_run_p.multiple_results = True
_run_p.def_impl(lambda *arrays, traced, **_: jaxpr_as_fun(traced)(*arrays))
_run_p.def_abstract_eval(lambda *_, traced, **__: traced.out_avals)
ad.primitive_jvps[_run_p] = _jvp
batching.primitive_batchers[_run_p] = _batched
mlir.register_lowering(
    _run_p,
    mlir.lower_fun(lambda *arrays, traced, **_: jaxpr_as_fun(traced)(*arrays), multiple_results=True),
)
