"""What is compared: a way to compute a workload, from any library."""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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


class Supports(NamedTuple):
    """The workloads that a peer can compute.

    Attributes:
        platforms: of "cpu", "gpu" and "tpu".
        cells: of "elman", "gru" and "lstm".
        dtypes: their names; () is any.
        heads: whether recurrent weights may be in heads.
        gradients: whether it computes gradients.
        reason: returns any other reason why it cannot compute a workload on a platform.
    """

    platforms: tuple[str, ...] = ("cpu", "gpu", "tpu")
    cells: tuple[str, ...] = ("elman", "gru", "lstm")
    dtypes: tuple[str, ...] = ()
    heads: bool = False
    gradients: bool = True
    reason: Callable[[Workload, str], str | None] = lambda workload, platform: None


@dataclasses.dataclass(frozen=True)
class Peer:
    """A library, or a driver of jaxrnn.

    Args:
        name: as tables show it.
        package: what must be importable.
        make: prepares a workload: moves weights and inputs, compiles.
        supports: what it can compute.
        equations: by cell, the key of `OTHER_EQUATIONS` where its equation differs from the workload's.
    """

    name: str
    package: str
    make: Callable[[Workload, Data], Program]
    supports: Supports = Supports()
    equations: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def lacks(self, workload: Workload, platform: str) -> str | None:
        """Return why it cannot compute this workload on "cpu", "gpu" or "tpu"; None where it can."""
        can = self.supports
        if platform not in can.platforms:
            return f"needs {' or '.join(f'a {name.upper()}' for name in can.platforms)}"
        if workload.cell not in can.cells:
            return f"{' and '.join(can.cells)} only"
        if workload.gradient and not can.gradients:
            return "inference only: no gradients"
        if can.dtypes and workload.dtype not in can.dtypes:
            return f"{' and '.join(can.dtypes)} only"
        if workload.heads > 1 and not can.heads:
            return "dense recurrent weights only"
        return can.reason(workload, platform)


def installed(peer: Peer) -> bool:
    """Whether the peer's package can be imported."""
    return importlib.util.find_spec(peer.package) is not None


Forward = Callable[[Any, Any], Any]  # (weights, xs (T, B, I)) -> ys (T, B, H), traceable by JAX
Convert = Callable[[Any], Any]  # jaxrnn's params to a library's weights, traceable by JAX


def compiled(workload: Workload, data: Data, convert: Convert, forward: Forward) -> Program:
    """Compile a program of a traceable forward pass: compiled ahead of time, its gradients by JAX.

    The gradients for a library's weights are brought to jaxrnn's layout through the transpose of `convert`.
    """
    dtype = jnp.dtype(workload.dtype)
    params, xs = jax.device_put(jax.tree.map(lambda a: jnp.asarray(a, dtype), tuple(data)))
    weights = jax.jit(convert)(params)
    loss = lambda weights, xs: jnp.square(forward(weights, xs).astype(jnp.float32)).sum()
    run = jax.grad(loss, (0, 1)) if workload.gradient else forward
    program, seconds, temporary = compile_ahead(run, weights, xs)

    def answer(result: Any) -> Answer:
        return gradients(convert, params, *result) if workload.gradient else Answer(ys=numpy(result))

    return Program(lambda: jax.block_until_ready(program(weights, xs)), answer, seconds, temporary)


def compile_ahead(run: Callable[..., Any], *args: Any) -> tuple[Callable[..., Any], float, int | None]:
    """Return a compiled function, the seconds it took to compile, and the bytes of temporary memory planned for it."""
    start = time.perf_counter()
    program = jax.jit(run).lower(*args).compile()
    seconds, memory = time.perf_counter() - start, program.memory_analysis()
    return program, seconds, None if memory is None else memory.temp_size_in_bytes


def batch_major(workload: Workload, data: Data, convert: Convert, forward: Forward) -> Program:
    """Return `compiled` of a forward pass from (B, T, I) to (B, T, H); moving the axes is not timed."""
    program = compiled(workload, data._replace(xs=np.ascontiguousarray(data.xs.swapaxes(0, 1))), convert, forward)
    moved = "xs" if workload.gradient else "ys"

    def answer(result: Any) -> Answer:
        found = program.answer(result)
        return found._replace(**{moved: getattr(found, moved).swapaxes(0, 1)})

    return program._replace(answer=answer)


def gradients(convert: Convert, params: Any, dweights: Any, dxs: Any) -> Answer:
    """Bring a library's gradients to jaxrnn's layout: the transpose of `convert` at `params`."""
    (dparams,) = jax.jit(lambda params, ct: jax.vjp(convert, params)[1](ct))(params, dweights)
    return Answer(None, *map(numpy, (*dparams[:3], dxs)))


def numpy(array: Any) -> np.ndarray:
    """Return a float32 (or wider) numpy array."""
    array = np.asarray(array)
    return array if array.dtype.itemsize >= 4 else array.astype(np.float32)


def join_gates(w: Any) -> Any:
    """Return weights (D, G, H) as the matrix (G * H, D) of torch and cuDNN."""
    return w.transpose(1, 2, 0).reshape(-1, w.shape[0])


def first_state(workload: Workload, dtype: Any) -> tuple[jax.Array, ...]:
    """Return zeros: (h,), or an LSTM's (h, c)."""
    zeros = jnp.zeros((workload.batch, workload.hidden), dtype)
    return (zeros, zeros) if workload.cell == "lstm" else (zeros,)
