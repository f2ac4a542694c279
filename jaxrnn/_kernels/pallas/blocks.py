"""The kernel for a TPU: weights and state stay in VMEM for the whole sequence; the grid runs over chunks of time.

The tests interpret it on a CPU; it has not run on a TPU.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..._core.affine_cell import shifted
from ..._core.sharding import vary, varying
from .calls import BackwardOutputs, ForwardOutputs, RowInputs, SequenceInputs, Weights, like
from .equation import Equation, Tiles, added, plus, wide

CHUNK = 16  # steps in one point of the grid
VMEM = 96 * 2**20  # bytes that a kernel may take


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The time loop of an equation.

    Args:
        equation: the step without its matmul.
        reverse: whether time runs from the last step to the first.
        interpret: whether to interpret the kernel.
    """

    equation: Equation
    reverse: bool
    interpret: bool

    def check(self, shape: tuple[int, ...], dtype: Any, batch: int, backward: bool) -> None:
        """Raise ValueError if weights (N, K, G, K) of a dtype, and two chunks of the batch, do not fit."""
        blocks, width, gates, _ = shape
        arrays = 2 * self.equation.num_preactivations + 3 * self.equation.state.num_leaves if backward else 2 * gates
        need = math.prod(shape) * jnp.dtype(dtype).itemsize + 2 * CHUNK * batch * blocks * width * arrays * 4
        if need > VMEM:
            raise ValueError(f"needs {need / 2**20:.0f} MiB of VMEM, and {VMEM // 2**20} are available")

    def forward(self, sequences: SequenceInputs, rows: RowInputs, weights: Weights) -> ForwardOutputs:
        """Run the forward pass."""
        shape = sequences.preactivations[0].shape
        states = [jax.ShapeDtypeStruct(shape, s.dtype) for s in rows.state]
        out = ForwardOutputs(states, jax.ShapeDtypeStruct(shape, weights.w.dtype))
        outputs: ForwardOutputs
        outputs, _ = self._run(self._forward_chunk, self.reverse, sequences, rows, weights, (out, _sums(rows.state)))
        return outputs

    def backward(self, sequences: SequenceInputs, rows: RowInputs, weights: Weights) -> BackwardOutputs:
        """Run the backward pass."""
        preactivations = [jax.ShapeDtypeStruct(t.shape, weights.w.dtype) for t in sequences.preactivations]
        local = [jax.ShapeDtypeStruct(rows.state[0].shape, jnp.float32) for _ in weights.local]
        out = BackwardOutputs(preactivations, _sums(rows.state), _sums(rows.reset_state), local)
        previous = lambda after, state: shifted(after, state.astype(after.dtype), self.reverse)
        sequences = sequences._replace(states=list(map(previous, sequences.states, rows.state)))
        gradients: BackwardOutputs = self._run(self._backward_chunk, not self.reverse, sequences, rows, weights, out)
        return gradients

    def _run(self, body: Callable[..., None], last_first: bool, sequences: SequenceInputs, *more: Any) -> Any:
        """Run `body` for every chunk. In `out` it writes the sequences of the chunk and accumulates the sums (B, H)."""
        rows, weights, out = more
        time = sequences.preactivations[0].shape[0]
        chunk = min(CHUNK, time)
        count = pl.cdiv(time, chunk)
        place = lambda i: count - 1 - i if last_first else i
        sequences = sequences._replace(valid=_column(sequences.valid), reset=_column(sequences.reset))

        def spec(a: Any) -> pl.BlockSpec:
            if a.shape[0] == time and a.ndim == 3:
                return pl.BlockSpec((chunk, *a.shape[1:]), lambda i: (place(i), 0, 0))
            return pl.BlockSpec(a.shape, lambda i: (0,) * a.ndim)

        def kernel(sequences: SequenceInputs, rows: RowInputs, weights: Weights, out: Any) -> None:
            point = pl.program_id(0)
            steps = jnp.minimum(chunk, time - chunk * place(point))
            body(lambda i: steps - 1 - i if last_first else i, steps, point == 0, sequences, rows, weights, out)

        axes = varying((sequences, rows, weights))
        sequences, rows, weights = vary((sequences, rows, weights), axes)
        call = pl.pallas_call(
            kernel,
            out_shape=(jax.tree.map(lambda o: like(o, sequences), out),),
            grid=(count,),
            in_specs=jax.tree.map(spec, (sequences, rows, weights)),
            out_specs=(jax.tree.map(spec, out),),
            compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",), vmem_limit_bytes=VMEM),
            interpret=self.interpret,
        )
        return call(sequences, rows, weights)[0]

    def _forward_chunk(
        self,
        order: Any,
        steps: Any,
        is_first: Any,
        sequences: SequenceInputs,
        rows: RowInputs,
        weights: Weights,
        out: Any,
    ) -> None:
        """Run one chunk forward."""
        out, carried = out
        eq, reset_state, local = self.equation, _wide(rows.reset_state), _wide(weights.local)

        @pl.when(is_first)
        def _() -> None:
            _store(carried, _wide(rows.state))

        def step(i: Any, s: Tiles) -> Tiles:
            t = order(i)
            r = eq.read(s).astype(out.recurrent_reads.dtype)
            out.recurrent_reads[t] = r
            s = eq.step(
                s, _wide(sequences.preactivations, t), _times(r, weights.w), local, _mask_at(sequences.valid, t)
            )
            _store(out.states, s, t)
            return eq.apply_reset(s, _mask_at(sequences.reset, t), reset_state)

        _store(carried, lax.fori_loop(0, steps, step, _wide(carried)))

    def _backward_chunk(
        self,
        order: Any,
        steps: Any,
        is_first: Any,
        sequences: SequenceInputs,
        rows: RowInputs,
        weights: Weights,
        out: BackwardOutputs,
    ) -> None:
        """Differentiate one chunk."""
        eq, reset_state, local = self.equation, _wide(rows.reset_state), _wide(weights.local)
        sums = (out.state, out.reset_state, out.local)

        @pl.when(is_first)
        def _() -> None:
            _store(out.state, _wide(rows.dfinal))
            for ref in (*out.reset_state, *out.local):
                ref[...] = jnp.zeros_like(ref)

        def step(i: Any, carry: Any) -> Any:
            t = order(i)
            ds, dreset_state, dlocal = carry
            ds = added(ds, [None if d is None else d[t] for d in sequences.dstates])
            reset = _mask_at(sequences.reset, t)
            s = eq.apply_reset(_wide(sequences.states, t), reset, reset_state)
            linear = eq.linearize(s, _wide(sequences.preactivations, t), local)
            ds, dpreactivations, dl = eq.step_vjp(linear, _mask_at(sequences.valid, t), ds)
            dpreactivations = [d.astype(ref.dtype) for d, ref in zip(dpreactivations, out.preactivations, strict=True)]
            _store(out.preactivations, dpreactivations, t)
            dr = _times_transposed([dpreactivations[j] for j in eq.recurrent_cotangents()], weights.w)
            ds, dreset_state = eq.reset_vjp(plus(ds, eq.read_vjp(linear, dr)), reset, dreset_state)
            return ds, dreset_state, plus(dlocal, dl)

        for refs, tiles in zip(sums, lax.fori_loop(0, steps, step, tuple(map(_wide, sums))), strict=True):
            _store(refs, tiles)


