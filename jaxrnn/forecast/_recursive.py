"""Forecasts step by step, by sampling."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .._core.broadcasting import broadcasting
from .._core.checks import as_numbers
from .._core.composite import need_step
from .._core.context import with_context
from .._core.fields import is_key, show, size
from .._core.randomness import step
from .._core.types import Key, State
from ._forecaster import Forecast, Forecaster, ForecasterParams, PastOptions, last_valid
from ._scaling import Scale

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecursiveForecaster(Forecaster):
    """A forecast step by step: the distribution of the next number, a draw from it, which is the next input (DeepAR).

    Args:
        cell: a cell or a composite with a step.
        head: `Gaussian()`, `NegativeBinomial()`, or another head.
        targets: K: the first K of the D features of the inputs are the targets, the others covariates. The covariates
            of step t may be those of step t + 1, which is forecast from there.
        static: S, the number of static covariates of a series, which set the initial state; it needs a state of floats.
        scaling: of each series by its past, such as `MeanScaling()`; None for none.

    It is trained with the true numbers as inputs: the outputs at t are of the number at t + 1.

    >>> from jaxrnn.forecast import Gaussian, MeanScaling, RecursiveForecaster, forecast_loss
    >>> forecaster = RecursiveForecaster(cell=LSTM(8), head=Gaussian(), scaling=MeanScaling())
    >>> params, xs = forecaster.init(jax.random.key(0), in_dim=1), jnp.ones((30, 2, 1))
    >>> outputs, scale = forecaster(params, xs[:-1])
    >>> forecast_loss(forecaster.head, outputs, xs[1:], scale=scale).shape
    ()
    >>> paths = forecaster.sample_paths(params, xs, key=jax.random.key(1), steps=12, paths=100)
    >>> paths.shape, jnp.quantile(paths, 0.9, axis=0).shape
    ((100, 12, 2, 1), (12, 2, 1))

    Reference: Salinas et al., "DeepAR: Probabilistic forecasting with autoregressive recurrent networks", 2020,
    section 3.
    """

    def __check_init__(self) -> None:
        """Check that the cell has a step."""
        need_step(self.cell, self)

    def init(self, key: Key, in_dim: int) -> ForecasterParams:
        """Draw the params for inputs of D = `in_dim` features."""
        return self.draw_params(key, in_dim, 1)

    def __call__(
        self,
        params: ForecasterParams,
        xs: Float[ArrayLike, "T *batch D"],
        scale: Scale | None = None,
        *,
        key: Key | None = None,
        **options: Unpack[PastOptions],
    ) -> Forecast:
        """Return the forecast of one step after each step of xs (T, *batch, D): the outputs are (T, *batch, K, F).

        Args:
            params: from `init`.
            xs: the targets, then the covariates.
            scale: of each series; None computes it from all of xs. In training, pass that of the steps before the
                forecast: `forecaster.scaling(xs[:past, ..., :K])`.
            key: what dropout and noise are drawn from; None is deterministic.
            options: static (*batch, S), the static covariates; and lengths, mask, context, driver as for `unroll`.

        Raises:
            ValueError: for shapes that do not fit.
        """
        scale, _, ys = self.run(params, jnp.asarray(as_numbers("xs", xs)), scale, options, key)
        return Forecast(self.outputs(params, ys), scale)

    def sample_paths(
        self,
        params: ForecasterParams,
        xs: Float[ArrayLike, "T *batch D"],
        *,
        key: Key,
        steps: int,
        paths: int,
        future: Float[ArrayLike, "N *batch C"] | None = None,
        **options: Unpack[PastOptions],
    ) -> Float[Array, "P N *batch K"]:
        """Draw P paths of the N steps after the past xs (T, *batch, D).

        Args:
            params: from `init`.
            xs: the targets, then the covariates.
            key: what the paths are drawn from.
            steps: N.
            paths: P; all of them run together, in one program that is compiled once for each N, P and shape.
            future: the covariates (N, *batch, C) of the inputs that follow, C = D - K; None where there are none. The
                input after step n of the forecast has future[n]; the last one is not used.
            options: as above, for the past: a row of length n is forecast from its step n on.

        Raises:
            ValueError: for shapes that do not fit, and covariates without `future`.
        """
        if not is_key(key):
            raise ValueError(f"sample_paths draws from one key, such as jax.random.key(0); got {show(key)}")
        steps, paths = size(steps, "steps"), size(paths, "paths")
        numbers = jnp.asarray(as_numbers("xs", xs))
        covariates = numbers.shape[-1] - self.targets if numbers.ndim else 0
        needed = (steps, *numbers.shape[1:-1], covariates)
        known = jnp.zeros(needed, numbers.dtype) if future is None else jnp.asarray(as_numbers("future", future))
        if known.shape != needed or (future is None and covariates > 0):
            raise ValueError(
                f"xs {numbers.shape} with {self.targets} targets and {steps} steps need future covariates {needed}; "
                f"got {None if future is None else known.shape}"
            )
        scale, state, ys = self.run(params, numbers, None, options, None)
        first = self.outputs(params, last_valid(ys, options))
        params = params._replace(cell=with_context(self.cell, params.cell, options.get("context")))
        return _paths(self, params, state, first, scale, known, key, steps, paths)


@functools.partial(jax.jit, static_argnames=("forecaster", "steps", "paths"))
@broadcasting
def _paths(
    forecaster: RecursiveForecaster,
    params: ForecasterParams,
    state: State,
    first: jax.Array,
    scale: Scale | None,
    future: jax.Array,
    key: Key,
    steps: int,
    paths: int,
) -> jax.Array:
    """Return what `sample_paths` does, from the state after the past and the outputs there."""
    cell = need_step(forecaster.cell, forecaster)

    def path(key: Key) -> jax.Array:
        def one(
            carry: tuple[State, jax.Array], given: tuple[Key, jax.Array]
        ) -> tuple[tuple[State, jax.Array], jax.Array]:
            state, outputs = carry
            number = forecaster.head.sample(outputs, given[0], scale)
            x = jnp.concatenate([number, given[1].astype(number.dtype)], axis=-1)
            state, y = step(cell, params.cell, state, forecaster.inputs(x, scale), None)
            return (state, forecaster.outputs(params, y).astype(outputs.dtype)), number

        return jax.lax.scan(one, (state, first), (jax.random.split(key, steps), future))[1]

    return jax.vmap(path)(jax.random.split(key, paths))
