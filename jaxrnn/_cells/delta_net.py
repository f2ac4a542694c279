"""The delta rule: a matrix memory that corrects what it returns for a key."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from .._core.activation import ActivationLike, activation
from .._core.fields import convert, number, show
from .._core.matrix_cell import MatrixCell, MemoryUpdate
from .._core.types import Params

EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class DeltaNet(MatrixCell):
    """S_t = (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ, o_t = S_tᵀ q_t, with β_t = max_beta σ(x_t w_β).

    Queries and keys are divided by their length. Along a key the memory has the eigenvalue 1 - β: with `max_beta=2` it
    reaches -1, so that a head tracks parity, and two steps
    permutations of three.

    Args:
        heads: N.
        key_dim: K, the key features of a head.
        value_dim: V, the value features of a head; None for K.
        max_beta: the bound of β, at most 2.
        activation: of q, k and v, by name or as a function.

    The state is `MatrixState(memory)`: S (*batch, N, K, V).

    >>> cell = DeltaNet(2, 4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, y = cell.step(params, cell.initial_state(params), jnp.ones(3))
    >>> y.shape
    (8,)

    Reference: Schlag, Irie and Schmidhuber, "Linear transformers are secretly fast weight programmers", ICML 2021,
    eq. 24 (https://arxiv.org/abs/2102.11174); Yang et al., NeurIPS 2024, section 2.2 (https://arxiv.org/abs/2406.06484);
    max_beta: Grazzi et al., "Unlocking state-tracking in linear RNNs through negative eigenvalues", ICLR 2025
    (https://arxiv.org/abs/2411.12537).
    """

    _: dataclasses.KW_ONLY
    max_beta: float = 1.0
    activation: ActivationLike = "silu"

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, max_beta=_beta, activation=activation)

    def sizes(self) -> tuple[int, ...]:
        """Return the features of q, k, v and β."""
        return self.keys, self.keys, self.values, self.heads

    def update(self, local: Params, *parts: jax.Array) -> MemoryUpdate:
        """Return the update."""
        q, k, v, beta = self.delta_rule(*parts)
        return MemoryUpdate(q, k, v, jnp.zeros_like(q[..., :1]), beta)

    def delta_rule(self, q: jax.Array, k: jax.Array, v: jax.Array, beta: jax.Array) -> tuple[jax.Array, ...]:
        """Return the query, the key, the value times β, and β."""
        q, k, v = (self.split_heads(self.activation(a)) for a in (q, k, v))
        beta = self.max_beta * jax.nn.sigmoid(beta)
        return unit_length(q), unit_length(k), beta[..., None] * v, beta


def unit_length(a: jax.Array) -> jax.Array:
    """Return a / |a| over the last axis."""
    return a * jax.lax.rsqrt((a * a).sum(-1, keepdims=True) + EPSILON)


def _beta(given: object, what: str) -> float:
    """Return a bound of β; raise ValueError unless 0 < bound <= 2."""
    bound = number(given, what)
    if not 0 < bound <= 2:
        raise ValueError(f"{what} must lie above 0 and be at most 2, or the memory explodes; got {show(given)}")
    return bound
