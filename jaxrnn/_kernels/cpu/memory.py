"""The matrix memory in C++ as a JAX function, with gradients, and rules for `vmap` and for a sharded batch.

T time, B batch, N heads, K key features, V value features, C steps of a chunk, M chunks. All arrays have the batch as
axis 1 and the heads as axis 2; None stands for an absent array.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from ..._core.autodiff import reverse_only
from ..._core.matrix_cell import MemoryUpdate
from ..._core.sharding import vary, varying
from ..vmap_rule import fold, unfold
from .portable import portable

SAVED = "jaxrnn_memory"
"""The name of what the forward pass returns, for policies of `jax.checkpoint`."""

Gradients: TypeAlias = Callable[..., Any]
"""From (forward, primals, cotangents, cotangents of the gradients) to the cotangents of (primals, cotangents)."""


class Operands(NamedTuple):
    """query, key (T, B, N, K), value (T, B, N, V), log_decay, erase (T, B, N), memory (1, B, N, K, V), in float32.

    `erase` may be None.
    """

    query: Any
    key: Any
    value: Any
    log_decay: Any
    erase: Any
    memory: Any


class Outputs(NamedTuple):
    """read (T, B, N, V), final (1, B, N, K, V), and kept (M, B, N, K, V), the memory before each chunk, or None."""

    read: Any
    final: Any
    kept: Any = None


@dataclasses.dataclass(frozen=True)
class MemoryKernel:
    """The solver in C++ of a memory with one decay a head, in float32: see `memory_groups.Solve`.

    Args:
        chunk: C.
        in_jax: the same in JAX, for second derivatives and programs that are exported: `solve_chunks`.
        second_order: the derivative of gradients in JAX: `second_order`.
        least_log_decay: the bound of log decays.
        portable: whether `in_jax` replaces the calls in a program that is exported.
        driver: the driver, for messages.
    """

    chunk: int
    in_jax: Callable[..., tuple[jax.Array, jax.Array]]
    second_order: Gradients
    least_log_decay: float
    portable: bool
    driver: Any

    def __call__(
        self, update: MemoryUpdate, memory: jax.Array, reset: jax.Array | None, again: Any
    ) -> tuple[jax.Array, jax.Array]:
        """Return the memory after all steps, and what the queries read; raise ValueError for resets."""
        if reset is not None:
            raise ValueError(f"{self.driver} takes no resets for a matrix memory. Use Chunkwise(), or Scan().")
        time, *batch, heads, _ = update.query.shape
        count = math.prod(batch)
        rows = lambda a, of: a.reshape(time, count, heads, *a.shape[a.ndim - of :])
        decay = jnp.maximum(update.log_decay[..., 0], self.least_log_decay)
        erase = None if update.erase is None else rows(update.erase, 0)
        query, key, value = (rows(a, 1) for a in (update.query, update.key, update.value))
        operands = Operands(query, key, value, rows(decay, 0), erase, memory.reshape(1, count, *memory.shape[-3:]))
        operands = vary(reverse_only(operands, self.driver), varying(operands))
        read, final, _ = _run(self, False, operands)
        return final.reshape(memory.shape), read.reshape(time, *batch, *read.shape[2:])

    def forward(self, *operands: Any) -> Outputs:
        """Return what the kernel computes, in JAX."""
        given = Operands(*operands)
        update = MemoryUpdate(*given[:3], given.log_decay[..., None], given.erase)
        final, read = self.in_jax(update, given.memory[0], None, None)
        return Outputs(read, final[None])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(kernel: MemoryKernel, keep: bool, operands: Operands) -> Outputs:
    return Forward(kernel, keep)(*operands)


def _run_forward(kernel: MemoryKernel, keep: bool, operands: Operands) -> tuple[Outputs, Any]:
    outputs = checkpoint_name(_run(kernel, True, reverse_only(operands, kernel.driver)), SAVED)
    return (outputs if keep else outputs._replace(kept=None)), (operands, outputs.kept)


def _run_backward(kernel: MemoryKernel, keep: bool, residuals: Any, cotangents: Outputs) -> tuple[Operands]:
    operands, kept = reverse_only(residuals, kernel.driver)
    return (_gradients(kernel, operands, kept, cotangents._replace(kept=None)),)


_run.defvjp(_run_forward, _run_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gradients(kernel: MemoryKernel, operands: Operands, kept: jax.Array, cotangents: Outputs) -> Operands:
    """Return the gradients of the operands. `kept` is a function of the operands and has a gradient of zero."""
    gradients = Backward(kernel)(*operands[:5], kept, cotangents.read, cotangents.final)
    return Operands(*gradients)


def _gradients_forward(kernel: MemoryKernel, *operands: Any) -> tuple[Operands, Any]:
    return _gradients(kernel, *operands), operands


def _gradients_backward(kernel: MemoryKernel, residuals: Any, seconds: Operands) -> tuple[Any, ...]:
    """Differentiate the backward pass, in JAX."""
    operands, kept, cotangents = residuals
    doperands, dcotangents = kernel.second_order(kernel.forward, tuple(operands), cotangents, tuple(seconds))
    return Operands(*doperands), jnp.zeros_like(kept), dcotangents


_gradients.defvjp(_gradients_forward, _gradients_backward)


# The calls, with the rule for vmap: a call becomes one with a larger batch.


@dataclasses.dataclass(frozen=True)
class Forward:
    """The forward pass: from `Operands` to `Outputs`, with `kept` if `keep`."""

    kernel: MemoryKernel
    keep: bool

    def __call__(self, *operands: Any) -> Outputs:
        """Call the library, with the rules below."""
        return Outputs(*_with_vmap_rule(self)(*operands))

    def ffi_call(self, *operands: Any) -> tuple[Any, ...]:
        """Call the library."""
        given = Operands(*operands)
        memory = given.memory[0]
        chunks = -(-len(given.query) // self.kernel.chunk)
        kept = jax.ShapeDtypeStruct((chunks, *memory.shape), jnp.float32) if self.keep else None
        arrays = (*given[:5], memory)
        read, final, kept = _call("jaxrnn_memory_forward", self.kernel.chunk, (given.value, memory, kept), arrays)
        return read, final[None], kept

    def in_jax(self, *operands: Any) -> tuple[Any, ...]:
        """Return the same without the library; `kept` is zero, since `Backward.in_jax` takes its first row alone."""
        memory = operands[-1]
        chunks = -(-len(operands[0]) // self.kernel.chunk)
        kept = jnp.concatenate([memory, jnp.zeros((chunks, *memory.shape[1:]), memory.dtype)])[:chunks]
        return *self.kernel.forward(*operands)[:2], kept if self.keep else None


@dataclasses.dataclass(frozen=True)
class Backward:
    """The backward pass: from the operands with `kept` in place of the memory, and cotangents, to their gradients."""

    kernel: MemoryKernel

    def __call__(self, *operands: Any) -> tuple[Any, ...]:
        """Call the library, with the rules below."""
        gradients: tuple[Any, ...] = _with_vmap_rule(self)(*operands)
        return gradients

    def ffi_call(self, *operands: Any) -> tuple[Any, ...]:
        """Call the library."""
        *inputs, dread, dfinal = operands
        results = (*inputs[:5], dfinal[0])
        *gradients, dmemory = _call("jaxrnn_memory_backward", self.kernel.chunk, results, (*inputs, dread, dfinal[0]))
        return *gradients, dmemory[None]

    def in_jax(self, *operands: Any) -> tuple[Any, ...]:
        """Return the same without the library."""
        *inputs, kept, dread, dfinal = operands
        memory = kept[:1] if len(kept) else jnp.zeros_like(dfinal)
        _, vjp = jax.vjp(self.kernel.forward, *inputs, memory)
        gradients: tuple[Any, ...] = vjp(Outputs(dread, dfinal))
        return gradients


def _call(target: str, chunk: int, results: tuple[Any, ...], operands: tuple[Any, ...]) -> list[Any]:
    """Call a handler, which takes and returns an empty array for each absent one."""
    like = lambda a: jax.ShapeDtypeStruct((0,) if a is None else a.shape, jnp.float32)
    arrays = [jnp.zeros(0, jnp.float32) if a is None else a for a in operands]
    got = jax.ffi.ffi_call(target, [like(r) for r in results])(*arrays, chunk=np.int64(chunk))
    return [None if r is None else g for r, g in zip(results, got, strict=True)]


@functools.cache
def _with_vmap_rule(kernel: Forward | Backward) -> Callable[..., Any]:
    call = custom_vmap(functools.partial(_on_devices, kernel))

    @call.def_vmap
    def rule(size: int, mapped: Any, *operands: Any) -> Any:
        wide = jax.tree.map(lambda a, m: fold(a, m, size, 1), operands, tuple(mapped))
        out = jax.tree.map(lambda a: unfold(a, size, 1), _with_vmap_rule(kernel)(*wide))
        return out, jax.tree.map(lambda _: True, out)

    return call


def _on_devices(kernel: Forward | Backward, *operands: Any) -> Any:
    """Call the library on each device, with the rows and heads that it holds."""
    if axes := varying(operands):
        return vary(kernel.ffi_call(*operands), axes)
    split = kernel.ffi_call if jax.device_count() == 1 else functools.partial(_partitioned, kernel)
    return portable(split, kernel.in_jax, *operands) if kernel.kernel.portable else split(*operands)


def _partitioned(kernel: Forward | Backward, *operands: Any) -> Any:
    leaves, tree = jax.tree.flatten(operands)
    flat = lambda *leaves: tuple(jax.tree.leaves(kernel.ffi_call(*jax.tree.unflatten(tree, leaves))))
    out = jax.eval_shape(kernel.ffi_call, *operands)
    results = jax.tree.leaves(out)
    call = custom_partitioning(flat)

    def partition(mesh: Any, arguments: Any, _: Any) -> Any:
        spec = [*getattr(arguments[0].sharding, "spec", ()), None, None, None]  # GSPMD has none
        layout = NamedSharding(mesh, PartitionSpec(None, *spec[1:3]))
        return mesh, flat, (layout,) * len(results), (layout,) * len(leaves)

    rule = f"{_factors(leaves, 0)} -> {_factors(results, len(leaves))}"
    call.def_partition(partition, sharding_rule=rule)
    return jax.tree.unflatten(jax.tree.structure(out), call(*leaves))


def _factors(arrays: list[Any], first: int) -> str:
    """Return the names of the axes for Shardy: the batch is b and the heads are n, and all others differ."""
    name = lambda i, axis: "b" if axis == 1 else "n" if axis == 2 else f"a{i}x{axis}"
    return ", ".join(" ".join(name(first + i, axis) for axis in range(a.ndim)) for i, a in enumerate(arrays))
