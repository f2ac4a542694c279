"""What this machine can do at best: matmuls and memory, measured by the run that uses the figures."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import importlib.util
import math
import os
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import processor, timing

GEMM = {"cpu": 2048, "gpu": 8192}
"""The side of the square matrices that are multiplied, by platform; elsewhere the larger."""
ARRAYS = {"L2": 2**18, "L3": 2**23, "memory": 2**28}
"""Bytes of the arrays that a level's bandwidth is measured with: of L2, which is each core's own, on every core."""
COPY = 2**30  # bytes of the array that is copied inside an accelerator's memory
CACHES = {"L2": 2**20, "L3": 2**25}  # bytes, where the system does not say
ON_CHIP = 2**25  # bytes: registers and shared memory of a large accelerator hold at least this
PASS = 2**27  # bytes that one timing of a cache moves at least
STEPS = 10_000  # of the empty scan
REPEATS = 7


@dataclasses.dataclass(frozen=True)
class Level:
    """A place where arrays live.

    Args:
        name: "L2", "L3", "on chip" or "memory".
        capacity: bytes that it holds; None is no limit.
        bandwidth: bytes a second, read and written; None where it was not measured and is taken to cost nothing.
    """

    name: str
    capacity: int | None
    bandwidth: float | None


@dataclasses.dataclass(frozen=True)
class Machine:
    """The figures.

    Args:
        gemm: for each dtype and library, FLOP/s of a large square matmul at the library's default precision.
        levels: from the smallest; the last has no limit.
        scan_step: seconds a step of a `lax.scan` that adds one to a number: no bound, but what a loop costs.
    """

    gemm: dict[str, dict[str, float]]
    levels: tuple[Level, ...]
    scan_step: float

    def peak(self, dtype: str) -> float:
        """P: FLOP/s of the fastest library."""
        return max(self.gemm[dtype].values())

    def level(self, size: float) -> Level:
        """Return the smallest level that holds so many bytes."""
        return next(level for level in self.levels if level.capacity is None or size <= level.capacity)

    def move(self, size: float) -> float:
        """Return the seconds that it takes to move `size` bytes from where they live."""
        bandwidth = self.level(size).bandwidth
        return 0.0 if bandwidth is None else size / bandwidth


def measure(dtypes: Iterable[str] = ("float32",)) -> Machine:
    """Measure this machine: each figure is the best of seven."""
    gemm = {}
    for dtype in dict.fromkeys(dtypes):
        gemm[dtype] = {"jax": _gemm_jax(dtype)}
        if importlib.util.find_spec("torch") is not None:
            gemm[dtype]["torch"] = _gemm_torch(dtype)
    return Machine(gemm, _cpu_levels() if _platform() == "cpu" else _accelerator_levels(), _scan_step())


def best(first: Machine, second: Machine) -> Machine:
    """Return the better of two measurements, figure by figure: a noisy moment makes a machine no slower than it is."""
    gemm = {
        dtype: {library: max(rate, second.gemm[dtype][library]) for library, rate in rates.items()}
        for dtype, rates in first.gemm.items()
    }
    levels = tuple(
        a if a.bandwidth is None or (b.bandwidth or 0.0) < a.bandwidth else b
        for a, b in zip(first.levels, second.levels, strict=True)
    )
    return Machine(gemm, levels, min(first.scan_step, second.scan_step))


def _platform() -> str:
    return jax.devices()[0].platform


def _least(call: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of seven calls, after one, and after calls that are not timed."""
    call()
    timing.settle(call)
    return min(timing.seconds(call) for _ in range(REPEATS))


def _side() -> int:
    return GEMM.get(_platform(), max(GEMM.values()))


def _gemm_jax(dtype: str) -> float:
    n = _side()
    a = jax.random.normal(jax.random.key(0), (n, n)).astype(dtype)
    dot = jax.jit(jnp.dot)
    return 2.0 * n**3 / _least(lambda: jax.block_until_ready(dot(a, a)))


def _gemm_torch(dtype: str) -> float:
    import torch

    n, device = _side(), "cuda" if _platform() == "gpu" and torch.cuda.is_available() else "cpu"
    a = torch.randn(n, n, device=device).to(getattr(torch, dtype))
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    return 2.0 * n**3 / _least(lambda: (torch.mm(a, a), wait()))


def _cpu_levels() -> tuple[Level, ...]:
    cores = len(os.sched_getaffinity(0))
    sizes = CACHES | processor.cache_sizes()
    capacity = {"L2": cores * sizes["L2"], "L3": sizes["L3"], "memory": None}
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        return tuple(Level(name, capacity[name], _triad(pool, cores, name)) for name in ARRAYS)


def _triad(pool: concurrent.futures.Executor, cores: int, name: str) -> float:
    """Return bytes a second of a += b, two reads and a write, on all cores, again and again over the same arrays."""
    count = ARRAYS[name] // (2 * 4) // (1 if name == "L2" else cores)
    repeats = math.ceil(PASS / ARRAYS[name])
    sums = [np.zeros(count, np.float32) for _ in range(cores)]
    terms = [np.broadcast_to(np.full(count, 1e-3, np.float32), (repeats, count)) for _ in range(cores)]
    run = lambda: list(pool.map(lambda i: np.add.reduce(terms[i], axis=0, out=sums[i]), range(cores)))
    return 3 * 4 * count * repeats * cores / _least(run)


def _accelerator_levels() -> tuple[Level, ...]:
    x = jnp.zeros(COPY // 4)
    copy = jax.jit(lambda x: x + 1)
    bandwidth = 2 * COPY / _least(lambda: jax.block_until_ready(copy(x)))
    return Level("on chip", ON_CHIP, None), Level("memory", None, bandwidth)


def _scan_step() -> float:
    count = jax.jit(lambda x: jax.lax.scan(lambda c, _: (c + 1, None), x, length=STEPS)[0])
    return _least(lambda: jax.block_until_ready(count(jnp.zeros(())))) / STEPS
