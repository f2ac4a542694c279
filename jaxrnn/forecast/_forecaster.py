"""What forecasters share: a cell, a scaling and a head, and the run over the past.

T time, B batch (any number of leading axes), N steps of the forecast, K targets, F outputs for each.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .._core.cell import Cell
from .._core.checks import as_numbers, check_cell
from .._core.composite import Composite, out_dim
from .._core.exportable import exportable
from .._core.fields import Checked, check_init_key, convert, count, instance, size
from .._core.types import Context, Key, Params, State
from .._drivers import Driver
from .._unroll import unroll
from ..model import ReadoutParams, init_readout, last, readout
from ._head import Head
from ._scaling import Scale, Scaling, valid_steps

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int


@exportable
class ForecasterParams(NamedTuple):
    """The params of a forecaster.

    Attributes:
        cell: those of the cell.
        readout: from the outputs of the cell to those of the head.
        static: for each leaf (...) of the initial state, weights (S, ...) of the static covariates; () without them.
    """

    cell: Params
    readout: ReadoutParams
    static: State = ()


class Forecast(NamedTuple):
    """What a head takes: the outputs of the network, and the scale of each series (None for none)."""

    outputs: Float[Array, "N *batch K F"]
    scale: Scale | None


class PastOptions(TypedDict, total=False):
    """What is known of the past next to its numbers: the static covariates, and keywords of `unroll`."""

    static: Float[ArrayLike, "*batch S"] | None
    lengths: Int[ArrayLike, "*batch"] | None
    mask: Bool[ArrayLike, T * batch] | None
    context: Context
    driver: Driver | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecaster(metaclass=Checked):
    """The base of both forecasters. Its methods are for them: users call `init`, the forecaster, `sample_paths`."""

    cell: Cell | Composite
    head: Head
    targets: int = 1
    static: int = 0
    scaling: Scaling | None = None

    def __check_init__(self) -> None:
        """Check the fields."""
        check_cell(self.cell, Cell | Composite, type(self).__name__)
        convert(self, head=instance(Head, "Gaussian()"), targets=size, static=count)
        convert(self, scaling=instance(Scaling | None, "MeanScaling(), or None"))

    def draw_params(self, key: Key, in_dim: int, steps: int) -> ForecasterParams:
        """Draw the params of a readout of `steps` steps."""
        check_init_key(key, "init(jax.random.key(0), in_dim=3)")
        if size(in_dim, "in_dim") < self.targets:
            raise ValueError(
                f"the first features of xs are the {self.targets} targets, so in_dim is at least that; got {in_dim}"
            )
        return _draw(self, key, in_dim, steps)

    def _initial_state(self, params: ForecasterParams, batch: tuple[int, ...], static: ArrayLike | None) -> State:
        """Return the state before the first step: that of the cell, and what the static covariates add."""
        covariates = jnp.zeros((*batch, 0)) if static is None else jnp.asarray(as_numbers("static", static))
        if covariates.shape != (*batch, self.static):
            got = None if static is None else covariates.shape
            raise ValueError(f"static must be the static covariates {(*batch, self.static)} of each series; got {got}")
        state = self.cell.initial_state(params.cell, batch)
        if not self.static:
            return state
        return jax.tree.map(lambda s, w: s + jnp.tensordot(covariates.astype(w.dtype), w, 1), state, params.static)

    def run(
        self, params: ForecasterParams, xs: jax.Array, scale: Scale | None, options: PastOptions, key: Key | None
    ) -> tuple[Scale | None, State, jax.Array]:
        """Return the scale, the state after the past xs (T, *batch, D), and the outputs of the cell (T, *batch, H)."""
        xs, _ = valid_steps(xs, options.get("lengths"), options.get("mask"))
        if xs.shape[-1] < self.targets:
            raise ValueError(f"xs are (T, *batch, D), with D of at least {self.targets} targets; got {xs.shape}")
        if scale is None and self.scaling is not None:
            scale = self.scaling(xs[..., : self.targets], options.get("lengths"), options.get("mask"))
        state, ys = unroll(
            self.cell,
            params.cell,
            self.inputs(xs, scale),
            self._initial_state(params, xs.shape[1:-1], options.get("static")),
            lengths=options.get("lengths"),
            mask=options.get("mask"),
            context=options.get("context"),
            driver=options.get("driver"),
            key=key,
        )
        return scale, state, ys

    def inputs(self, xs: jax.Array, scale: Scale | None) -> jax.Array:
        """Return the inputs of the cell: the targets normalized, the covariates as they are."""
        if scale is None:
            return xs
        return jnp.concatenate([scale.normalize(xs[..., : self.targets]), xs[..., self.targets :]], axis=-1)

    def outputs(self, params: ForecasterParams, ys: jax.Array, *steps: int) -> jax.Array:
        """Return the outputs (*batch, *steps, K, F) of the head."""
        return readout(params.readout, ys).reshape(*ys.shape[:-1], *steps, self.targets, self.head.features)


@functools.partial(jax.jit, static_argnums=(0, 2, 3))  # one program, where eager draws would compile a dozen
def _draw(forecaster: Forecaster, key: Key, in_dim: int, steps: int) -> ForecasterParams:
    """Draw the params of a readout of `steps` steps; the static weights have variance 1 / S."""
    k_cell, k_readout, k_static = jax.random.split(key, 3)
    params = forecaster.cell.init(k_cell, in_dim)
    outputs = steps * forecaster.targets * forecaster.head.features
    linear = init_readout(k_readout, out_dim(forecaster.cell, in_dim), outputs)
    if not (count := forecaster.static):
        return ForecasterParams(params, linear)
    leaves, form = jax.tree.flatten(forecaster.cell.initial_state(params))
    keys = jax.random.split(k_static, len(leaves))
    draw = lambda k, leaf: jax.random.normal(k, (count, *leaf.shape), leaf.dtype) * count**-0.5
    weights = jax.tree.unflatten(form, [draw(k, leaf) for k, leaf in zip(keys, leaves, strict=True)])
    return ForecasterParams(params, linear, weights)


def last_valid(ys: jax.Array, options: PastOptions) -> jax.Array:
    """Return the outputs (*batch, H) of the cell at the last valid step."""
    if (mask := options.get("mask")) is None:
        return last(ys, options.get("lengths"))
    _, valid = valid_steps(ys, options.get("lengths"), mask)
    ends = jnp.arange(1, len(ys) + 1, dtype=jnp.int32).reshape(-1, *[1] * (valid.ndim - 1))
    return last(ys, jnp.where(valid, ends, 0).max(axis=0))
