"""The two calls into the library as JAX functions, with their rules for `vmap` and for a batch that is sharded.

T time, B batch, I input features, H hidden units, G gates, S arrays of state, L local params. All arrays but weights
have the batch as axis 1. Fields stand in the order in which `ffi.cc` takes them; None is an array that is absent.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from ..._core.sharding import vary, varying
from ..vmap_rule import fold, unfold
from . import library
from .portable import portable

PADDED_TO = 16  # of job.h


class Weights(NamedTuple):
    """w_x (I, G, H), w_h (H, G, H), b (G, H), local (L, H), float32."""

    w_x: Any
    w_h: Any
    b: Any
    local: Any


class Operands(NamedTuple):
    """xs (T, B, I), state and initial (S, B, H), float32; valid and reset (T, B), booleans."""

    xs: Any
    weights: Weights
    state: Any
    initial: Any
    valid: Any
    reset: Any


class ForwardOutputs(NamedTuple):
    """ys (T, B, H), final (S, B, H), and what the way back needs, (T, B, ...), for its eyes only."""

    ys: Any
    final: Any
    kept: Any


class Cotangents(NamedTuple):
    """The gradients for ys and final."""

    ys: Any
    final: Any


class Gradients(NamedTuple):
    """The gradients for the operands; those for weights hold one group after the other in their leading axis."""

    xs: Any
    weights: Weights
    state: Any
    initial: Any


class Twin(Protocol):
    """A kernel's equation in JAX, a frozen value: for second derivatives, and for programs that are exported."""

    @property
    def kernel(self) -> str:
        """The name of the kernel in `kernel.cc`."""
        ...

    @property
    def reverse(self) -> bool:
        """Whether time runs from the last step to the first."""
        ...

    @property
    def portable(self) -> bool:
        """Whether it takes the kernel's place in a program that is exported."""
        ...

    def forward(self, operands: Operands) -> tuple[jax.Array, jax.Array]:
        """Return ys (T, B, H) and the final state (S, B, H)."""
        ...

    def backward(self, operands: Operands, cotangents: Cotangents) -> Gradients:
        """Return the gradients for the operands; None in the cotangents stands for zero."""
        ...


