"""Kernels of Pallas' Mosaic backend, compiled for a GPU and interpreted: `kernel` in place of `plgpu.kernel`."""

import functools
import os
import pathlib
import subprocess
import sys
import tempfile

import jax
import numpy as np
from jax.experimental.pallas import mosaic_gpu as plgpu

from .interpreter import Machine, Program

HERE = pathlib.Path(__file__).parent
CUDA = os.environ.get("JAXRNN_CUDA", "")
pallas_kernel = plgpu.kernel
seeds = iter(range(10**9))


def kernel(body, *, out_type, **how):
    """Return a function that runs a kernel in the interpreter."""
    made = pallas_kernel(body, out_type=out_type, **how)

    def call(*args):
        structs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in args]
        with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
            lowered = jax.jit(made).trace(*structs).lower(lowering_platforms=("cuda",))
        run = functools.partial(_run, *_compiled(*_module(lowered)), [(o.shape, o.dtype) for o in out_type])
        return jax.pure_callback(run, [jax.ShapeDtypeStruct(o.shape, o.dtype) for o in out_type], *args)

    return call


def _module(lowered):
    """Return the kernel in a program, and the number of its buffers."""
    found = []

    def look(operation):
        if operation.name == "stablehlo.custom_call" and "mosaic_gpu" in str(operation.attributes["call_target_name"]):
            found.append(operation)
        for block in (block for region in operation.regions for block in region):
            for inner in block.operations:
                look(inner.operation)

    look(lowered.compiler_ir("stablehlo").operation)
    [call] = found
    return call.attributes["mhlo.backend_config"]["module"].value_bytes, len(call.operands) + len(call.results)


@functools.cache
def _compiled(module, buffers):
    """Compile a kernel; return its program, (grid, threads, shared memory, params) and the number of buffers."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(module)
        file.flush()
        command = [sys.executable, HERE / "compiler.py", CUDA, file.name, str(buffers)]
        environment = os.environ | {"LD_LIBRARY_PATH": str(_driver())}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    text, launched, launch = done.stdout.rpartition("LAUNCH")
    assert launched, done.stderr[-2000:]
    x, y, z, threads, shared, *params = map(int, launch.split())
    return Program(text), ((x, y, z), threads, shared, params), buffers


@functools.cache
def _driver():
    folder = tempfile.mkdtemp()
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", f"{folder}/libcuda.so.1", HERE / "driver.c"], check=True)
    return folder


def _run(program, launch, count, out, *arrays):
    """Run a kernel; semaphores, where it has them, are one more operand that is also a result."""
    results = [np.frombuffer(bytes([0x3C]) * (np.dtype(d).itemsize * int(np.prod(s))), np.uint8).copy() for s, d in out]
    semaphores = [np.zeros(1 << 16, np.uint8)] if count > len(arrays) + len(out) else []
    operands = [np.ascontiguousarray(a).view(np.uint8).reshape(-1) for a in map(np.asarray, arrays)]
    buffers = dict(enumerate([*operands, *semaphores, *results, *semaphores], 1))
    Machine(program, launch[0], launch[1], launch[2], launch[3], buffers, next(seeds)).run()
    return [r.view(d).reshape(s) for r, (s, d) in zip(results, out, strict=True)]
