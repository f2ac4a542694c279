"""GRU-D, for series with missing values."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from .._core.broadcasting import broadcasting
from .._core.cell import draw_weights, zero_state
from .._core.checks import check_step
from .._core.exportable import exportable
from .._core.fields import Checked, check_init, convert, show, size
from .._core.initializers import GlorotOrthogonal, Initializer
from .._core.recurrence import an_initializer, biased_gates, gates_of, input_weights
from .._core.trees import cast

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float


class GRUDInputs(NamedTuple):
    """A step of a series with missing values.

    Attributes:
        x: values; those that are missing are ignored, NaN included.
        mask: which values are observed: booleans, or numbers 0 and 1.
        dt: the time since a value of the feature was last observed, at least 0; (..., 1) for the same for all.
    """

    x: Float[Array, "*batch D"]
    mask: Bool[Array, "*batch D"]
    dt: Float[Array, "*batch D"]


@exportable
class GRUDState(NamedTuple):
    """h, the output; x, the value of each feature that was last observed."""

    h: Float[Array, "*batch H"]
    x: Float[Array, "*batch D"]


@exportable
class GRUDParams(NamedTuple):
    """The params of a GRU-D.

    Attributes:
        w_x: weights of the values.
        w_m: weights of the mask.
        w_h: recurrent weights.
        b: bias.
        decay_x: weights of the decay of each feature to its mean, and the bias.
        decay_h: weights of the decay of the state.
        decay_b: bias of the decay of the state.
        mean: the mean of each feature, initially 0: replace it by that of the training data.
    """

    w_x: Float[Array, "D 3 H"]
    w_m: Float[Array, "D 3 H"]
    w_h: Float[Array, "H 3 H"]
    b: Float[Array, "3 H"]
    decay_x: Float[Array, "2 D"]
    decay_h: Float[Array, "D 1 H"]
    decay_b: Float[Array, "1 H"]
    mean: Float[Array, " D"]


@dataclasses.dataclass(frozen=True)
class GRUD(metaclass=Checked):
    """The GRU whose missing inputs decay to their means, and whose state decays over time; gates in the order r, z, n.

    γ_x = exp(-max(0, w δ + c)), γ_h = exp(-max(0, δ W_γ + b_γ)), with δ the time since each feature was observed;
    x̂ = x where observed, else γ_x x' + (1 - γ_x) x̄, with x' the value last observed and x̄ the mean; ĥ = γ_h h_{t-1};
    r, z = σ(x̂ W_x + m W_m + ĥ W_h + b), n = tanh(x̂ W_xn + m W_mn + (r * ĥ) W_hn + b_n), h_t = (1 - z) * ĥ + z * n.

    Args:
        hidden: H, the number of units.
        initializer: how the weights are drawn.

    The inputs are `GRUDInputs(x, mask, dt)`. The state is `GRUDState(h, x)`, h (*batch, H) and x (*batch, D), at first
    the mean, so `initial_state` needs the params. A step has two dependent matmuls, so it is not a `GatedCell`: use
    `Loop`, `Scan` or `Newton`.

    >>> cell = GRUD(4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)._replace(mean=jnp.array([1.0, 2.0, 3.0]))
    >>> xs = GRUDInputs(jnp.full((5, 2, 3), jnp.nan), jnp.zeros((5, 2, 3), bool), jnp.ones((5, 2, 1)))
    >>> state, ys = unroll(cell, params, xs)
    >>> ys.shape, state.x[0].tolist()
    ((5, 2, 4), [1.0, 2.0, 3.0])

    Reference: Che, Purushotham, Cho, Sontag and Liu, "Recurrent neural networks for multivariate time series with
    missing values", Scientific Reports 8, 2018, section "GRU-D" (https://arxiv.org/abs/1606.01865).
    """

    hidden: int
    _: dataclasses.KW_ONLY
    initializer: Initializer = GlorotOrthogonal()

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, hidden=size, initializer=an_initializer)

    def init(self, key: jax.Array, in_dim: int) -> GRUDParams:
        """Draw the params for `in_dim` features; every decay starts above 0, where it has a gradient."""
        in_dim = check_init(self, key, in_dim)
        k_gates, k_m, k_x, k_h = jax.random.split(key, 4)
        w_x, w_h, b, _ = draw_weights(self.initializer, k_gates, in_dim, 3, self.hidden)
        rate = jax.random.uniform(k_x, (in_dim,))
        return GRUDParams(
            w_x,
            input_weights(self.initializer, k_m, (in_dim, 3, self.hidden)),
            w_h,
            b,
            jnp.stack([rate, jnp.zeros_like(rate)]),
            jnp.abs(input_weights(self.initializer, k_h, (in_dim, 1, self.hidden))),
            jnp.zeros((1, self.hidden)),
            jnp.zeros(in_dim),
        )

    def out_dim(self, in_dim: int) -> int:
        """Return H."""
        return self.hidden

    def initial_state(self, params: GRUDParams, batch: tuple[int, ...] = ()) -> GRUDState:
        """Return h_0 = 0, (*batch, H), and the means, (*batch, D), in the dtype of the params."""
        if params is None:
            raise ValueError("GRUD.initial_state needs its params, for the means; got None. Make them first: init.")
        mean = jnp.broadcast_to(params.mean, (*batch, *params.mean.shape))
        return GRUDState(zero_state(params, (*batch, self.hidden)), mean)

    @broadcasting
    def step(self, params: GRUDParams, state: GRUDState, x: GRUDInputs) -> tuple[GRUDState, jax.Array]:
        """Return (s_t, h_t) from s_{t-1} and a step of inputs."""
        if not isinstance(x, GRUDInputs):
            raise ValueError(
                f"GRUD takes GRUDInputs(x, mask, dt); got {show(x)}. For values that are all observed pass "
                "GRUDInputs(x, jnp.ones_like(x), dt)."
            )
        check_step(self, params, state, x)
        dtype, wide = params.w_x.dtype, state.h.dtype
        observed, delta = x.mask.astype(bool), jnp.broadcast_to(x.dt, x.x.shape).astype(dtype)
        decay = _decay(cast(delta * params.decay_x[0] + params.decay_x[1], wide))
        mean = params.mean.astype(wide)
        last = jnp.where(observed, x.x.astype(wide), state.x)
        filled = jnp.where(observed, last, decay * state.x + (1 - decay) * mean)
        decayed = _decay(biased_gates(delta, params.decay_h, params.decay_b, wide)[0]) * state.h
        of_x = biased_gates(filled, params.w_x, params.b, wide)
        of_mask = cast(gates_of(observed.astype(dtype), params.w_m), wide)
        u_r, u_z, u_n = (a + b for a, b in zip(of_x, of_mask, strict=True))
        v_r, v_z = cast(gates_of(decayed, params.w_h[:, :2]), wide)
        r, z = jax.nn.sigmoid(u_r + v_r), jax.nn.sigmoid(u_z + v_z)
        (v_n,) = cast(gates_of(r * decayed, params.w_h[:, 2:]), wide)
        h = decayed + z * (jnp.tanh(u_n + v_n) - decayed)
        return GRUDState(h, last), h.astype(dtype)


def _decay(rate: jax.Array) -> jax.Array:
    """Return exp(-max(0, rate))."""
    return jnp.exp(-jax.nn.relu(rate))
