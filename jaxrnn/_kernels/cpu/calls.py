"""The forward and the backward call into the library as JAX functions, with rules for `vmap` and for a sharded batch.

T time, B batch, I input features, H hidden units, G gates, S arrays of state, L local params. All arrays but weights
have the batch as axis 1. Fields have the order of the arguments in `ffi.cc`; None stands for an absent array.

`Operands.valid` and `reset` follow the rule of `jaxrnn._core.masks`, which the C++ writes again for speed:
`tests/native/test_native.py::test_equals_scan_in_float64` holds the two equal.
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

PADDED_TO = 16  # as in job.h


class Weights(NamedTuple):
    """w_x (I, G, H), w_h (H, G, H), b (G, H), local (L, H), in one dtype: float32, bfloat16 or float16."""

    w_x: Any
    w_h: Any
    b: Any
    local: Any


class Operands(NamedTuple):
    """xs (T, B, I), state and reset_state (S, B, H) in one of these dtypes each; valid and reset (T, B), booleans."""

    xs: Any
    weights: Weights
    state: Any
    reset_state: Any
    valid: Any
    reset: Any


class ForwardOutputs(NamedTuple):
    """ys (T, B, H), final (S, B, H), and residuals (T, B, ...) for the backward pass, in the layout of the kernel.

    ys and residuals have the dtype of the weights, final that of the state.
    """

    ys: Any
    final: Any
    residuals: Any


class Cotangents(NamedTuple):
    """The cotangents of ys and final; None stands for zero."""

    ys: Any
    final: Any


class Gradients(NamedTuple):
    """The gradients of the operands; those of weights hold one group after the other in their leading axis."""

    xs: Any
    weights: Weights
    state: Any
    reset_state: Any


class JaxEquivalent(Protocol):
    """The equation of a kernel in JAX, a frozen value: for second derivatives, and for programs that are exported."""

    @property
    def kernel(self) -> str:
        """Return the name of the kernel in `kernel.cc`."""
        ...

    @property
    def precision(self) -> str:
        """Return the least precision that its matmuls may have: "float32", "bfloat16_x3" or "bfloat16"."""
        ...

    @property
    def reverse(self) -> bool:
        """Return whether time runs from the last step to the first."""
        ...

    @property
    def portable(self) -> bool:
        """Return whether it replaces the kernel in a program that is exported."""
        ...

    def forward(self, operands: Operands) -> tuple[jax.Array, jax.Array]:
        """Return ys (T, B, H) and the final state (S, B, H)."""
        ...

    def backward(self, operands: Operands, cotangents: Cotangents) -> Gradients:
        """Return the gradients of the operands."""
        ...


@dataclasses.dataclass(frozen=True)
class Forward:
    """The forward pass.

    Args:
        equivalent: the same computation in JAX.
        keep_residuals: whether to return what the backward pass needs.
    """

    equivalent: JaxEquivalent
    keep_residuals: bool

    def __call__(self, operands: Operands) -> ForwardOutputs:
        """Call the library, with the rules below."""
        outputs: ForwardOutputs = _with_vmap_rule(self)(operands)
        return outputs

    def ffi_call(self, operands: Operands) -> ForwardOutputs:
        """Call the library."""
        (time, batch, _), hidden = operands.xs.shape, operands.state.shape[-1]
        residuals = self._residuals(operands) if self.keep_residuals else None
        ys = jax.ShapeDtypeStruct((time, batch, hidden), operands.weights.w_h.dtype)
        results = ForwardOutputs(ys, _like(operands.state), residuals)
        outputs: ForwardOutputs = _call("jaxrnn_forward", self.equivalent, results, operands)
        return outputs

    def in_jax(self, operands: Operands) -> ForwardOutputs:
        """Return the same without the library; residuals are zeros, since `Backward.in_jax` does not use them."""
        ys, final = self.equivalent.forward(operands)
        residuals = self._residuals(operands) if self.keep_residuals else None
        return ForwardOutputs(ys, final, None if residuals is None else jnp.zeros(residuals.shape, residuals.dtype))

    def _residuals(self, operands: Operands) -> jax.ShapeDtypeStruct:
        width = library.num_residuals(self.equivalent.kernel) * -(-operands.state.shape[-1] // PADDED_TO) * PADDED_TO
        return jax.ShapeDtypeStruct((*operands.xs.shape[:2], width), operands.weights.w_h.dtype)

    def for_larger_batch(self, size: int) -> Forward:
        """Return the call for `size` times the batch."""
        return self


@dataclasses.dataclass(frozen=True)
class Backward:
    """The backward pass.

    Args:
        equivalent: the same computation in JAX.
        inputs: whether to compute gradients of the inputs.
        groups: equal parts of the batch with separate gradients of weights; more than 1 only under `vmap`.
    """

    equivalent: JaxEquivalent
    inputs: bool
    groups: int = 1

    def __call__(self, operands: Operands, outputs: ForwardOutputs, cotangents: Cotangents) -> Gradients:
        """Call the library, with the rules below."""
        gradients: Gradients = _with_vmap_rule(self)(operands, outputs._replace(final=None), cotangents)
        return gradients

    def ffi_call(self, operands: Operands, outputs: ForwardOutputs, cotangents: Cotangents) -> Gradients:
        """Call the library."""
        weights = Weights(*(_like(w, self.groups * len(w)) for w in operands.weights))
        xs = _like(operands.xs) if self.inputs else None
        results = Gradients(xs, weights, _like(operands.state), _like(operands.reset_state))
        more = (outputs.ys, outputs.residuals, cotangents)
        groups = np.int64(self.groups)
        gradients: Gradients = _call("jaxrnn_backward", self.equivalent, results, operands, *more, groups=groups)
        return gradients

    def in_jax(self, operands: Operands, outputs: ForwardOutputs, cotangents: Cotangents) -> Gradients:
        """Return the same without the library."""
        if self.groups > 1:
            raise ValueError("a gradient under jax.vmap is not exported with Native(): name driver=jaxrnn.BPTT().")
        gradients = self.equivalent.backward(operands, cotangents)
        return gradients if self.inputs else gradients._replace(xs=None)

    def for_larger_batch(self, size: int) -> Backward:
        """Return the call for `size` times the batch."""
        return dataclasses.replace(self, groups=size * self.groups)


KernelCall = Forward | Backward


def _like(array: Any, rows: int | None = None) -> Any:
    """Return the shape and dtype of an array, with another number of rows if one is given; None for None."""
    if array is None:
        return None
    return jax.ShapeDtypeStruct(array.shape if rows is None else (rows, *array.shape[1:]), array.dtype)


def _call(
    target: str, equivalent: JaxEquivalent, results: Any, operands: Operands, *more: Any, **attributes: Any
) -> Any:
    """Call a handler, which takes and returns an empty array for each absent one."""
    absent = lambda a: a is None
    fill = lambda tree, empty: [empty if a is None else a for a in jax.tree.leaves(tree, is_leaf=absent)]
    *numbers, valid, reset = operands
    none, no_flags = jnp.zeros(0, jnp.float32), jnp.zeros(0, bool)
    arrays = [*fill(numbers, none), *fill((valid, reset), no_flags), *fill(more, none)]
    call = jax.ffi.ffi_call(target, fill(results, _like(none)))
    of_cell = {"cell": equivalent.kernel, "precision": equivalent.precision, "reverse": equivalent.reverse}
    got = call(*arrays, **of_cell, **attributes)
    wanted, tree = jax.tree.flatten(results, is_leaf=absent)
    return jax.tree.unflatten(tree, [None if r is None else g for r, g in zip(wanted, got, strict=True)])


# The rule for vmap: over data a call becomes one with a larger batch; over weights it becomes a loop.


@functools.cache
def _with_vmap_rule(kernel: KernelCall) -> Callable[..., Any]:
    call = custom_vmap(functools.partial(_on_devices, kernel))

    @call.def_vmap
    def rule(size: int, mapped: Any, *operands: Any) -> Any:
        mapped = tuple(mapped)
        if any(jax.tree.leaves(mapped[0].weights)):
            member = lambda i: jax.tree.map(lambda a, m: a[i] if m else a, operands, mapped)
            out = jax.lax.map(lambda i: kernel(*member(i)), jnp.arange(size))
        else:
            wide, *more = jax.tree.map(lambda a, m: fold(a, m, size, 1), operands, mapped)
            out = _unfold(size, kernel.for_larger_batch(size)(wide._replace(weights=operands[0].weights), *more))
        return out, jax.tree.map(lambda _: True, out)

    return call


def _unfold(size: int, out: ForwardOutputs | Gradients) -> Any:
    """Return the outputs with the mapped axis in front again."""
    unfolded = lambda a: unfold(a, size, 1)
    if isinstance(out, ForwardOutputs):
        return jax.tree.map(unfolded, out)
    each = lambda a: a.reshape(size, a.shape[0] // size, *a.shape[1:])
    xs, state, reset_state = jax.tree.map(unfolded, (out.xs, out.state, out.reset_state))
    return Gradients(xs, jax.tree.map(each, out.weights), state, reset_state)


# The rule for several devices: a sharded batch stays sharded, and gradients of weights are summed over devices.


def _on_devices(kernel: KernelCall, *operands: Any) -> Any:
    if axes := varying(operands):
        return vary(kernel.ffi_call(*operands), axes)
    split = kernel.ffi_call if jax.device_count() == 1 else functools.partial(_partitioned, kernel)
    return portable(split, kernel.in_jax, *operands) if kernel.equivalent.portable else split(*operands)


def _partitioned(kernel: KernelCall, *operands: Any) -> Any:
    leaves, tree = jax.tree.flatten(operands)
    flat = lambda *leaves: tuple(jax.tree.leaves(kernel.ffi_call(*jax.tree.unflatten(tree, leaves))))
    out = jax.eval_shape(kernel.ffi_call, *operands)
    rows_in, rows_out = _have_batch(operands), _have_batch((out,))
    call = custom_partitioning(flat)

    def partition(mesh: Any, arguments: Any, results: Any) -> Any:
        spec: Any = getattr(arguments[rows_in.index(True)].sharding, "spec", ())  # GSPMD has none
        axis = spec[1] if len(spec) > 1 and getattr(kernel, "groups", 1) == 1 else None

        def lower(*leaves: Any) -> Any:
            out = zip(flat(*leaves), rows_out, strict=True)
            return tuple(o if row or axis is None else jax.lax.psum(o, axis) for o, row in out)

        lay = lambda rows: tuple(NamedSharding(mesh, PartitionSpec(*((None, axis) if r else ()))) for r in rows)
        return mesh, lower, lay(rows_out), lay(rows_in)

    rule = f"{_factors(leaves, rows_in)} -> {_factors(jax.tree.leaves(out), rows_out, len(leaves))}"
    call.def_partition(partition, sharding_rule=rule)
    return jax.tree.unflatten(jax.tree.structure(out), call(*leaves))


def _have_batch(trees: tuple[Any, ...]) -> list[bool]:
    """Return for every leaf whether axis 1 is the batch, which it is for all but weights."""
    flags = [jax.tree.map(lambda _: True, tree) for tree in trees]
    of_weights = lambda t: t._replace(weights=jax.tree.map(lambda _: False, t.weights)) if hasattr(t, "weights") else t
    return jax.tree.leaves([of_weights(t) for t in flags])


def _factors(arrays: Any, rows: list[bool], first: int = 0) -> str:
    """Return the names of the axes for Shardy: the batch is b, and all others differ."""
    name = lambda i, axis, row: "b" if row and axis == 1 else f"a{i}x{axis}"
    one = lambda i, array, row: " ".join(name(first + i, axis, row) for axis in range(array.ndim))
    return ", ".join(one(i, a, r) for i, (a, r) in enumerate(zip(arrays, rows, strict=True)))
