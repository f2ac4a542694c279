"""A causal depthwise convolution over a few steps."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .._core.activation import ActivationLike
from .._core.broadcasting import broadcasting
from .._core.checks import check_step
from .._core.composite import Composite, Runner
from .._core.exportable import exportable
from .._core.fields import check_init, convert, size
from .._core.live import each_step
from .._core.masks import length_mask, reset_boundaries, zero_padding
from .._core.recurrence import check_features
from .._core.sharding import lift
from .._core.trees import where
from .._core.types import Key, Output, Params, State
from .linear import activation_or_none

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@exportable
class ShortConvolutionParams(NamedTuple):
    """The params of a `ShortConvolution`.

    Attributes:
        w: weights; w[j] multiplies x_{t-j}.
        b: bias.
    """

    w: Float[Array, "W D"]
    b: Float[Array, " D"]


@dataclasses.dataclass(frozen=True)
class ShortConvolution(Composite):
    """y_t = activation(b + Σ_j w_j * x_{t-j}), j = 0, ..., W - 1: a causal convolution of each feature by itself.

    Args:
        width: W, the number of steps that an output depends on.
        activation: by name (`"silu"`, ...) or as a function; None for none.

    The state is the last W - 1 inputs, the oldest first, as one array (*batch, (W - 1) D); it starts at zeros. `unroll`
    computes all steps at once, whatever the driver. The window runs over valid steps: padding is left out of it, and a
    reset puts the initial state, zeros, in the place of what came before. w and b are drawn from
    U(-1/sqrt(W), 1/sqrt(W)), as in `torch.nn.Conv1d`.

    >>> layer = ShortConvolution(3, activation="silu")
    >>> params = layer.init(jax.random.key(0), in_dim=2)
    >>> state, ys = unroll(layer, params, jnp.ones((5, 4, 2)))
    >>> state.shape, ys.shape
    ((4, 4), (5, 4, 2))

    Raises:
        ValueError: where a driver splits time over devices (`Associative(axis=...)`): with lengths, a mask or resets,
            and for parts of fewer than W - 1 steps. Otherwise each device gets the last W - 1 inputs of the part
            before its own.

    Reference: Fu et al., "Hungry hungry hippos: towards language modeling with state space models", ICLR 2023, section
    3.1 (https://arxiv.org/abs/2212.14052), the shift; Gu and Dao, "Mamba: linear-time sequence modeling with selective
    state spaces", 2023, section 3.4 (https://arxiv.org/abs/2312.00752).
    """

    width: int = 4
    _: dataclasses.KW_ONLY
    activation: ActivationLike = None

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, width=size, activation=activation_or_none)

    def init(self, key: Key, in_dim: int) -> ShortConvolutionParams:
        """Draw w and b."""
        in_dim, bound = check_init(self, key, in_dim), self.width**-0.5
        k_w, k_b = jax.random.split(key)
        draw = lambda key, *shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)
        return ShortConvolutionParams(draw(k_w, self.width, in_dim), draw(k_b, in_dim))

    def initial_state(self, params: ShortConvolutionParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return zeros (*batch, (W - 1) D); raise ValueError without params, which know D."""
        if params is None:
            raise ValueError(f"the state of {self} depends on the number of features: pass the params of init")
        return jnp.zeros((*batch, (self.width - 1) * params.b.shape[0]), params.b.dtype)

    def out_dim(self, in_dim: int) -> int:
        """Return `in_dim`."""
        return in_dim

    @broadcasting
    def step(
        self, params: ShortConvolutionParams, state: jax.Array, x: jax.Array, *, key: Key | None = None
    ) -> tuple[State, Output]:
        """Return the last W - 1 inputs and y_t."""
        check_step(self, params, state, x)
        check_features(x, params.b)
        x = x.astype(params.b.dtype)
        window = jnp.concatenate([state, x.astype(state.dtype)], axis=-1)
        past = [*self._rows(state, x.shape[-1])[::-1]]
        return window[..., x.shape[-1] :], self._mix(params, [x, *past])

    def unroll(
        self, runner: Runner, params: Params, state: State, reset_state: State, xs: jax.Array
    ) -> tuple[State, Output]:
        """Compute all steps at once."""
        check_features(xs, params.b)
        params, state, reset_state = lift((params, state, reset_state), xs, xs.ndim - 2)
        xs = zero_padding(xs.astype(params.b.dtype), runner.valid)
        if runner.axis is not None:
            state = self._from_part_before(runner, state, xs)
        if runner.valid is None and runner.resets is None:
            final, past = self._past(state, xs, runner.reverse)
            return final, self._mix(params, [xs, *past])
        return self._masked(runner, params, state, reset_state, xs)

    def _mix(self, params: ShortConvolutionParams, taps: list[jax.Array]) -> jax.Array:
        """Return y from the inputs x_t, x_{t-1}, ..."""
        terms = (w * x.astype(w.dtype) for w, x in zip(params.w, taps, strict=True))
        return self.activation(sum(terms, params.b))

    def _rows(self, state: jax.Array, features: int) -> jax.Array:
        """Return a state as W - 1 inputs (W - 1, *batch, D), the oldest first."""
        return jnp.moveaxis(state.reshape(*state.shape[:-1], self.width - 1, features), -2, 0)

    def _state(self, rows: jax.Array) -> jax.Array:
        """Return W - 1 inputs (W - 1, *batch, D) as a state."""
        return jnp.moveaxis(rows, 0, -2).reshape(*rows.shape[1:-1], rows.shape[0] * rows.shape[-1])

    def _past(self, state: jax.Array, xs: jax.Array, reverse: bool) -> tuple[State, list[jax.Array]]:
        """Return the state after all steps, and x_{t-1}, ..., x_{t-W+1} of every step, each (T, *batch, D)."""
        rows, kept, time = self._rows(state, xs.shape[-1]), xs.astype(state.dtype), xs.shape[0]
        padded = jnp.concatenate([kept, rows[::-1]] if reverse else [rows, kept])
        first = 0 if reverse else time
        final = lax.slice_in_dim(padded, first, first + self.width - 1)
        starts = [j if reverse else self.width - 1 - j for j in range(1, self.width)]
        past = [lax.slice_in_dim(padded, start, start + time) for start in starts]
        return self._state(final[::-1] if reverse else final), past

    def _masked(
        self, runner: Runner, params: Params, state: State, reset_state: State, xs: jax.Array
    ) -> tuple[State, Output]:
        """Compute all steps at once where there are masks: in running order, with the valid steps in front."""
        reset = None if runner.resets is None else reset_boundaries(runner.resets, runner.valid, runner.reverse)
        turn = lambda a: a[::-1] if runner.reverse and a is not None else a
        xs, valid, reset = turn(xs), turn(runner.valid), turn(reset)
        time, front = xs.shape[0], valid
        count: Any = None if valid is None else valid.sum(0, dtype=jnp.int32)
        moved = valid is not None and (runner.gaps or runner.reverse)
        if moved:
            order = jnp.argsort(~valid, axis=0, stable=True)
            xs, reset = _take(xs, order), None if reset is None else _take(reset, order)
            front = length_mask(count, time)
        past = self._windows(state, reset_state, xs, reset)
        last = [p[time] if count is None else _take(p, count[None])[0] for p in past]
        final = self._state(jnp.stack(last[::-1])) if last else state
        taps = zero_padding([xs, *(p[:time] for p in past)], front)  # NaN of a row without steps gets no gradient
        ys = each_step(self._mix, params, taps, reset)
        if moved:
            ys = _take(ys, jnp.maximum(jnp.cumsum(valid, axis=0, dtype=jnp.int32) - 1, 0))
        return final, zero_padding(turn(ys), runner.valid)

    def _windows(self, state: State, reset_state: State, xs: jax.Array, reset: jax.Array | None) -> list[jax.Array]:
        """Return x_{t-1}, ..., x_{t-W+1} of every step and of the one after the last, each (T + 1, *batch, D).

        Where a reset lies in between, they are those of `reset_state`.
        """
        past = self._past(state, _longer(xs), False)[1]
        if reset is None:
            return past
        time, rows = xs.shape[0], self._rows(reset_state, xs.shape[-1])
        index = jnp.arange(time + 1, dtype=jnp.int32).reshape(time + 1, *[1] * (reset.ndim - 1))
        since = index - lax.cummax(jnp.where(_longer(reset), index, -self.width), 0)  # valid steps since the reset
        for j in range(1, self.width):
            for s in range(j):
                row = jnp.broadcast_to(rows[self.width - 1 - j + s], past[j - 1].shape)
                past[j - 1] = where(since == s, row, past[j - 1])
        return past

    def _from_part_before(self, runner: Runner, state: jax.Array, xs: jax.Array) -> jax.Array:
        """Return the last W - 1 inputs of the part of time on the device before; the state where time starts."""
        axis, time, count = runner.axis, xs.shape[0], self.width - 1
        if runner.valid is not None or runner.resets is not None:
            raise ValueError(
                f"{self} takes no lengths, mask or resets where time is split over devices ({axis!r}): the inputs that "
                "the next device needs would depend on all devices before it. Do not split time, or leave them out."
            )
        if time < count:
            raise ValueError(
                f"{self} needs parts of {count} steps or more where time is split over devices; got {time}. Use fewer "
                "devices, or longer sequences."
            )
        last = xs[:count][::-1] if runner.reverse else xs[time - count :]
        parts, place = lax.axis_size(axis), lax.axis_index(axis)
        pairs = [(i + 1, i) if runner.reverse else (i, i + 1) for i in range(parts - 1)]
        moved = lax.ppermute(self._state(last).astype(state.dtype), axis, pairs)
        return jnp.where(place == (parts - 1 if runner.reverse else 0), state, moved)


def _longer(rows: jax.Array) -> jax.Array:
    """Return rows (T, ...) with one of zeros after them."""
    return jnp.pad(rows, [(0, 1), *[(0, 0)] * (rows.ndim - 1)])


def _take(rows: jax.Array, index: jax.Array) -> jax.Array:
    """Return rows[index] along the first axis, for rows (T, *batch, ...) and an index (S, *batch)."""
    return jnp.take_along_axis(rows, index.reshape(*index.shape, *[1] * (rows.ndim - index.ndim)), axis=0)
