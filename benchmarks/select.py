"""What `jaxrnn.select` rests on: `BPTT()` beside `Scan()`, forward and with gradients, over the number of steps.

    python -m benchmarks.select benchmarks/results/<hardware>/select.json

Both run in turn in one process (A B A B); a ratio is taken round by round. Loss sum(h^2), gradients for params and
inputs, the input projection included; compile time and temporary memory stand beside.
"""

from __future__ import annotations

import json
import os
import pathlib
import platform
import statistics
import sys
import time

import jax
import jax.numpy as jnp

from jaxrnn import BPTT, GRU, LSTM, Elman, Scan, unroll

SHAPES = [
    (8, 32, 64, 128),
    (16, 32, 64, 128),
    (32, 32, 64, 128),
    (64, 32, 64, 128),
    (256, 32, 64, 128),
    (1024, 8, 64, 64),
]
DRIVERS = {"scan": Scan(), "bptt": BPTT()}
WARM_UP, SECONDS = 3, 3.0


def compiled(cell, driver, params, xs, gradient):
    """The program, and seconds to compile it."""
    loss = lambda params, xs: jnp.square(unroll(cell, params, xs, driver=driver)[1]).sum()
    lowered = jax.jit(jax.grad(loss, (0, 1)) if gradient else loss).lower(params, xs)
    start = time.perf_counter()
    program = lowered.compile()
    return program, time.perf_counter() - start


def quartiles(samples):
    """Median and interquartile range."""
    low, middle, high = statistics.quantiles(samples, n=4)
    return {"median": middle, "iqr": high - low}


def row(cell, shape, gradient):
    """One cell, one shape: both drivers in turn."""
    time_steps, batch, in_dim, _ = shape
    params = cell.init(jax.random.key(0), in_dim)
    xs = jax.random.normal(jax.random.key(1), (time_steps, batch, in_dim))
    programs, result = {}, {"cell": type(cell).__name__, "T,B,I,H": shape, "gradient": gradient}
    for name, driver in DRIVERS.items():
        programs[name], seconds = compiled(cell, driver, params, xs, gradient)
        memory = programs[name].memory_analysis().temp_size_in_bytes
        result[name] = {"compile_s": seconds, "temporary_bytes": memory}
    samples = {name: [] for name in programs}
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(samples["scan"]) < WARM_UP + 20:
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(params, xs))
            samples[name].append(time.perf_counter() - start)
    samples = {name: times[WARM_UP:] for name, times in samples.items()}
    for name, times in samples.items():
        result[name]["seconds"] = quartiles(times)
    ratios = [s / b for s, b in zip(samples["scan"], samples["bptt"], strict=True)]
    result["scan_over_bptt"] = quartiles(ratios)
    result["rounds"] = len(ratios)
    return result


def main(path):
    """Measure, print a line a row, write the file."""
    rows = []
    for shape in SHAPES:
        for make in (LSTM, GRU, Elman):
            for gradient in (False, True):
                rows.append(row(make(shape[-1]), shape, gradient))
                r = rows[-1]["scan_over_bptt"]
                print(rows[-1]["cell"], shape, "gradient" if gradient else "forward", f"{r['median']:.2f}", flush=True)
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    about = {
        "command": f"python -m benchmarks.select {path}",
        "hardware": {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "device": jax.default_backend()},
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "note": "ratio above 1: BPTT is faster; shared machine",
    }
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
