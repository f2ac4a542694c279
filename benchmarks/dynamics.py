"""The search for fixed points and the Lyapunov exponents of `jaxrnn.dynamics`, next to other methods."""

from __future__ import annotations

import dataclasses
import importlib
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from examples.flip_flop import BITS, Main, draw
from jaxrnn import GRU, GatedParams
from jaxrnn.dynamics import Found, fixed_points, lyapunov, trajectory

from . import record
from .measure import show
from .result import Result, Row
from .tables import grid

FIXED, EXPONENTS = "fixed points", "Lyapunov exponents"
METHOD = (
    "A GRU that holds three bits (examples/flip_flop.py). Each row is the second of two calls of the same shape, "
    "alone; compilation is what the first took more. 'Adam alone' is the method of FixedPointFinder (Golub and "
    "Sussillo 2018): Adam on the squared speed of all candidates, in JAX, and in torch with its GRUCell. A fixed "
    "point has a speed below 1e-5. Exponents are those along a trajectory with inputs; nolds.lyap_r estimates the "
    "first from one coordinate of it."
)


@dataclasses.dataclass(frozen=True)
class Dynamics:
    """Time the search for fixed points, and Lyapunov exponents.

    Args:
        hidden: H of the GRU.
        candidates: states to search from.
        adam: the steps of Adam alone.
        training: the steps of training.
        exponents: k.
        steps: T of the exponents.
        json: the result file; by default in the folder of this hardware.
    """

    hidden: int = 128
    candidates: int = 1024
    adam: int = 5000
    training: int = 1000
    exponents: int = 64
    steps: int = 10_000
    json: pathlib.Path | None = None

    def __call__(self) -> None:
        """Measure, show, and write the file after each row."""
        example = Main(hidden=self.hidden, candidates=self.candidates, steps=self.training, rate=0.003)
        cell, key = GRU(self.hidden), jax.random.key(0)
        params = example.train(cell, key).params["rnn"]
        starts, x = example.starts(cell, params, key), jnp.zeros(BITS)
        tolerance = 1e-5
        newton = lambda: fixed_points(cell, params, x, starts, tolerance=tolerance)
        rate = optax.cosine_decay_schedule(0.1, self.adam)
        slow = {"steps": self.adam, "newton_steps": 0, "optimizer": optax.adam(rate), "tolerance": tolerance}
        adam = lambda: fixed_points(cell, params, x, starts, **slow)
        in_torch = lambda: _torch_search(params, np.asarray(starts), self.adam)
        run = jax.jit(
            lambda xs: lyapunov(cell, params, xs[:, 0], starts[0], k=self.exponents, warmup=self.steps // 10).exponents
        )
        xs, _ = draw(key, self.steps, 1)
        line = np.asarray(trajectory(cell, params, xs)[:, 0, 0], np.float64)
        jobs: list[tuple[str, str, Callable[[], Any]]] = [
            (FIXED, "jaxrnn", newton),
            (FIXED, "Adam alone, JAX", adam),
            (FIXED, "Adam alone, torch", in_torch),
            (EXPONENTS, "jaxrnn", lambda: np.asarray(run(xs))),
            (
                EXPONENTS,
                "nolds.lyap_r",
                lambda: importlib.import_module("nolds").lyap_r(line, min_tsep=min(100, self.steps // 10)),
            ),
        ]
        rows: list[Row] = []
        for what, name, job in jobs:
            rows.append({"what": what, "name": name, **_timed(job)})
            path = record.write("dynamics", rows, self.json, method=METHOD)
        show(f"GRU of {self.hidden} units", [_line(row) for row in rows])
        print(f"wrote {path}")


def _timed(job: Callable[[], Any]) -> Row:
    """Return the seconds of a first and a second call, and what the second found."""
    try:
        start = time.perf_counter()
        job()
        first = time.perf_counter() - start
        start = time.perf_counter()
        found = job()
        seconds = time.perf_counter() - start
    except (ImportError, TypeError) as failure:  # a package that is absent, or does not import here
        return {"absent": f"{type(failure).__name__}: {failure}"[:200]}
    row: Row = {"seconds": seconds, "compile_seconds": max(0.0, first - seconds)}
    if isinstance(found, Found):
        speeds = found.fixed.speeds
        return row | {
            "points": len(speeds),
            "slow": len(found.slow.speeds),
            "speed": float(np.median(speeds)) if len(speeds) else None,
        }
    if isinstance(found, float):
        return row | {"first": found}
    if isinstance(found, np.ndarray):
        return row | {"first": float(found[0]), "last": float(found[-1])}
    return row | found


def _torch_search(params: GatedParams, starts: np.ndarray, steps: int) -> Row:
    """Return how many candidates Adam brings below the tolerance, with torch's GRUCell."""
    torch = importlib.import_module("torch")
    weights = importlib.import_module("jaxrnn.interop.torch").to_torch(GRU(starts.shape[1]), params).state_dict()
    cell = torch.nn.GRUCell(BITS, starts.shape[1])
    cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in weights.items()})
    h = torch.tensor(starts, requires_grad=True)
    x = torch.zeros(len(starts), BITS)
    optimizer = torch.optim.Adam([h], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        ((cell(x, h) - h) ** 2).sum().div(2).backward(inputs=[h])
        optimizer.step()
        schedule.step()
    speeds = (cell(x, h) - h).norm(dim=1).detach().numpy()
    return {"below": int((speeds < 1e-5).sum()), "speed": float(np.median(speeds))}


def page(result: Result) -> str:
    """Return the Markdown of a result file."""
    table = pd.DataFrame([_line(row) for row in result.rows]).set_index("")
    return f"{result.head['method']}\n\n{grid(table)}"


def _line(row: Row) -> dict[str, str]:
    name = {"": f"{row['what']}: {row['name']}"}
    if "absent" in row:
        return name | {"seconds": "", "compilation": "", "found": f"absent: {row['absent']}"}
    words = {"points": "distinct fixed points", "slow": "slow points", "below": "candidates below the tolerance"}
    found = [f"{row[key]:,} {word}" for key, word in words.items() if key in row]
    found += [f"median speed {row['speed']:.1e}"] if row.get("speed") is not None else []
    found += [f"first {row['first']:.4f}"] if "first" in row else []
    return name | {
        "seconds": f"{row['seconds']:.2f}",
        "compilation": f"{row['compile_seconds']:.1f}",
        "found": ", ".join(found),
    }