@dataclasses.dataclass(frozen=True)
class Forward:
    """Cross time.

    Args:
        twin: the same computation in JAX.
        keep: whether to keep what the way back needs.
    """

    twin: Twin
    keep: bool

    def __call__(self, operands: Operands) -> ForwardOutputs:
        """Call the library, under the rules below."""
        return _ruled(self)(operands)

    def direct(self, operands: Operands) -> ForwardOutputs:
        """Call the library."""
        (time, batch, _), hidden = operands.xs.shape, operands.state.shape[-1]
        kept = self._kept(operands) if self.keep else None
        results = ForwardOutputs(_floats(time, batch, hidden), _floats(*operands.state.shape), kept)
        return _call("jaxrnn_forward", results, operands, cell=self.twin.kernel, reverse=self.twin.reverse)

    def in_jax(self, operands: Operands) -> ForwardOutputs:
        """Return the same without the library; nothing is kept, since `Backward.in_jax` computes it again."""
        ys, final = self.twin.forward(operands)
        kept = self._kept(operands) if self.keep else None
        return ForwardOutputs(ys, final, None if kept is None else jnp.zeros(kept.shape, kept.dtype))

    def _kept(self, operands: Operands) -> jax.ShapeDtypeStruct:
        width = library.kept(self.twin.kernel) * -(-operands.state.shape[-1] // PADDED_TO) * PADDED_TO
        return _floats(*operands.xs.shape[:2], width)

    def widened(self, size: int) -> Forward:
        """Be the call for `size` times the batch."""
        return self


@dataclasses.dataclass(frozen=True)
class Backward:
    """Walk back.

    Args:
        twin: the same computation in JAX.
        inputs: whether gradients for the inputs are wanted.
        groups: equal parts of the batch, each with gradients for weights of its own; more than 1 under `vmap` alone.
    """

    twin: Twin
    inputs: bool
    groups: int = 1

    def __call__(self, operands: Operands, crossed: ForwardOutputs, cotangents: Cotangents) -> Gradients:
        """Call the library, under the rules below."""
        return _ruled(self)(operands, crossed._replace(final=None), cotangents)

    def direct(self, operands: Operands, crossed: ForwardOutputs, cotangents: Cotangents) -> Gradients:
        """Call the library."""
        like = lambda a: None if a is None else _floats(*a.shape)
        weights = Weights(*(_floats(self.groups * len(w), *w.shape[1:]) for w in operands.weights))
        xs = like(operands.xs) if self.inputs else None
        results = Gradients(xs, weights, like(operands.state), like(operands.initial))
        how = {"cell": self.twin.kernel, "reverse": self.twin.reverse, "groups": np.int64(self.groups)}
        return _call("jaxrnn_backward", results, operands, crossed.ys, crossed.kept, cotangents, **how)

    def in_jax(self, operands: Operands, crossed: ForwardOutputs, cotangents: Cotangents) -> Gradients:
        """Return the same without the library."""
        if self.groups > 1:
            raise ValueError("a gradient under jax.vmap is not exported with Native(): name driver=jaxrnn.BPTT().")
        gradients = self.twin.backward(operands, cotangents)
        return gradients if self.inputs else gradients._replace(xs=None)

    def widened(self, size: int) -> Backward:
        """Be the call for `size` times the batch."""
        return dataclasses.replace(self, groups=size * self.groups)


Way = Forward | Backward


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _call(target: str, results: Any, operands: Operands, *more: Any, **how: Any) -> Any:
    """Call a handler. In place of an absent array it is handed, and gives, one of no elements."""
    absent = lambda a: a is None
    fill = lambda tree, nothing: [nothing if a is None else a for a in jax.tree.leaves(tree, is_leaf=absent)]
    *floats, valid, reset = operands
    none, no_flags = jnp.zeros(0, jnp.float32), jnp.zeros(0, bool)
    arrays = [*fill(floats, none), *fill((valid, reset), no_flags), *fill(more, none)]
    got = jax.ffi.ffi_call(target, fill(results, _floats(0)))(*arrays, **how)
    wanted, tree = jax.tree.flatten(results, is_leaf=absent)
    return jax.tree.unflatten(tree, [None if r is None else g for r, g in zip(wanted, got, strict=True)])


# The rule for vmap: over data a call becomes one with a larger batch, over weights a loop.


@functools.cache
def _ruled(way: Way) -> Callable[..., Any]:
    call = custom_vmap(functools.partial(_on_devices, way))

    @call.def_vmap
    def rule(size: int, mapped: Any, *operands: Any) -> Any:
        mapped = tuple(mapped)
        if any(jax.tree.leaves(mapped[0].weights)):
            member = lambda i: jax.tree.map(lambda a, m: a[i] if m else a, operands, mapped)
            out = jax.lax.map(lambda i: way(*member(i)), jnp.arange(size))
        else:
            wide, *more = jax.tree.map(lambda a, m: fold(a, m, size, 1), operands, mapped)
            out = _unfold(size, way.widened(size)(wide._replace(weights=operands[0].weights), *more))
        return out, jax.tree.map(lambda _: True, out)

    return call


def _unfold(size: int, out: ForwardOutputs | Gradients) -> Any:
    """Undo that."""
    apart = lambda a: unfold(a, size, 1)
    if isinstance(out, ForwardOutputs):
        return jax.tree.map(apart, out)
    each = lambda a: a.reshape(size, a.shape[0] // size, *a.shape[1:])
    xs, state, initial = jax.tree.map(apart, (out.xs, out.state, out.initial))
    return Gradients(xs, jax.tree.map(each, out.weights), state, initial)


# The rule for several devices: a batch that is sharded stays so, and gradients for weights are summed over devices.


def _on_devices(way: Way, *operands: Any) -> Any:
    if axes := varying(operands):
        return vary(way.direct(*operands), axes)
    split = way.direct if jax.device_count() == 1 else functools.partial(_partitioned, way)
    return portable(split, way.in_jax, *operands) if way.twin.portable else split(*operands)


def _partitioned(way: Way, *operands: Any) -> Any:
    leaves, tree = jax.tree.flatten(operands)
    flat = lambda *leaves: tuple(jax.tree.leaves(way.direct(*jax.tree.unflatten(tree, leaves))))
    out = jax.eval_shape(way.direct, *operands)
    rows_in, rows_out = _have_rows(operands), _have_rows((out,))
    call = custom_partitioning(flat)

    def partition(mesh: Any, arguments: Any, results: Any) -> Any:
        spec = arguments[rows_in.index(True)].sharding.spec
        axis = spec[1] if len(spec) > 1 and getattr(way, "groups", 1) == 1 else None

        def lower(*leaves: Any) -> Any:
            out = zip(flat(*leaves), rows_out, strict=True)
            return tuple(o if row or axis is None else jax.lax.psum(o, axis) for o, row in out)

        lay = lambda rows: tuple(NamedSharding(mesh, PartitionSpec(*((None, axis) if r else ()))) for r in rows)
        return mesh, lower, lay(rows_out), lay(rows_in)

    rule = f"{_factors(leaves, rows_in)} -> {_factors(jax.tree.leaves(out), rows_out, len(leaves))}"
    call.def_partition(partition, sharding_rule=rule)
    return jax.tree.unflatten(jax.tree.structure(out), call(*leaves))


def _have_rows(trees: tuple[Any, ...]) -> list[bool]:
    """Say of every leaf whether its axis 1 is the batch: in all but weights."""
    flags = [jax.tree.map(lambda _: True, tree) for tree in trees]
    of_weights = lambda t: t._replace(weights=jax.tree.map(lambda _: False, t.weights)) if hasattr(t, "weights") else t
    return jax.tree.leaves([of_weights(t) for t in flags])


def _factors(arrays: Any, rows: list[bool], first: int = 0) -> str:
    """Name the axes for Shardy: the batch is b, no two others are the same."""
    name = lambda i, axis, row: "b" if row and axis == 1 else f"a{i}x{axis}"
    one = lambda i, array, row: " ".join(name(first + i, axis, row) for axis in range(array.ndim))
    return ", ".join(one(i, a, r) for i, (a, r) in enumerate(zip(arrays, rows, strict=True)))
