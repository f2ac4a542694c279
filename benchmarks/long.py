"""Long sequences: the affine recurrence in parallel, Newton's method next to a scan, and how errors grow with T."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import GRU, LRU, RGLRU, AffineCell, Associative, Driver, MinGRU, Native, Newton, Scan, available_drivers
from jaxrnn.extend import StepMasks

from . import record, timing
from .measure import milliseconds, show
from .peers.peer import compile_ahead
from .result import Row

Shape = tuple[int, int, int]  # T, B, H; as many input features
CELLS: dict[str, Callable[[int], AffineCell]] = {"min_gru": MinGRU, "rg_lru": RGLRU, "lru": LRU}
BASE = "Scan()"
MOST = 1 << 29  # numbers of Jacobians
METHOD = (
    "in turn in one process (A B A B), median and quartiles, ratios round by round; gradients of sum(y^2) for params "
    "and inputs, the input projection included. Errors: the largest difference from Scan() in float64, as a share of "
    "the largest entry; of gradients the worst of all arrays, of params and of inputs; inputs are normal."
)


@dataclasses.dataclass(frozen=True)
class ByHand:
    """A plain `jax.lax.associative_scan`, differentiated by JAX."""

    def __call__(
        self, cell: AffineCell, params: Any, state: Any, xs: Any, masks: StepMasks, *, reverse: bool = False
    ) -> Any:
        """Run over time; lengths and resets are not looked at."""
        a, b = cell.affine(params, xs)
        b = b.at[0].add(a[0] * state)
        both = lambda one, two: (one[0] * two[0], two[0] * one[1] + two[1])
        states = jax.lax.associative_scan(both, (a, b))[1]
        return states[-1], cell.output(params, states, xs)


DRIVERS: dict[str, Driver | None] = {
    BASE: Scan(),
    "Associative()": Associative(),
    "Native()": Native(),
    "lax.associative_scan": ByHand(),
    "select": None,
}


@dataclasses.dataclass(frozen=True)
class Long:
    """Time long sequences, and measure errors; H is I.

    Args:
        cells: of min_gru, rg_lru and lru.
        shapes: T, B, H of the affine cells.
        units: H of a GRU under Newton's method.
        batches: its B.
        times: its T.
        error_times: the T at which errors are measured.
        budget: seconds of timing a workload, without compilation.
        json: the result file; by default in the folder of this hardware.
    """

    cells: tuple[str, ...] = tuple(CELLS)
    shapes: tuple[Shape, ...] = ((64, 1, 256), (1024, 1, 256), (1024, 16, 256), (65_536, 1, 256), (1_000_000, 1, 16))
    units: tuple[int, ...] = (1, 4, 16)
    batches: tuple[int, ...] = (1,)
    times: tuple[int, ...] = (1000, 10_000)
    error_times: tuple[int, ...] = (100, 1000, 10_000, 100_000, 1_000_000)
    budget: float = 3.0
    json: pathlib.Path | None = None

    def __call__(self) -> None:
        """Measure, show, and write the file after each workload."""
        rows: list[Row] = []
        for found in self._found():
            rows += found
            _show(found)
            path = record.write("long", rows, self.json, method=METHOD)
        print(f"wrote {path}")

    def _found(self) -> Iterator[list[Row]]:
        for name in self.cells:
            for shape in self.shapes:
                for gradient in (False, True):
                    yield affine(name, shape, gradient, self.budget)
        for units in self.units:
            for batch in self.batches:
                for steps in self.times:
                    for gradient in (False, True):
                        yield newton((steps, batch, units), gradient, self.budget)
        for name in self.cells:
            yield errors(name, self.error_times)


def affine(name: str, shape: tuple[int, ...], gradient: bool, budget: float) -> list[Row]:
    """Measure an affine cell under every driver."""
    steps, batch, hidden = shape
    cell = CELLS[name](hidden)
    params, xs = drawn(cell, shape)
    kinds = {leaf.dtype for leaf in jax.tree.leaves((params, cell.initial_state(params)))}
    no_native = kinds != {jnp.dtype(jnp.float32)} or available_drivers()["Native"]
    drivers = {n: d for n, d in DRIVERS.items() if not (isinstance(d, Native) and no_native)}
    about = {"part": "affine", "cell": name, "time": steps, "batch": batch, "hidden": hidden, "gradient": gradient}
    return [{**about, **row} for row in timed(cell, params, xs, drivers, gradient, budget)]


def newton(shape: tuple[int, ...], gradient: bool, budget: float) -> list[Row]:
    """Measure a GRU under Newton's method next to a scan."""
    steps, batch, hidden = shape
    cell = GRU(hidden)
    params, xs = drawn(cell, shape)
    drivers: dict[str, Driver | None] = {BASE: Scan()}
    if steps * batch * hidden**2 <= MOST:
        drivers["Newton('full')"] = Newton(jaxrnn.FullJacobian())
    drivers["Newton('diagonal')"] = Newton(jaxrnn.DiagonalJacobian())
    about = {"part": "newton", "cell": "gru", "time": steps, "batch": batch, "hidden": hidden, "gradient": gradient}
    rows = timed(cell, params, xs, drivers, gradient, budget)
    for row in rows:
        driver = drivers[row["name"]]
        if isinstance(driver, Newton):
            found = jax.jit(functools.partial(driver.converge, cell))(params, xs)
            row |= {"iterations": int(found.iterations), "residual": float(found.residual)}
            row |= {"converged": bool(found.converged)}
    return [{**about, **row} for row in rows]


