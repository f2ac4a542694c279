"""The echo state network: a fixed random reservoir, of which only the readout is trained."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from .._core.activation import TANH, ActivationLike, activation
from .._core.cell import GatedCell, GatedParams, zero_state
from .._core.fields import Checked, convert, not_negative, positive
from .._core.initializers import Initializer, Shape
from .._core.recurrence import Dense


@dataclasses.dataclass(frozen=True)
class Reservoir(metaclass=Checked):
    """Sparse random recurrent weights of a given spectral radius, and uniform input weights: an `Initializer`.

    Args:
        spectral_radius: the largest absolute eigenvalue of the recurrent weights, above 0. Below 1 the state usually
            forgets how it began; a larger one remembers longer.
        density: the fraction of recurrent weights that are not zero, above 0 and at most 1, the same for every unit.
        input_scale: input weights are drawn from U(-input_scale, input_scale), above 0.
        bias_scale: biases likewise, at least 0.

    The spectral radius is computed by Gelfand's formula, ‖W^k‖^(1/k) for k = 2^20 by 20 squarings, on any device.
    """

    spectral_radius: float = 0.9
    density: float = 0.1
    input_scale: float = 1.0
    bias_scale: float = 0.0

    def __check_init__(self) -> None:
        """Check the numbers."""
        convert(self, spectral_radius=positive, density=positive, input_scale=positive, bias_scale=not_negative)
        if self.density > 1:
            raise ValueError(f"Reservoir.density is a fraction, above 0 and at most 1; got {self.density}")

    def connections(self, hidden: int) -> int:
        """Return the recurrent weights of a unit that are not zero; raise ValueError if there are none."""
        if count := round(self.density * hidden):
            return count
        raise ValueError(
            f"Reservoir(density={self.density}) leaves no recurrent weights for {hidden} units: each would have "
            f"{self.density * hidden:.2g}, rounded to 0. Use density={1 / hidden:.2g} or more, or more units."
        )

    def input(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw from U(-input_scale, input_scale)."""
        return self.input_scale * jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)

    def recurrent(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw from U(-1, 1), keep the same number for every unit, and scale, each gate separately."""
        rows, gates, hidden = shape
        return jnp.stack([self._reservoir(k, rows, hidden) for k in jax.random.split(key, gates)], 1)

    def _reservoir(self, key: jax.Array, rows: int, hidden: int) -> jax.Array:
        k_w, k_kept = jax.random.split(key)
        order = jnp.argsort(jax.random.uniform(k_kept, (rows, hidden)), 0)
        w = jax.random.uniform(k_w, (rows, hidden), minval=-1.0, maxval=1.0)
        w = jnp.where(order < self.connections(rows), w, 0.0)
        return w * (self.spectral_radius / spectral_radius(w))

    def diagonal(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw from U(-1, 1) times the spectral radius, which only the largest weight can reach."""
        return self.spectral_radius * jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)

    def bias(self, key: jax.Array, shape: Shape) -> jax.Array:
        """Draw from U(-bias_scale, bias_scale)."""
        return self.bias_scale * jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def spectral_radius(w: jax.Array) -> jax.Array:
    """Return the largest absolute eigenvalue of w (H, H) that is not nilpotent, by Gelfand's formula."""

    def square(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        w, log_radius = carry
        norm = jnp.linalg.norm(w)
        w = w / norm
        return jnp.matmul(w, w, precision="highest"), log_radius + jnp.log(norm) * 0.5 ** i.astype(w.dtype)

    return jnp.exp(lax.fori_loop(0, 21, square, (w, jnp.zeros((), w.dtype)))[1])


@dataclasses.dataclass(frozen=True)
class EchoState(GatedCell):
    """h_t = (1 - a) h_{t-1} + a f(u + v) with weights that are drawn once and have no gradient.

    Args:
        hidden: H, the number of units.
        leak: a, above 0 and at most 1: the part of the state that a step replaces.
        activation: f, by name (`"tanh"`, ...) or as a function.
        initializer: `Reservoir(spectral_radius, density, input_scale, bias_scale)`, or another initializer.

    Run it over the training data, and fit a readout in closed form with `jaxrnn.model.ridge_readout`. The state is h
    (*batch, H). The recurrence is `Dense()`.

    >>> cell = EchoState(100, leak=0.3, initializer=Reservoir(spectral_radius=0.8))
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> round(float(abs(np.linalg.eigvals(params.w_h[:, 0])).max()), 3)
    0.8
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (100,)

    References: Jaeger, "The echo state approach to analysing and training recurrent neural networks", GMD report 148,
    2001, eq. 1 (https://www.ai.rug.nl/minds/uploads/EchoStatesTechRep.pdf); in the form of Lukoševičius, "A practical
    guide to applying echo state networks", 2012, eq. 2 and 3.
    """

    hidden: int
    _: dataclasses.KW_ONLY
    leak: float = 1.0
    activation: ActivationLike = TANH
    initializer: Initializer = Reservoir()
    gates = 1

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, leak=positive, activation=activation)
        if self.leak > 1:
            raise ValueError(f"EchoState.leak must be above 0 and at most 1; got {self.leak}. Without a leak it is 1.")
        if self.recurrence != Dense():
            raise ValueError(f"EchoState takes recurrence=Dense(), for the reservoir; got {self.recurrence}")
        if isinstance(self.initializer, Reservoir):
            self.initializer.connections(self.hidden)

    def initial_state(self, params: GatedParams, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return h_0 = 0, (*batch, H), in the dtype of the params."""
        return zero_state(params, (*batch, self.hidden))

    def read(self, h: jax.Array) -> jax.Array:
        """Return h, which the recurrent weights multiply."""
        return h

    def project(self, params: GatedParams, x: jax.Array) -> tuple[jax.Array, ...]:
        """Return u, with no gradient for the params."""
        return GatedCell.project(self, lax.stop_gradient(params), x)

    def recur(self, params: GatedParams, s: jax.Array) -> tuple[jax.Array, ...]:
        """Return v, with no gradient for the params."""
        return self.recurrence(lax.stop_gradient(params.w_h), self.read(s))

    def gate(self, h: jax.Array, u: tuple[jax.Array, ...], v: tuple[jax.Array, ...]) -> jax.Array:
        """Apply the equation above."""
        new: jax.Array = h + self.leak * (self.activation(u[0] + v[0]) - h)
        return new
