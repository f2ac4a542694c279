"""What is compared: a way to compute a workload, from any library."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ..workload import Answer, Data, Workload


class Program(NamedTuple):
    """A workload prepared by one peer.

    Attributes:
        call: computes it once and waits for the result, which goes to `answer`.
        answer: turns that into an `Answer` in jaxrnn's layout.
        compile_seconds: tracing and compiling; None where nothing is compiled.
        temporary_bytes: memory that the compiler plans, without inputs and outputs; None where it is unknown.
    """

    call: Callable[[], Any]
    answer: Callable[[Any], Answer]
    compile_seconds: float | None = None
    temporary_bytes: int | None = None


class Peer(Protocol):
    """A library, or a driver of ours. A frozen value.

    Attributes:
        name: as tables show it.
        package: what must be importable.
    """

    name: str
    package: str

    def lacks(self, workload: Workload, platform: str) -> str | None:
        """Return why it cannot compute this workload on "cpu", "gpu" or "tpu"; None where it can."""
        ...

    def equation(self, workload: Workload) -> str | None:
        """Name the equation where it differs from the workload's: a key of `OTHER_EQUATIONS`."""
        ...

    def make(self, workload: Workload, data: Data) -> Program:
        """Prepare a workload: move weights and inputs, compile."""
        ...


def installed(peer: Peer) -> bool:
    """Whether the peer's package can be imported."""
    return importlib.util.find_spec(peer.package) is not None


Forward = Callable[[Any, Any], Any]  # (weights, xs (T, B, I)) -> ys (T, B, H), traceable by JAX
Convert = Callable[[Any], Any]  # jaxrnn's params to a library's weights, traceable by JAX


def compiled(workload: Workload, data: Data, convert: Convert, forward: Forward, *, device: Any = None) -> Program:
    """Compile a program of a traceable forward pass: compiled ahead of time, its gradients by JAX.

    The gradients for a library's weights are brought to jaxrnn's layout through the transpose of `convert`.
    """
    dtype = jnp.dtype(workload.dtype)
    params, xs = jax.device_put(jax.tree.map(lambda a: jnp.asarray(a, dtype), (data.params, data.xs)), device)
    weights = jax.jit(convert)(params)
    loss = lambda weights, xs: jnp.square(forward(weights, xs).astype(jnp.float32)).sum()
    start = time.perf_counter()
    program = jax.jit(jax.grad(loss, (0, 1)) if workload.gradient else forward).lower(weights, xs).compile()
    took = time.perf_counter() - start
    memory = program.memory_analysis()

    def answer(result: Any) -> Answer:
        return gradients(convert, params, *result) if workload.gradient else Answer(ys=numpy(result))

    return Program(
        lambda: jax.block_until_ready(program(weights, xs)),
        answer,
        took,
        None if memory is None else memory.temp_size_in_bytes,
    )


def gradients(convert: Convert, params: Any, dweights: Any, dxs: Any) -> Answer:
    """Bring a library's gradients to jaxrnn's layout: the transpose of `convert` at `params`."""
    (dparams,) = jax.jit(lambda params, ct: jax.vjp(convert, params)[1](ct))(params, dweights)
    return Answer(None, *map(numpy, (*dparams[:3], dxs)))


def numpy(array: Any) -> np.ndarray:
    """Return a float32 (or wider) numpy array."""
    array = np.asarray(array)
    return array if array.dtype.itemsize >= 4 else array.astype(np.float32)