def errors(name: str, times: tuple[int, ...], hidden: int = 8) -> list[Row]:
    """Measure how far outputs and gradients in float32 are from those of `Scan()` in float64."""
    cell, rows = CELLS[name](hidden), []
    params, xs = jax.tree.map(np.asarray, drawn(cell, (max(times), 1, hidden)))
    drivers = {"Scan()": Scan(), "Associative()": Associative(), "Associative(1000)": Associative(1000)}
    for what, run in {"": _outputs, ", gradients": _gradients}.items():
        for steps in times:
            given = params, xs[:steps]
            with jax.enable_x64(True):
                want = answer(run, cell, Scan(), jax.tree.map(lambda a: a.astype(np.float64), given))
            for driver_name, driver in drivers.items():
                far = farthest(answer(run, cell, driver, given), want)
                rows.append({"part": "error", "cell": name, "time": steps, "name": driver_name + what, "error": far})
    return rows


def answer(run: Any, cell: Any, driver: Driver, given: Any) -> Any:
    """Run and return numpy arrays, which stay valid outside `enable_x64`."""
    return jax.tree.map(np.asarray, jax.jit(functools.partial(run, cell, driver))(*given))


def farthest(got: Any, want: Any) -> float:
    """Return the largest difference of two trees, each array's as a share of its largest entry."""
    far = jax.tree.map(lambda a, b: np.abs(a - b).max() / np.abs(b).max(), got, want)
    return float(max(jax.tree.leaves(far)))


def drawn(cell: Any, shape: tuple[int, ...]) -> tuple[Any, jax.Array]:
    """Draw params and inputs."""
    steps, batch, hidden = shape
    k_params, k_xs = jax.random.split(jax.random.key(0))
    return cell.init(k_params, hidden), jax.random.normal(k_xs, (steps, batch, hidden))


def timed(
    cell: Any, params: Any, xs: jax.Array, drivers: dict[str, Driver | None], gradient: bool, budget: float
) -> list[Row]:
    """Compile for each driver, and time them in turn: a row for each."""
    calls, rows = {}, []
    for name, driver in drivers.items():
        run = functools.partial(_gradients if gradient else _outputs, cell, driver)
        program, compiled_in, temporary = compile_ahead(run, params, xs)
        rows.append({"name": name, "compile_seconds": compiled_in, "temporary_bytes": temporary})
        calls[name] = lambda program=program: jax.block_until_ready(program(params, xs))
        calls[name]()
    samples = timing.interleave(calls, budget)
    for row in rows:
        row["seconds"] = timing.spread(samples[row["name"]])
        row["over_scan"] = timing.ratio(samples[row["name"]], samples[BASE])
    return rows


def _outputs(cell: Any, driver: Driver | None, params: Any, xs: jax.Array) -> jax.Array:
    return jaxrnn.unroll(cell, params, xs, driver=driver)[1]


def _gradients(cell: Any, driver: Driver | None, params: Any, xs: jax.Array) -> Any:
    return jax.grad(lambda *given: jnp.square(_outputs(cell, driver, *given)).sum(), (0, 1))(params, xs)


def _show(rows: list[Row]) -> None:
    """Print the rows of one workload."""
    first = rows[0]
    lines: dict[str, dict[str, str]] = {row["name"]: {"": row["name"]} for row in rows}
    if first["part"] == "error":
        for row in rows:
            lines[row["name"]][f"T={row['time']}"] = f"{row['error']:.1e}"
        return show(f"error, {first['cell']}", list(lines.values()))
    for row in rows:
        temporary = row["temporary_bytes"]
        lines[row["name"]] |= {
            "ms": milliseconds(row),
            "over Scan()": f"{row['over_scan']['median']:.2f}",
            "temporary MB": "" if temporary is None else f"{temporary / 1e6:.1f}",
            "compiled in s": f"{row['compile_seconds']:.2f}",
            "iterations": str(row.get("iterations", "")),
        }
    kind = "forward+backward" if first["gradient"] else "forward"
    title = f"{first['cell']} T={first['time']} B={first['batch']} H={first['hidden']} {kind}"
    return show(title, list(lines.values()))
