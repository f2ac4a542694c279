"""The kernel for a Hopper GPU, in Pallas' Mosaic backend: a persistent grid, its weights on the chip.

A block of threads owns n units of a block of weights, for b rows of the batch: the G n columns of its weights stay in
its registers and its shared memory for the whole sequence. In each step the blocks that share rows and weights publish
what they read of their states in global memory; each takes the whole of it, as soon as it is there, and multiplies it
with its weights. Way back likewise, with the gradients for v in place of the state, and sums over the gates.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from ..._core.sharding import vary, varying
from .calls import BackwardOutputs, ForwardOutputs, RowInputs, SequenceInputs, Weights, like
from .equation import Equation, Tiles, added, plus, wide
from .exchange import Exchange
from .tiling import Tiling
from .warp import KINDS

EXPECTED = 8  # steps that what a step looks at is brought nearer ahead of it


@dataclasses.dataclass(frozen=True)
class Hopper:
    """The time loop of an equation.

    Args:
        equation: what a step does besides its matmul.
        reverse: whether from the last step to the first.
    """

    equation: Equation
    reverse: bool

    def check(self, shape: tuple[int, ...], dtype: Any, batch: int, back: bool) -> None:
        """Raise ValueError where weights (N, K, G, K) of a dtype are not for the kernel."""
        config: Any = jax.config
        precision = config.jax_default_matmul_precision
        if dtype == jnp.float32 and precision not in (None, "default", "fastest", "bfloat16", "tensorfloat32"):
            raise ValueError(f"multiplies float32 in TF32 on a GPU, and jax_default_matmul_precision is {precision}")
        if jnp.dtype(dtype).name not in KINDS:
            raise ValueError(f"multiplies {', '.join(KINDS)} on a GPU, not {jnp.dtype(dtype).name}")
        Tiling.of(shape, dtype, batch, shape[2] if back else 1)

    def forward(self, rows: SequenceInputs, ones: RowInputs, weights: Weights) -> ForwardOutputs:
        """Cross time."""
        first = rows.terms[0]
        tiling = Tiling.of(weights.w.shape, weights.w.dtype, first.shape[1], 1)
        array = lambda dtype: jax.ShapeDtypeStruct((len(first), *tiling.shape), dtype)
        out = ForwardOutputs([array(s.dtype) for s in ones.state], array(tiling.dtype))
        slabs = tiling.slabs(weights.w)
        return tiling.cut(self._run(Crossing.cross, tiling, rows, ones, weights.local, slabs, out), first)

    def backward(self, rows: SequenceInputs, ones: RowInputs, weights: Weights) -> BackwardOutputs:
        """Walk back."""
        first = rows.terms[0]
        tiling = Tiling.of(weights.w.shape, weights.w.dtype, first.shape[1], weights.w.shape[2])
        terms = [jax.ShapeDtypeStruct((len(first), *tiling.shape), tiling.dtype) for _ in rows.terms]
        sums = lambda tiles: [jax.ShapeDtypeStruct(tiling.shape, jnp.float32) for _ in tiles]
        out = BackwardOutputs(terms, *map(sums, (ones.state, ones.initial, weights.local)))
        slabs = tiling.slabs(weights.w.transpose(0, 3, 2, 1))
        return tiling.cut(self._run(Crossing.pull, tiling, rows, ones, weights.local, slabs, out), first)

    def _exchanged(self, out: Any) -> list[Any]:
        """Give what blocks hand each other of what they make: what the weights see, or the gradients for v."""
        return (
            [out.reads]
            if isinstance(out, ForwardOutputs)
            else [out.terms[j] for j in self.equation.recurrent_cotangents()]
        )

    def _run(
        self,
        body: Callable[..., None],
        tiling: Tiling,
        rows: SequenceInputs,
        ones: RowInputs,
        local: Any,
        slabs: Any,
        out: Any,
    ) -> Any:
        """Run `body` in every block of threads."""
        local = [jnp.broadcast_to(l, (tiling.batch, l.shape[-1])) for l in local]
        plain, ones, local = tiling.pad((rows._replace(valid=None, reset=None), ones, local))
        marked = plain._replace(valid=tiling.mark(rows.valid), reset=tiling.mark(rows.reset))
        axes = varying((marked, ones, local, slabs))
        operands = vary(((marked, ones, local), slabs), axes)
        typed = functools.partial(jax.tree.map, lambda o: like(o, operands))
        flat, tree = jax.tree.flatten((*operands, typed(out)))
        given = len(flat) - len(jax.tree.leaves(out))

        def kernel(*refs: Any) -> None:
            operands, slabs, out = jax.tree.unflatten(tree, refs[: len(flat)])
            exchange = Exchange.begin(tiling, slabs, self._exchanged(out), *refs[len(flat) :])
            body(Crossing(self.equation, self.reverse, len(rows.terms[0]), exchange, *operands), out)

        made = plgpu.kernel(
            kernel,
            out_type=flat[given:],
            grid=(tiling.batch // tiling.rows, tiling.blocks, tiling.members),
            grid_names=("rows", "block", "member"),
            scratch_types=[
                plgpu.SMEM((tiling.streamed,), jnp.int32),
                plgpu.SMEM(tiling.products, jnp.float32),
            ],
        )(*flat[:given])
        return vary(jax.tree.unflatten(jax.tree.structure(out), made), axes)


@dataclasses.dataclass(frozen=True)
class Crossing:
    """What a block of threads does; `rows`, `ones` and `local` are what `Hopper` is handed, in global memory.

    Attributes:
        equation: what a step does besides its matmul.
        reverse: whether from the last step to the first.
        steps: T.
        exchange: what the block has.
        rows: what it looks at in every step.
        ones: what there is once for every row.
        local: params of the gate.
    """

    equation: Equation
    reverse: bool
    steps: int
    exchange: Exchange
    rows: SequenceInputs
    ones: RowInputs
    local: Any

    def at(self, i: Any) -> Any:
        """Say which step is crossed as the i-th."""
        return self.steps - 1 - i if self.reverse else i

    def masks(self, t: Any) -> tuple[Any, Any]:
        """Load the masks of a step."""
        return self.exchange.mark(self.rows.valid, t), self.exchange.mark(self.rows.reset, t)

    def once(self, refs: Any) -> Tiles:
        """Load tiles of what there is once."""
        return wide(self.exchange.load(refs))

    def cross(self, out: ForwardOutputs) -> None:
        """Cross time."""
        eq, exchange, steps = self.equation, self.exchange, self.steps
        initial, local = self.once(self.ones.initial), self.once(self.local)

        def terms(i: Any) -> Any:
            t = self.at(jnp.minimum(i, steps - 1))
            return exchange.load(self.rows.terms, t), *self.masks(t)

        def publish(s: Tiles, i: Any) -> None:
            exchange.publish([out.reads], [eq.read(s)], self.at(i))

        def step(i: Any, carry: Any) -> Any:
            s, (u, valid, reset) = carry
            fetched = exchange.fetch([out.reads], self.at(i))
            ahead = terms(i + 1)  # here: loads are answered in turn, and the others' must not wait for these
            exchange.expect(self.rows.terms, self.at(jnp.minimum(i + EXPECTED, steps - 1)))
            exchange.multiply(*fetched)
            v = list(map(exchange.product, range(exchange.tiling.gates)))
            new = eq.step(s, wide(u), v, local, _holds(valid))
            s = eq.apply_reset(new, _holds(reset), initial)
            pl.when(i + 1 < steps)(lambda: publish(s, i + 1))
            exchange.store(out.states, new, self.at(i))
            return s, ahead

        s = self.once(self.ones.state)
        publish(s, 0)
        lax.fori_loop(0, steps, step, (s, terms(0)))

    def pull(self, out: BackwardOutputs) -> None:
        """Walk back."""
        eq, exchange = self.equation, self.exchange
        initial, local = self.once(self.ones.initial), self.once(self.local)
        recurrent_cotangents = eq.recurrent_cotangents()
        rest = [j for j in range(eq.count) if j not in recurrent_cotangents]
        last, first, terms = self.steps - 1, self.once(self.ones.state), self._terms_back

        def look(i: Any, loaded: Any) -> Any:
            """Do all of the i-th step back that need not wait for the one before it."""
            merged, s, dstates, valid, reset = loaded
            s = [jnp.where(jnp.broadcast_to(i < last, f.shape), b, f) for b, f in zip(wide(s), first, strict=True)]
            s = eq.apply_reset(s, _holds(reset), initial)
            here = lambda n: n if n.dtype == jnp.bool_ else lax.optimization_barrier(n)
            return jax.tree.map(here, eq.linearise(s, wide(merged), local)), dstates, valid, reset

        linear, *masks = look(0, terms(0))
        form = jax.tree.structure(linear)  # of two traces none are equal: the leaves are, in the same order

        def step(i: Any, carry: Any) -> Any:
            (ds, dinitial, dlocal), (numbers, dstates, valid, reset), loaded = carry
            t, linear = self.at(last - i), jax.tree.unflatten(form, numbers)
            ds, dterms, more = eq.pull(linear, _holds(valid), added(ds, dstates))
            exchange.publish([out.terms[j] for j in recurrent_cotangents], [dterms[j] for j in recurrent_cotangents], t)
            exchange.store([out.terms[j] for j in rest], [dterms[j] for j in rest], t)
            soon, *soon_marks = look(i + 1, loaded)  # here: while the others' gradients are on their way
            fetched = exchange.fetch([out.terms[j] for j in recurrent_cotangents], t)
            later = terms(i + 2)
            ahead = self.at(last - jnp.minimum(i + EXPECTED, last))
            exchange.expect([*self.rows.terms, *self.rows.states, *self.rows.dstates], ahead)
            exchange.multiply(*fetched)
            ds = plus(ds, eq.pull_read(linear, exchange.product(0)))
            ds, dinitial = eq.begun(ds, _holds(reset), dinitial)
            return (ds, dinitial, plus(dlocal, more)), (jax.tree.leaves(soon), *soon_marks), later

        zeros = lambda refs: [exchange.zeros() for _ in refs]
        sums = (self.once(self.ones.dfinal), zeros(out.initial), zeros(out.local))
        sums, *_ = lax.fori_loop(0, self.steps, step, (sums, (jax.tree.leaves(linear), *masks), terms(1)))
        for refs, tiles in zip((out.state, out.initial, out.local), sums, strict=True):
            exchange.store(refs, tiles)

    def _terms_back(self, i: Any) -> Any:
        """Load all that a step looks at on the way back, the i-th from the end, no further than the first."""
        last = self.steps - 1
        t, before = (self.at(last - jnp.minimum(j, last)) for j in (i, i + 1))
        states = self.exchange.load(self.rows.states, before)
        return self.exchange.load(self.rows.terms, t), states, self.exchange.load(self.rows.dstates, t), *self.masks(t)


def _holds(mark: Any) -> Any:
    return None if mark is None else mark > 0