def _times(r: jax.Array, w: Any) -> Tiles:
    """Return v = r W, G tiles (B, N K), from r (B, N K) and w (N, K, G, K)."""
    count, width, gates, _ = w.shape
    parts = [r[:, n * width : (n + 1) * width] for n in range(count)]
    return [jnp.concatenate([_dot(part, w[n, :, g], 0) for n, part in enumerate(parts)], 1) for g in range(gates)]


def _times_transposed(dv: Tiles, w: Any) -> jax.Array:
    """Return dr, the sum over gates of dv_g W_g^T."""
    count, width, gates, _ = w.shape
    cut = lambda a, n: a[:, n * width : (n + 1) * width]
    return jnp.concatenate([sum(_dot(cut(dv[g], n), w[n, :, g], 1) for g in range(gates)) for n in range(count)], 1)


def _dot(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    """Return the product over the last axis of a and `axis` of b, summed in float32."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    options = {"precision": precision, "preferred_element_type": jnp.float32}
    return lax.dot_general(a, b, (((1,), (axis,)), ((), ())), **options)


def _column(mask: Any) -> Any:
    """Return a mask (T, B) as numbers (T, B, 1), since a kernel has no booleans in memory."""
    return None if mask is None else mask[:, :, None].astype(jnp.float32)


def _mask_at(column: Any, t: Any) -> Any:
    return None if column is None else column[t] > 0


def _sums(tiles: Tiles) -> Any:
    return [jax.ShapeDtypeStruct(a.shape, jnp.float32) for a in tiles]


def _wide(refs: Any, t: Any = slice(None)) -> Tiles:
    return wide([ref[t] for ref in refs])


def _store(refs: Any, tiles: Tiles, t: Any = slice(None)) -> None:
    for ref, tile in zip(refs, tiles, strict=True):
        ref[t] = tile.astype(ref.dtype)
