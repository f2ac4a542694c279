"""The leaky firing-rate network of neuroscience."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from .._core.activation import RELU, ActivationLike, activation
from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.fields import Checked, convert, instance, not_negative, positive

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class FixedTimeConstant(metaclass=Checked):
    """α = Δt / τ, the same for every unit and constant.

    Args:
        tau: τ, the time constant of a unit.
        dt: Δt, the time between two steps, at most τ and in the same unit.
    """

    tau: float = 100.0
    dt: float = 20.0

    def __check_init__(self) -> None:
        """Check the numbers."""
        _check_times(self)

    def init(self, hidden: int) -> tuple[()]:
        """Return no params."""
        return ()

    def rate(self, local: tuple[()]) -> float:
        """Return α."""
        return self.dt / self.tau


@dataclasses.dataclass(frozen=True)
class LearnedTimeConstant(metaclass=Checked):
    """α = σ(a), learned for every unit: the local param a (H,) keeps τ = Δt / α above Δt.

    Args:
        tau: τ at initialization.
        dt: Δt, the time between two steps, less than τ and in the same unit.
    """

    tau: float = 100.0
    dt: float = 20.0

    def __check_init__(self) -> None:
        """Check the numbers."""
        _check_times(self)
        if self.dt == self.tau:
            raise ValueError(f"LearnedTimeConstant needs tau above dt; got tau={self.tau}, dt={self.dt}. Lower dt.")

    def init(self, hidden: int) -> Float[Array, " H"]:
        """Return the logit of Δt / τ for every unit."""
        return jnp.full(hidden, -math.log(self.tau / self.dt - 1))

    def rate(self, local: jax.Array) -> jax.Array:
        """Return α, (H,)."""
        return jax.nn.sigmoid(local)


def _check_times(value: FixedTimeConstant | LearnedTimeConstant) -> None:
    """Raise ValueError unless 0 < dt <= tau."""
    convert(value, tau=positive, dt=positive)
    if value.dt > value.tau:
        raise ValueError(
            f"{type(value).__name__} needs dt <= tau; got tau={value.tau}, dt={value.dt}. Lower dt: a step longer than "
            "the time constant overshoots."
        )


@dataclasses.dataclass(frozen=True)
class LeakyRNN(GatedCell):
    """h_t = (1 - α) h_{t-1} + α f(u + v + ξ), with α = Δt / τ and noise ξ of standard deviation √(2 / α) σ.

    Args:
        hidden: H, the number of units.
        time_constant: τ and Δt: `FixedTimeConstant(tau, dt)`, or `LearnedTimeConstant(tau, dt)` for a τ of every unit.
        activation: f, by name (`"relu"`, `"softplus"`, `"tanh"`, ...) or as a function.
        sigma: σ, at least 0: the strength of the noise, drawn at every step from the `key` of `unroll` or `step`;
            without a key there is none.

    `recurrence=Dale(0.8)` makes every unit excitatory or inhibitory. The state is h (*batch, H), the firing rates.

    >>> cell = LeakyRNN(4, time_constant=LearnedTimeConstant(tau=50, dt=10), sigma=0.1, recurrence=Dale(0.75))
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3), key=jax.random.key(1))
    >>> y.shape
    (4,)

    References: Yang, Joglekar, Song, Newsome and Wang, "Task representations in neural networks trained to perform
    many cognitive tasks", Nature Neuroscience 22, 2019, methods (https://doi.org/10.1038/s41593-018-0310-2); for
    Dale's law, Song, Yang and Wang, 2016: see `Dale`.
    Note: Song, Yang and Wang keep the currents in the place of the rates: their recurrent weights multiply f(h).
    """

    hidden: int
    _: dataclasses.KW_ONLY
    time_constant: FixedTimeConstant | LearnedTimeConstant = FixedTimeConstant()
    activation: ActivationLike = RELU
    sigma: float = 0.0
    gates = 1

    def __check_init__(self) -> None:
        """Check the fields."""
        kind = instance(FixedTimeConstant | LearnedTimeConstant, "FixedTimeConstant(100, 20) or LearnedTimeConstant()")
        convert(self, time_constant=kind, activation=activation, sigma=not_negative)

    def init_local(self, key: jax.Array) -> jax.Array | tuple[()]:
        """Return the params of the time constant."""
        return self.time_constant.init(self.hidden)

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return h_0 = 0, (*batch, H), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden))

    def read(self, h: jax.Array) -> jax.Array:
        """Return h, which the recurrent weights multiply."""
        return h

    def noise(self, key: jax.Array, batch: tuple[int, ...]) -> tuple[jax.Array, ...]:
        """Draw σ times standard normal noise, (*batch, H); nothing for σ = 0."""
        return (self.sigma * jax.random.normal(key, (*batch, self.hidden)),) if self.sigma else ()

    def transition(
        self, local: jax.Array | tuple[()], h: jax.Array, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]
    ) -> jax.Array:
        """Apply the equation above."""
        alpha = self.time_constant.rate(local)  # type: ignore[arg-type]
        current = u[0] + v[0]
        for noise in u[1:]:
            current = current + jnp.sqrt(2 / alpha) * noise
        new: jax.Array = h + alpha * (self.activation(current) - h)
        return new
