"""All steps of a cell at once, and their Jacobians, for Newton's method.

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
from .._core.matrix_cell import MatrixCell
from .._core.recurrence import Dense, Diagonal, Heads
from .._core.sharding import zeros_like
from .._core.types import Inputs, Params, State
from .associative import Chunks
from .driver import Driver, Step, masked_step


@dataclasses.dataclass(frozen=True)
class FullJacobian:
    """J (N, N) for all N numbers of the state: T * batch * N^2 numbers, for N up to about 64."""

    def num_blocks(self, cell: Cell, sizes: tuple[int, ...], driver: Driver) -> int:
        """Return 1: the whole Jacobian is one block."""
        return 1


@dataclasses.dataclass(frozen=True)
class DiagonalJacobian:
    """The derivative of each unit by itself, of a `GatedCell`: S x S numbers a unit for a state of S arrays.

    It is exact for a `Diagonal()` recurrence. For others (quasi-DEER) it takes more iterations, each much cheaper.
    """

    def num_blocks(self, cell: Cell, sizes: tuple[int, ...], driver: Driver) -> int:
        """Return H, a block for each unit; raise ValueError for a cell without such blocks."""
        if not isinstance(cell, GatedCell) or len(set(sizes)) != 1 or not _has_diagonal(cell, sizes[0]):
            raise ValueError(
                f"{driver} needs a GatedCell with as many units in all parts of its state, and a recurrence that is "
                f"Dense, Diagonal or Heads; got {cell}. Use Newton(FullJacobian())."
            )
        return sizes[0]


@dataclasses.dataclass(frozen=True)
class Jacobians:
    """The Jacobians of all steps, block diagonal: (T, *batch, G, K, K).

    A vector of the state, (..., N), is stored as (..., K, G): the numbers of a block are G apart.
    """

    blocks: jax.Array

    def __call__(self, vectors: jax.Array) -> jax.Array:
        """Multiply vectors (T, *batch, N)."""
        return self._flat(self._times(self.blocks, self._split(vectors)))

    def scaled(self, factor: float) -> Jacobians:
        """Return them times a factor."""
        return Jacobians(self.blocks * factor) if factor != 1 else self

    def transposed(self, reverse: bool) -> Jacobians:
        """Return those of the adjoint: the transposes, one step later in running order, zero at the last step."""
        transposes = jnp.swapaxes(self.blocks, -1, -2)
        zeros = jnp.zeros_like(transposes[:1].sum(axis=0))  # sharded as a row is, even if there is none
        return Jacobians(shifted(transposes, zeros, not reverse))

    def solve(self, rest: jax.Array, state: jax.Array, reverse: bool) -> jax.Array:
        """Return s_t = J_t s_{t-1} + rest_t for all t, (T, *batch, N), solved in parallel."""
        if self.blocks.shape[-1] == 1:
            return Chunks(None)(self.blocks[..., 0, 0], rest, state, reverse)
        if len(rest) == 0:
            return rest
        first = -1 if reverse else 0
        rest = self._split(rest).at[first].add(self._times(self.blocks[first], self._split(state)))

        def both(one: tuple[jax.Array, jax.Array], two: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            return jnp.matmul(two[0], one[0], precision="highest"), self._times(two[0], one[1]) + two[1]

        return self._flat(lax.associative_scan(both, (self.blocks, rest), reverse=reverse)[1])

    def _split(self, vectors: jax.Array) -> jax.Array:
        """Return vectors (..., N) as (..., G, K)."""
        groups, size = self.blocks.shape[-3:-1]
        return jnp.swapaxes(vectors.reshape(*vectors.shape[:-1], size, groups), -1, -2)

    def _flat(self, blocks: jax.Array) -> jax.Array:
        """Return vectors (..., G, K) as (..., N)."""
        groups, size = self.blocks.shape[-3:-1]
        return jnp.swapaxes(blocks, -1, -2).reshape(*blocks.shape[:-2], groups * size)

    def _times(self, blocks: jax.Array, vectors: jax.Array) -> jax.Array:
        return jnp.einsum("...ij,...j->...i", blocks, vectors, precision="highest")


@dataclasses.dataclass(frozen=True)
class Steps:
    """A cell's step as a function of vectors (*batch, N), for all steps at once.

    Args:
        cell: the cell.
        structure: the structure of its state.
        sizes: the features of each leaf.
        num_blocks: G; 1 for the full Jacobian.
    """

    cell: Cell
    structure: Any
    sizes: tuple[int, ...]
    num_blocks: int

    @classmethod
    def of(cls, cell: Cell, state: State, jacobian: FullJacobian | DiagonalJacobian, driver: Driver) -> Steps:
        """Return the steps of a cell; raise ValueError for a state that is not of one floating dtype."""
        leaves, structure = jax.tree.flatten(state)
        if isinstance(cell, MatrixCell) or len({leaf.ndim for leaf in leaves}) > 1:
            raise ValueError(
                f"{driver} needs a state of vectors (*batch, features); {cell} has {[leaf.shape for leaf in leaves]}. "
                f"Use {'Chunkwise()' if isinstance(cell, MatrixCell) else 'Scan()'}."
            )
        kinds = {leaf.dtype for leaf in leaves}
        if len(kinds) != 1 or not jnp.issubdtype(next(iter(kinds)), jnp.floating):
            raise ValueError(f"{driver} needs a state of one floating dtype; {cell} has {sorted(map(str, kinds))}.")
        sizes = tuple(leaf.shape[-1] for leaf in leaves)
        return cls(cell, structure, sizes, jacobian.num_blocks(cell, sizes, driver))

    def flat(self, state: State) -> jax.Array:
        """Return a state, each leaf (..., features), as a vector (..., N)."""
        return jnp.concatenate(jax.tree.leaves(state), axis=-1)

    def tree(self, vector: jax.Array) -> State:
        """Return a vector (..., N) as a state."""
        ends = [sum(self.sizes[: i + 1]) for i in range(len(self.sizes) - 1)]
        return jax.tree.unflatten(self.structure, jnp.split(vector, ends, axis=-1))

    def all(self, params: Params, before: jax.Array, xs: Inputs, masks: StepMasks) -> tuple[jax.Array, Any]:
        """Return the state after each step (T, *batch, N) from the state before it, and the outputs."""
        masked, inputs = self._masked(params, xs, masks, self._recur)
        return jax.vmap(masked)(before, inputs)

    def linearized(
        self, params: Params, before: jax.Array, xs: Inputs, masks: StepMasks
    ) -> tuple[jax.Array, Jacobians]:
        """Return the state after each step, and the Jacobians, or their blocks."""
        masked, inputs = self._masked(
            params, xs, masks, self._recur if self.num_blocks == 1 else self._recur_within_units
        )
        after = lambda before: jax.vmap(masked)(before, inputs)[0]
        value, push = jax.linearize(after, before)
        size = before.shape[-1] // self.num_blocks
        ones = jnp.repeat(jnp.eye(size, dtype=before.dtype), self.num_blocks, axis=-1)  # one number of every block
        columns = jax.vmap(lambda one: push(zeros_like(before) + one))(ones)
        columns = columns.reshape(size, *before.shape[:-1], size, self.num_blocks)
        return value, Jacobians(jnp.moveaxis(jnp.moveaxis(columns, -1, -2), 0, -1))

    def one_by_one(
        self, params: Params, state: jax.Array, xs: Inputs, masks: StepMasks, reverse: bool, unroll: int
    ) -> jax.Array:
        """Return the trajectory (T, *batch, N), computed by a scan."""
        masked, inputs = self._masked(params, xs, masks, self._recur)
        step = lambda state, inputs: (masked(state, inputs)[0],) * 2
        return lax.scan(step, state, inputs, reverse=reverse, unroll=unroll)[1]

    def adjoint_one_by_one(
        self, params: Params, before: jax.Array, xs: Inputs, masks: StepMasks, dstates: jax.Array, reverse: bool
    ) -> jax.Array:
        """Return the total gradient for every state, (T, *batch, N), computed by a scan in the other direction."""
        masked, rows = self._masked(params, xs, masks, self._recur)

        def step(later: jax.Array, one: Any) -> tuple[jax.Array, jax.Array]:
            before, inputs, dstate = one
            adjoint = dstate + later
            return jax.vjp(lambda before: masked(before, inputs)[0], before)[1](adjoint)[0], adjoint

        zeros = jnp.zeros_like(dstates[:1].sum(axis=0))  # sharded as a row is, even if there is none
        return lax.scan(step, zeros, (before, rows, dstates), reverse=not reverse)[1]

    def _masked(self, params: Params, xs: Inputs, masks: StepMasks, recur: Callable[..., Any]) -> tuple[Step, Any]:
        """Return a step of vectors, with the rule on padding and resets, and its inputs."""
        step, rows = self._step(params, xs, recur)
        masked = masked_step(step, masks.reset_state)

        def one(before: jax.Array, inputs: Any) -> tuple[jax.Array, Any]:
            state, y = masked(self.tree(before), inputs)
            return self.flat(state), y

        return one, (rows, masks.valid, masks.reset)

    def _step(self, params: Params, xs: Inputs, recur: Callable[..., Any]) -> tuple[Step, Any]:
        """Return a step and its inputs; those of a gated cell are projected, all at once."""
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

    def _recur_within_units(self, params: Params, state: State) -> tuple[jax.Array, ...]:
        """Return the recurrent inputs, whose derivative is that of each unit by itself alone."""
        assert isinstance(self.cell, GatedCell)
        within = Diagonal()(_diagonal(params.w_h), self.cell.read(state))
        pairs = zip(self._recur(params, state), within, strict=True)
        return tuple(lax.stop_gradient(v - d) + d for v, d in pairs)


def _has_diagonal(cell: GatedCell, units: int) -> bool:
    return isinstance(cell.recurrence, Dense | Diagonal | Heads) and cell.hidden == units


def _diagonal(w_h: jax.Array) -> jax.Array:
    """Return the diagonal (G, H) of recurrent weights (G, H), (H, G, H) or (N, H / N, G, H / N)."""
    if w_h.ndim == 2:
        return w_h
    diagonal = jnp.diagonal(w_h, axis1=-3, axis2=-1)  # (..., G, units)
    if diagonal.ndim == 2:
        return diagonal
    return jnp.moveaxis(diagonal, 0, 1).reshape(diagonal.shape[1], math.prod(diagonal.shape[::2]))
