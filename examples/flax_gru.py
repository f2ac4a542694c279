"""The policy of `examples.memory_control` in flax.linen, to compare its speed: its GRU runs in flax's `scan`."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn.extend import extra

with extra("flax"):
    from flax import linen


class Step(linen.Module):
    """A GRU that is reset before a step."""

    hidden: int

    @linen.compact
    def __call__(self, h: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Return the state and the output after x (B, D) and reset (B,)."""
        x, reset = row
        return linen.GRUCell(self.hidden)(jnp.where(reset[:, None], 0.0, h), x)


class Net(linen.Module):
    """A layer of tanh, the GRU, and a linear layer."""

    hidden: int
    outputs: int

    @linen.compact
    def __call__(self, h: jax.Array, xs: jax.Array, resets: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the state after xs (T, B, D) with resets (T, B), and the outputs (T, B, K)."""
        scan = linen.scan(Step, variable_broadcast="params", split_rngs={"params": False})
        h, ys = scan(self.hidden)(h, (jnp.tanh(linen.Dense(self.hidden)(xs)), resets))
        return h, linen.Dense(self.outputs)(ys)


@dataclasses.dataclass(frozen=True)
class FlaxGRU:
    """The three methods of a cell around the network."""

    net: Net

    def init(self, key: jax.Array, in_dim: int) -> Any:
        """Draw the params."""
        return self.net.init(key, jnp.zeros((1, self.net.hidden)), jnp.zeros((1, 1, in_dim)), jnp.zeros((1, 1), bool))

    def initial_state(self, params: Any, batch: tuple[int, ...] = ()) -> jax.Array:
        """Return zeros."""
        return jnp.zeros((*batch, self.net.hidden))

    def step(self, params: Any, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Apply one step."""
        h, ys = self.net.apply(params, h, x[None], jnp.zeros((1, len(x)), bool))
        return h, ys[0]


def flax_scan(cell: FlaxGRU, params: Any, xs: jax.Array, state: Any, *, resets: jax.Array) -> tuple[Any, jax.Array]:
    """Return the state after xs and the outputs, as `jaxrnn.unroll` does."""
    return cell.net.apply(params, state, xs, resets)
