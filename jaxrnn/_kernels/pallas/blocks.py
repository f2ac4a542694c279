"""The kernel for a TPU: weights and state stay in VMEM for the whole sequence, over which a grid goes in chunks.

Interpreted, it is what a CPU tests; it has not run on a TPU.
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

CHUNK = 16  # steps of one point of the grid
VMEM = 96 * 2**20  # bytes that a kernel may take


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The time loop of an equation.

    Args:
        equation: what a step does besides its matmul.
        reverse: whether from the last step to the first.
        interpret: whether to interpret it.
    """

    equation: Equation
    reverse: bool
    interpret: bool

    def check(self, shape: tuple[int, ...], dtype: Any, batch: int, back: bool) -> None:
        """Raise ValueError where weights (N, K, G, K) of a dtype, and two chunks of all rows, do not fit."""
        blocks, width, gates, _ = shape
        arrays = 2 * self.equation.count + 3 * self.equation.state.num_leaves if back else 2 * gates
        need = math.prod(shape) * jnp.dtype(dtype).itemsize + 2 * CHUNK * batch * blocks * width * arrays * 4
        if need > VMEM:
            raise ValueError(f"needs {need / 2**20:.0f} MiB of VMEM, where {VMEM // 2**20} may be taken")

    def forward(self, rows: SequenceInputs, ones: RowInputs, weights: Weights) -> ForwardOutputs:
        """Cross time."""
        shape = rows.terms[0].shape
        states = [jax.ShapeDtypeStruct(shape, s.dtype) for s in ones.state]
        out = ForwardOutputs(states, jax.ShapeDtypeStruct(shape, weights.w.dtype))
        return self._run(self._cross, self.reverse, rows, ones, weights, (out, _sums(ones.state)))[0]

    def backward(self, rows: SequenceInputs, ones: RowInputs, weights: Weights) -> BackwardOutputs:
        """Walk back."""
        terms = [jax.ShapeDtypeStruct(t.shape, weights.w.dtype) for t in rows.terms]
        local = [jax.ShapeDtypeStruct(ones.state[0].shape, jnp.float32) for _ in weights.local]
        out = BackwardOutputs(terms, _sums(ones.state), _sums(ones.initial), local)
        before = lambda after, state: shifted(after, state.astype(after.dtype), self.reverse)
        rows = rows._replace(states=list(map(before, rows.states, ones.state)))
        return self._run(self._pull, not self.reverse, rows, ones, weights, out)

    def _run(self, body: Callable[..., None], last_first: bool, rows: SequenceInputs, *more: Any) -> Any:
        """Run `body` for every chunk: of `out` it fills the rows, and carries what there is once."""
        ones, weights, out = more
        time = rows.terms[0].shape[0]
        chunk = min(CHUNK, time)
        count = pl.cdiv(time, chunk)
        place = lambda i: count - 1 - i if last_first else i
        rows = rows._replace(valid=_column(rows.valid), reset=_column(rows.reset))

        def spec(a: Any) -> pl.BlockSpec:
            if a.shape[0] == time and a.ndim == 3:
                return pl.BlockSpec((chunk, *a.shape[1:]), lambda i: (place(i), 0, 0))
            return pl.BlockSpec(a.shape, lambda i: (0,) * a.ndim)

        def kernel(rows: SequenceInputs, ones: RowInputs, weights: Weights, out: Any) -> None:
            point = pl.program_id(0)
            steps = jnp.minimum(chunk, time - chunk * place(point))
            body(lambda i: steps - 1 - i if last_first else i, steps, point == 0, rows, ones, weights, out)

        axes = varying((rows, ones, weights))
        rows, ones, weights = vary((rows, ones, weights), axes)
        call = pl.pallas_call(
            kernel,
            out_shape=(jax.tree.map(lambda o: like(o, rows), out),),
            grid=(count,),
            in_specs=jax.tree.map(spec, (rows, ones, weights)),
            out_specs=(jax.tree.map(spec, out),),
            compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",), vmem_limit_bytes=VMEM),
            interpret=self.interpret,
        )
        return call(rows, ones, weights)[0]

    def _cross(
        self, order: Any, steps: Any, begin: Any, rows: SequenceInputs, ones: RowInputs, weights: Weights, out: Any
    ) -> None:
        """Cross a chunk."""
        out, carried = out
        eq, initial, local = self.equation, _wide(ones.initial), _wide(weights.local)

        @pl.when(begin)
        def _() -> None:
            _put(carried, _wide(ones.state))

        def step(i: Any, s: Tiles) -> Tiles:
            t = order(i)
            r = eq.read(s).astype(out.reads.dtype)
            out.reads[t] = r
            s = eq.step(s, _wide(rows.terms, t), _times(r, weights.w), local, _mark(rows.valid, t))
            _put(out.states, s, t)
            return eq.apply_reset(s, _mark(rows.reset, t), initial)

        _put(carried, lax.fori_loop(0, steps, step, _wide(carried)))

    def _pull(
        self,
        order: Any,
        steps: Any,
        begin: Any,
        rows: SequenceInputs,
        ones: RowInputs,
        weights: Weights,
        out: BackwardOutputs,
    ) -> None:
        """Walk back over a chunk."""
        eq, initial, local = self.equation, _wide(ones.initial), _wide(weights.local)
        sums = (out.state, out.initial, out.local)

        @pl.when(begin)
        def _() -> None:
            _put(out.state, _wide(ones.dfinal))
            for ref in (*out.initial, *out.local):
                ref[...] = jnp.zeros_like(ref)

        def step(i: Any, carry: Any) -> Any:
            t = order(i)
            ds, dinitial, dlocal = carry
            ds = added(ds, [None if d is None else d[t] for d in rows.dstates])
            reset = _mark(rows.reset, t)
            s = eq.apply_reset(_wide(rows.states, t), reset, initial)
            linear = eq.linearise(s, _wide(rows.terms, t), local)
            ds, dterms, dl = eq.pull(linear, _mark(rows.valid, t), ds)
            dterms = [d.astype(ref.dtype) for d, ref in zip(dterms, out.terms, strict=True)]
            _put(out.terms, dterms, t)
            dr = _times_transposed([dterms[j] for j in eq.recurrent_cotangents()], weights.w)
            ds, dinitial = eq.begun(plus(ds, eq.pull_read(linear, dr)), reset, dinitial)
            return ds, dinitial, plus(dlocal, dl)

        for refs, tiles in zip(sums, lax.fori_loop(0, steps, step, tuple(map(_wide, sums))), strict=True):
            _put(refs, tiles)


