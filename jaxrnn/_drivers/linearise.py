"""All steps of a cell at once, and their Jacobians: what Newton's method is made of.

T time, B batch, N numbers of the state; G blocks of K x K.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._core.affine_cell import shifted
from .._core.cell import Cell, GatedCell
from .._core.masks import StepMasks
from .._core.recurrence import Dense, Diagonal, Heads
from .._core.sharding import zeros_like
from .._core.types import Params, State
from .associative import Chunks
from .driver import Step, masked_step


@dataclasses.dataclass(frozen=True)
class Jacobian:
    """The Jacobians of all steps, block diagonal: (T, *batch, G, K, K).

    A vector of the state, (..., N), is G blocks whose numbers lie K apart from each other's: (..., K, G).
    """

    blocks: jax.Array

    def __call__(self, vectors: jax.Array) -> jax.Array:
        """Multiply vectors (T, *batch, N)."""
        return self._flat(self._times(self.blocks, self._cut(vectors)))

    def scaled(self, factor: float) -> Jacobian:
        """Make them smaller."""
        return Jacobian(self.blocks * factor) if factor != 1 else self

    def transposed(self, reverse: bool) -> Jacobian:
        """Give those of the way back: at each step the transpose of the one crossed after it, zero at the last."""
        turned = jnp.swapaxes(self.blocks, -1, -2)
        nothing = jnp.zeros_like(turned[:1].sum(axis=0))  # laid out as a row, of which there may be none
        return Jacobian(shifted(turned, nothing, not reverse))

    def solve(self, rest: jax.Array, state: jax.Array, reverse: bool) -> jax.Array:
        """Give s_t = J_t s_{t-1} + rest_t for all t, (T, *batch, N), in parallel."""
        if self.blocks.shape[-1] == 1:
            return Chunks(None)(self.blocks[..., 0, 0], rest, state, reverse)
        if len(rest) == 0:
            return rest
        first = -1 if reverse else 0
        into = self._cut(rest).at[first].add(self._times(self.blocks[first], self._cut(state)))

        def both(one: tuple[jax.Array, jax.Array], two: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            return jnp.matmul(two[0], one[0], precision="highest"), self._times(two[0], one[1]) + two[1]

        return self._flat(lax.associative_scan(both, (self.blocks, into), reverse=reverse)[1])

    def _cut(self, vectors: jax.Array) -> jax.Array:
        """(..., N) to (..., G, K)."""
        groups, size = self.blocks.shape[-3:-1]
        return jnp.swapaxes(vectors.reshape(*vectors.shape[:-1], size, groups), -1, -2)

    def _flat(self, blocks: jax.Array) -> jax.Array:
        """(..., G, K) to (..., N)."""
        groups, size = self.blocks.shape[-3:-1]
        return jnp.swapaxes(blocks, -1, -2).reshape(*blocks.shape[:-2], groups * size)

    def _times(self, blocks: jax.Array, vectors: jax.Array) -> jax.Array:
        return jnp.einsum("...ij,...j->...i", blocks, vectors, precision="highest")


@dataclasses.dataclass(frozen=True)
class Steps:
    """A cell's step as a function of vectors (*batch, N), for all steps at once.

    Args:
        cell: the cell.
        structure: of its state.
        sizes: the features of each leaf.
        blocks: G; 1 for the full Jacobian.
    """

    cell: Cell
    structure: Any
    sizes: tuple[int, ...]
    blocks: int

    @classmethod
    def of(cls, cell: Cell, state: State, jacobian: str, driver: Any) -> Steps:
        """Look at the state; raises ValueError where the driver cannot take it."""
        leaves, structure = jax.tree.flatten(state)
        kinds = {leaf.dtype for leaf in leaves}
        if len(kinds) != 1 or not jnp.issubdtype(next(iter(kinds)), jnp.floating):
            raise ValueError(f"{driver} needs a state of one floating dtype; {cell} has {sorted(map(str, kinds))}.")
        sizes = tuple(leaf.shape[-1] for leaf in leaves)
        if jacobian == "full":
            return cls(cell, structure, sizes, 1)
        if not isinstance(cell, GatedCell) or len(set(sizes)) != 1 or not _has_diagonal(cell, sizes[0]):
            raise ValueError(
                f"{driver} needs a GatedCell with as many units in all parts of its state, and a recurrence that is "
                f"Dense, Diagonal or Heads; got {cell}. Use Newton(jacobian='full')."
            )
        return cls(cell, structure, sizes, sizes[0])

    def flat(self, state: State) -> jax.Array:
        """(..., features) of every leaf to (..., N)."""
        return jnp.concatenate(jax.tree.leaves(state), axis=-1)

    def tree(self, vector: jax.Array) -> State:
        """Give the state back."""
        ends = [sum(self.sizes[: i + 1]) for i in range(len(self.sizes) - 1)]
        return jax.tree.unflatten(self.structure, jnp.split(vector, ends, axis=-1))

    def all(self, params: Params, before: jax.Array, xs: Any, masks: StepMasks) -> tuple[jax.Array, Any]:
        """From the state before each step (T, *batch, N) to the state after it, and what each puts out."""
        masked, inputs = self._masked(params, xs, masks, self._recur)
        return jax.vmap(masked)(before, inputs)

    def linearised(self, params: Params, before: jax.Array, xs: Any, masks: StepMasks) -> tuple[jax.Array, Jacobian]:
        """Give the state after each step, and the Jacobians, or what of them is within a unit."""
        masked, inputs = self._masked(params, xs, masks, self._recur if self.blocks == 1 else self._own)
        after = lambda before: jax.vmap(masked)(before, inputs)[0]
        value, push = jax.linearize(after, before)
        size = before.shape[-1] // self.blocks
        ones = jnp.repeat(jnp.eye(size, dtype=before.dtype), self.blocks, axis=-1)  # of every block one number
        columns = jax.vmap(lambda one: push(zeros_like(before) + one))(ones)
        columns = columns.reshape(size, *before.shape[:-1], size, self.blocks)
        return value, Jacobian(jnp.moveaxis(jnp.moveaxis(columns, -1, -2), 0, -1))

    def one_by_one(self, params: Params, state: jax.Array, xs: Any, masks: StepMasks, reverse: bool) -> jax.Array:
        """Give the trajectory (T, *batch, N) by a scan."""
        masked, inputs = self._masked(params, xs, masks, self._recur)
        across = lambda state, inputs: (masked(state, inputs)[0],) * 2
        return lax.scan(across, state, inputs, reverse=reverse)[1]

    def back_one_by_one(
        self, params: Params, before: jax.Array, xs: Any, masks: StepMasks, dstates: jax.Array, reverse: bool
    ) -> jax.Array:
        """Give what the gradient for every state is in all, (T, *batch, N), by a scan the other way."""
        masked, rows = self._masked(params, xs, masks, self._recur)

        def across(later: jax.Array, one: Any) -> tuple[jax.Array, jax.Array]:
            before, inputs, dstate = one
            adjoint = dstate + later
            return jax.vjp(lambda before: masked(before, inputs)[0], before)[1](adjoint)[0], adjoint

        none = jnp.zeros_like(dstates[:1].sum(axis=0))  # laid out as a row, of which there may be none
        return lax.scan(across, none, (before, rows, dstates), reverse=not reverse)[1]

    def _masked(self, params: Params, xs: Any, masks: StepMasks, recur: Callable[..., Any]) -> tuple[Step, Any]:
        """Give a step of vectors, with the rule on lengths and resets, and its inputs."""
        step, rows = self._step(params, xs, recur)
        masked = masked_step(step, masks.reset_state)

        def one(before: jax.Array, inputs: Any) -> tuple[jax.Array, Any]:
            state, y = masked(self.tree(before), inputs)
            return self.flat(state), y

        return one, (rows, masks.valid, masks.reset)

    def _step(self, params: Params, xs: Any, recur: Callable[..., Any]) -> tuple[Step, Any]:
        """Give a step and its inputs; those of a gated cell are projected, all at once."""
        cell = self.cell
        if not isinstance(cell, GatedCell):
            return lambda state, x: cell.step(params, state, x), xs
        local = cell.local(params)

        def step(state: State, inputs: tuple[Any, Any]) -> tuple[State, Any]:
            u, x = inputs
            state = cell.advance(local, state, u, recur(params, state))
            return state, cell.output(params, state, x)

        return step, (cell.project(params, xs), xs)

    def _recur(self, params: Params, state: State) -> tuple[jax.Array, ...]:
        assert isinstance(self.cell, GatedCell)
        return self.cell.recur(params, state)

    def _own(self, params: Params, state: State) -> tuple[jax.Array, ...]:
        """The same terms, but as if a unit's depended on what is read of itself alone."""
        assert isinstance(self.cell, GatedCell)
        own = Diagonal()(_diagonal(params.w_h), self.cell.read(state))
        terms = zip(self._recur(params, state), own, strict=True)
        return tuple(lax.stop_gradient(v - d) + d for v, d in terms)


def _has_diagonal(cell: GatedCell, units: int) -> bool:
    return isinstance(cell.recurrence, Dense | Diagonal | Heads) and cell.hidden == units


def _diagonal(w_h: jax.Array) -> jax.Array:
    """Give (G, H) of recurrent weights (G, H), (H, G, H) or (N, H / N, G, H / N)."""
    if w_h.ndim == 2:
        return w_h
    own = jnp.diagonal(w_h, axis1=-3, axis2=-1)  # (..., G, units)
    return own if own.ndim == 2 else jnp.moveaxis(own, 0, 1).reshape(own.shape[1], math.prod(own.shape[::2]))
