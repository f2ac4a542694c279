"""The kernel for a Hopper GPU, in the Mosaic backend of Pallas: a persistent grid with its weights on the chip.

A thread block owns n units of a block of weights, for b rows of the batch. The G n columns of its weights stay in
registers and shared memory for the whole sequence. In each step the thread blocks that share rows and weights publish
what they read of their states in global memory. Each loads all of it, as soon as it is available, and multiplies it
with its weights. The backward pass does the same with the gradients of v in place of the state, and sums over gates.
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
from .warp import MMA_TYPES

PREFETCH_STEPS = 8  # how many steps ahead inputs are prefetched into L2


@dataclasses.dataclass(frozen=True)
class Hopper:
    """The time loop of an equation.

    Args:
        equation: the step without its matmul.
        reverse: whether time runs from the last step to the first.
    """

    equation: Equation
    reverse: bool

    def check(self, shape: tuple[int, ...], dtype: Any, batch: int, backward: bool) -> None:
        """Raise ValueError if the kernel does not take weights (N, K, G, K) of a dtype."""
        config: Any = jax.config
        precision = config.jax_default_matmul_precision
        if dtype == jnp.float32 and precision not in (None, "default", "fastest", "bfloat16", "tensorfloat32"):
            raise ValueError(f"multiplies float32 in TF32 on a GPU, and jax_default_matmul_precision is {precision}")
        if jnp.dtype(dtype).name not in MMA_TYPES:
            raise ValueError(f"multiplies {', '.join(MMA_TYPES)} on a GPU, not {jnp.dtype(dtype).name}")
        Tiling.of(shape, dtype, batch, shape[2] if backward else 1)

    def forward(self, sequences: SequenceInputs, rows: RowInputs, weights: Weights) -> ForwardOutputs:
        """Run the forward pass."""
        first = sequences.preactivations[0]
        tiling = Tiling.of(weights.w.shape, weights.w.dtype, first.shape[1], 1)
        array = lambda dtype: jax.ShapeDtypeStruct((len(first), *tiling.shape), dtype)
        out = ForwardOutputs([array(s.dtype) for s in rows.state], array(tiling.dtype))
        fragments = tiling.fragments_of(weights.w)
        padded = self._run(BlockLoop.forward, tiling, sequences, rows, weights.local, fragments, out)
        outputs: ForwardOutputs = tiling.unpad(padded, first)
        return outputs

    def backward(self, sequences: SequenceInputs, rows: RowInputs, weights: Weights) -> BackwardOutputs:
        """Run the backward pass."""
        first = sequences.preactivations[0]
        tiling = Tiling.of(weights.w.shape, weights.w.dtype, first.shape[1], weights.w.shape[2])
        preactivations = [
            jax.ShapeDtypeStruct((len(first), *tiling.shape), tiling.dtype) for _ in sequences.preactivations
        ]
        sums = lambda tiles: [jax.ShapeDtypeStruct(tiling.shape, jnp.float32) for _ in tiles]
        out = BackwardOutputs(preactivations, *map(sums, (rows.state, rows.reset_state, weights.local)))
        fragments = tiling.fragments_of(weights.w.transpose(0, 3, 2, 1))
        padded = self._run(BlockLoop.backward, tiling, sequences, rows, weights.local, fragments, out)
        gradients: BackwardOutputs = tiling.unpad(padded, first)
        return gradients

    def _exchanged(self, out: Any) -> list[Any]:
        """Return the outputs that thread blocks exchange: what the weights read, or the gradients of v."""
        return (
            [out.recurrent_reads]
            if isinstance(out, ForwardOutputs)
            else [out.preactivations[j] for j in self.equation.recurrent_cotangents()]
        )

    def _run(
        self,
        body: Callable[..., None],
        tiling: Tiling,
        sequences: SequenceInputs,
        rows: RowInputs,
        local: Any,
        fragments: Any,
        out: Any,
    ) -> Any:
        """Run `body` in every thread block."""
        local = [jnp.broadcast_to(l, (tiling.batch, l.shape[-1])) for l in local]
        unmasked, rows, local = tiling.pad((sequences._replace(valid=None, reset=None), rows, local))
        masked = unmasked._replace(valid=tiling.spread_mask(sequences.valid), reset=tiling.spread_mask(sequences.reset))
        axes = varying((masked, rows, local, fragments))
        operands = vary(((masked, rows, local), fragments), axes)
        with_type = functools.partial(jax.tree.map, lambda o: like(o, operands))
        flat, tree = jax.tree.flatten((*operands, with_type(out)))
        given = len(flat) - len(jax.tree.leaves(out))

        def kernel(*refs: Any) -> None:
            operands, fragments, out = jax.tree.unflatten(tree, refs[: len(flat)])
            exchange = Exchange.begin(tiling, fragments, self._exchanged(out), *refs[len(flat) :])
            body(BlockLoop(self.equation, self.reverse, len(sequences.preactivations[0]), exchange, *operands), out)

        arrays = plgpu.kernel(
            kernel,
            out_type=flat[given:],
            grid=(tiling.batch // tiling.rows, tiling.blocks, tiling.members),
            grid_names=("rows", "block", "member"),
            scratch_types=[
                plgpu.SMEM((tiling.streamed,), jnp.int32),
                plgpu.SMEM(tiling.products, jnp.float32),
            ],
        )(*flat[:given])
        return vary(jax.tree.unflatten(jax.tree.structure(out), arrays), axes)


@dataclasses.dataclass(frozen=True)
class BlockLoop:
    """The time loop of a thread block; `sequences`, `rows` and `local` are the inputs of `Hopper`, in global memory.

    Attributes:
        equation: the step without its matmul.
        reverse: whether time runs from the last step to the first.
        steps: T.
        exchange: the memory of the thread block.
        sequences: the inputs of every step.
        rows: the inputs of a sequence as a whole.
        local: params of the gate.
    """

    equation: Equation
    reverse: bool
    steps: int
    exchange: Exchange
    sequences: SequenceInputs
    rows: RowInputs
    local: Any

    def at(self, i: Any) -> Any:
        """Return the time of the i-th step in running order."""
        return self.steps - 1 - i if self.reverse else i

    def masks(self, t: Any) -> tuple[Any, Any]:
        """Load the masks of a step."""
        return self.exchange.load_mask(self.sequences.valid, t), self.exchange.load_mask(self.sequences.reset, t)

    def load_rows(self, refs: Any) -> Tiles:
        """Load tiles (B, H)."""
        return wide(self.exchange.load(refs))

    def forward(self, out: ForwardOutputs) -> None:
        """Run the forward pass."""
        eq, exchange, steps = self.equation, self.exchange, self.steps
        reset_state, local = self.load_rows(self.rows.reset_state), self.load_rows(self.local)

        def load(i: Any) -> Any:
            t = self.at(jnp.minimum(i, steps - 1))
            return exchange.load(self.sequences.preactivations, t), *self.masks(t)

        def publish(s: Tiles, i: Any) -> None:
            exchange.publish([out.recurrent_reads], [eq.read(s)], self.at(i))

        def step(i: Any, carry: Any) -> Any:
            s, (u, valid, reset) = carry
            fetched = exchange.fetch([out.recurrent_reads], self.at(i))
            ahead = load(
                i + 1
            )  # after `fetch`: loads are served in order, and those of `fetch` must not wait for these
            exchange.prefetch(self.sequences.preactivations, self.at(jnp.minimum(i + PREFETCH_STEPS, steps - 1)))
            exchange.multiply(*fetched)
            v = list(map(exchange.product, range(exchange.tiling.gates)))
            new = eq.step(s, wide(u), v, local, _as_bool(valid))
            s = eq.apply_reset(new, _as_bool(reset), reset_state)
            pl.when(i + 1 < steps)(lambda: publish(s, i + 1))
            exchange.store(out.states, new, self.at(i))
            return s, ahead

        s = self.load_rows(self.rows.state)
        publish(s, 0)
        lax.fori_loop(0, steps, step, (s, load(0)))

    def backward(self, out: BackwardOutputs) -> None:
        """Run the backward pass."""
        eq, exchange = self.equation, self.exchange
        reset_state, local = self.load_rows(self.rows.reset_state), self.load_rows(self.local)
        recurrent_cotangents = eq.recurrent_cotangents()
        rest = [j for j in range(eq.num_preactivations) if j not in recurrent_cotangents]
        last, first, load = self.steps - 1, self.load_rows(self.rows.state), self._load_backward

        def prepare(i: Any, loaded: Any) -> Any:
            """Compute the part of the i-th backward step that does not depend on the one before it."""
            merged, s, dstates, valid, reset = loaded
            s = [jnp.where(jnp.broadcast_to(i < last, f.shape), b, f) for b, f in zip(wide(s), first, strict=True)]
            s = eq.apply_reset(s, _as_bool(reset), reset_state)
            here = lambda n: n if n.dtype == jnp.bool_ else lax.optimization_barrier(n)
            return jax.tree.map(here, eq.linearize(s, wide(merged), local)), dstates, valid, reset

        linear, *masks = prepare(0, load(0))
        treedef = jax.tree.structure(
            linear
        )  # each trace has another tree structure, with the same leaves in the same order

        def step(i: Any, carry: Any) -> Any:
            (ds, dreset_state, dlocal), (numbers, dstates, valid, reset), loaded = carry
            t, linear = self.at(last - i), jax.tree.unflatten(treedef, numbers)
            ds, dpreactivations, more = eq.step_vjp(linear, _as_bool(valid), added(ds, dstates))
            exchange.publish(
                [out.preactivations[j] for j in recurrent_cotangents],
                [dpreactivations[j] for j in recurrent_cotangents],
                t,
            )
            exchange.store([out.preactivations[j] for j in rest], [dpreactivations[j] for j in rest], t)
            next_linear, *next_masks = prepare(i + 1, loaded)  # here, while the gradients of other thread blocks arrive
            fetched = exchange.fetch([out.preactivations[j] for j in recurrent_cotangents], t)
            later = load(i + 2)
            ahead = self.at(last - jnp.minimum(i + PREFETCH_STEPS, last))
            exchange.prefetch([*self.sequences.preactivations, *self.sequences.states, *self.sequences.dstates], ahead)
            exchange.multiply(*fetched)
            ds = plus(ds, eq.read_vjp(linear, exchange.product(0)))
            ds, dreset_state = eq.reset_vjp(ds, _as_bool(reset), dreset_state)
            return (ds, dreset_state, plus(dlocal, more)), (jax.tree.leaves(next_linear), *next_masks), later

        zeros = lambda refs: [exchange.zeros() for _ in refs]
        sums = (self.load_rows(self.rows.dfinal), zeros(out.reset_state), zeros(out.local))
        sums, *_ = lax.fori_loop(0, self.steps, step, (sums, (jax.tree.leaves(linear), *masks), load(1)))
        for refs, tiles in zip((out.state, out.reset_state, out.local), sums, strict=True):
            exchange.store(refs, tiles)

    def _load_backward(self, i: Any) -> Any:
        """Load the inputs of the i-th backward step; of the last one if there is no i-th."""
        last = self.steps - 1
        t, before = (self.at(last - jnp.minimum(j, last)) for j in (i, i + 1))
        states = self.exchange.load(self.sequences.states, before)
        return (
            self.exchange.load(self.sequences.preactivations, t),
            states,
            self.exchange.load(self.sequences.dstates, t),
            *self.masks(t),
        )


def _as_bool(mask: Any) -> Any:
    return None if mask is None else mask > 0