def _times(r: jax.Array, w: Any) -> Tiles:
    """v = r W: of r (B, N K) and w (N, K, G, K) G tiles (B, N K)."""
    count, width, gates, _ = w.shape
    parts = [r[:, n * width : (n + 1) * width] for n in range(count)]
    return [jnp.concatenate([_dot(part, w[n, :, g], 0) for n, part in enumerate(parts)], 1) for g in range(gates)]


def _times_transposed(dv: Tiles, w: Any) -> jax.Array:
    """dr: the sum over gates of dv_g W_g^T."""
    count, width, gates, _ = w.shape
    cut = lambda a, n: a[:, n * width : (n + 1) * width]
    return jnp.concatenate([sum(_dot(cut(dv[g], n), w[n, :, g], 1) for g in range(gates)) for n in range(count)], 1)


def _dot(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    """a times b over a's last axis and b's `axis`, summed in float32."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    how = {"precision": precision, "preferred_element_type": jnp.float32}
    return lax.dot_general(a, b, (((1,), (axis,)), ((), ())), **how)


def _column(mark: Any) -> Any:
    """A mark (T, B) as a column of numbers (T, B, 1): a kernel has no booleans in memory."""
    return None if mark is None else mark[:, :, None].astype(jnp.float32)


def _mark(column: Any, t: Any) -> Any:
    return None if column is None else column[t] > 0


def _sums(tiles: Tiles) -> Any:
    return [jax.ShapeDtypeStruct(a.shape, jnp.float32) for a in tiles]


def _wide(refs: Any, t: Any = slice(None)) -> Tiles:
    return wide([ref[t] for ref in refs])


def _put(refs: Any, tiles: Tiles, t: Any = slice(None)) -> None:
    for ref, tile in zip(refs, tiles, strict=True):
        ref[t] = tile.astype(ref.dtype)
