"""Cells with a matrix memory: time and memory under each driver, and what rounding costs over many steps."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import jaxrnn
from jaxrnn import KDA, MLSTM, Chunkwise, Driver, GatedDeltaNet, Mamba2, MatrixCell, Native, Packed, Scan

from . import machine, record, timing
from .measure import milliseconds, show
from .peers.peer import compile_ahead
from .result import Result, Row, distinct, figure, small
from .tables import grid

CELLS = {"MLSTM": MLSTM, "Mamba2": Mamba2, "GatedDeltaNet": GatedDeltaNet, "KDA": KDA}
DRIVERS: dict[str, Driver | None] = {"select": None, "Native()": Native(), "Chunkwise()": Chunkwise(), "Scan()": Scan()}
MEMAX = "memax GDN"
FORWARD, GRADIENT = "forward", "gradient"
CHUNK = 64  # of the chunked form whose FLOPs are counted
LARGE = 2**31  # bytes that the states of all steps may have, where every step keeps one
METHOD = (
    "in turn in one process (A B A B), median and quartiles. The cells get their features as inputs (Packed()), "
    "without a projection; a gradient is that of the mean of sum(y^2) for params and inputs. The chunked form has 2 C"
    " (K + V) + 4 K V FLOPs a step and head, with a delta rule 2 C (K + V) + 2 K V more, C = 64; a gradient counts "
    "three times. Percentages are of the FLOP/s of a matmul of 2048 x 2048 matrices in the same run. Memory is the "
    "compiler's plan; an array is one of (T, B, N, K). memax's GDN includes the projections of one head of 64 "
    "features, and is mapped over B N of them. Errors are the largest, over the largest output of float64, of Scan() "
    "in float64."
)


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Measure cells with a matrix memory.

    Args:
        cells: of MLSTM, Mamba2, GatedDeltaNet and KDA.
        names: the drivers, and "memax GDN".
        shapes: (T, B, N, K, V) of each case.
        accuracy: T of the errors; 0 leaves them out.
        long: T of one gradient whose memory is stated; 0 leaves it out.
        budget: seconds of timing a case, without compilation.
        json: the result file; by default in the folder of this hardware.
    """

    cells: tuple[str, ...] = ("MLSTM", "Mamba2", "GatedDeltaNet")
    names: tuple[str, ...] = (*DRIVERS, MEMAX)
    shapes: tuple[tuple[int, int, int, int, int], ...] = (
        (256, 4, 4, 64, 64),
        (4096, 4, 4, 64, 64),
        (65536, 1, 4, 64, 64),
    )
    accuracy: int = 65536
    long: int = 1_000_000
    budget: float = 20.0
    json: pathlib.Path | None = None

    def __call__(self) -> None:
        """Measure, show, and write the file, after each case too."""
        if unknown := set(self.names) - {*DRIVERS, MEMAX}:
            raise ValueError(f"names are of {', '.join([*DRIVERS, MEMAX])}; got {', '.join(sorted(unknown))}")
        if unknown := set(self.cells) - CELLS.keys():
            raise ValueError(f"cells are of {', '.join(CELLS)}; got {', '.join(sorted(unknown))}")
        peak = machine.measure(["float32"]).peak("float32")
        rows: list[Row] = []
        for shape in self.shapes:
            for name in self.cells:
                for what in (FORWARD, GRADIENT):
                    rows += self.case(name, shape, what, peak)
                    self._write(rows, peak)
        if rows:
            show("ms, and the share of the rate of a matmul", [_line(row) for row in rows])
        if self.accuracy:
            rows += [errors(name, self.accuracy) for name in self.cells]
        if self.long:
            rows += [endless(name, self.long) for name in self.cells]
        for row in rows:
            if "shape" not in row:
                show(f"{row['cell']}, T={row['time']:,}", [{"": "largest error, or one gradient"} | _rest(row)])
        print(f"wrote {self._write(rows, peak)}")

    def case(self, name: str, shape: tuple[int, ...], what: str, peak: float) -> list[Row]:
        """Return a row for each driver: what it takes, or why it is absent."""
        rows, calls = [], {}
        time, batch, heads, keys, _ = shape
        for driver in self.names:
            row: Row = {"cell": name, "shape": list(shape), "what": what, "name": driver}
            try:
                if reason := absent(name, shape, what, driver):
                    raise ValueError(reason)
                run, given = memax(shape, what) if driver == MEMAX else ours(name, shape, what, DRIVERS[driver])
                program, compiled_in, temporary = compile_ahead(run, *given)
                calls[driver] = functools.partial(_wait, program, given)
                calls[driver]()
            except Exception as failure:  # such as out of memory
                rows.append(row | {"absent": str(failure)[:200]})
                continue
            arrays = (temporary or 0) / (4 * time * batch * heads * keys)
            rows.append(row | {"compile_seconds": compiled_in, "temporary_bytes": temporary, "arrays": arrays})
        samples = timing.interleave(calls, self.budget)
        work = flops(name, shape) * (1 if what == FORWARD else 3)
        for row in rows:
            if taken := samples.get(row["name"]):
                row["seconds"] = timing.spread(taken)
                row["percent"] = 100 * work / row["seconds"]["median"] / peak
                if "Scan()" in samples:
                    row["scan_over"] = timing.ratio(samples["Scan()"], taken)
        return rows

    def _write(self, rows: list[Row], peak: float) -> pathlib.Path:
        return record.write("matrix", rows, self.json, method=METHOD, gemm_flops=peak)


def _wait(program: Callable[..., Any], given: tuple[Any, ...]) -> Any:
    return jax.block_until_ready(program(*given))


def absent(name: str, shape: tuple[int, ...], what: str, driver: str) -> str | None:
    """Return why a driver does not run a case; None where it does."""
    time, batch, heads, keys, values = shape
    states = 4 * time * batch * heads * keys * values
    if driver == MEMAX and importlib.util.find_spec("memax") is None:
        return "memax is not installed"
    if driver == MEMAX and name != "GatedDeltaNet":
        return "memax has the gated delta rule alone"
    if driver == MEMAX and 8 * states > LARGE:
        return f"memory: two matrices for every step, {2 * states / 2**30:.0f} GiB, several times"
    return f"memory: a state for every step, {states / 2**30:.0f} GiB" if _keeps(driver, what, states) else None


def _keeps(driver: str, what: str, states: int) -> bool:
    return driver == "Scan()" and what == GRADIENT and states > 2 * LARGE


def flops(name: str, shape: tuple[int, ...]) -> float:
    """Return the FLOPs of the chunked form of a forward pass."""
    time, batch, heads, keys, values = shape
    values += name == "MLSTM"
    step = 2 * CHUNK * (keys + values) + 4 * keys * values
    if name in ("GatedDeltaNet", "KDA"):
        step += 2 * CHUNK * (keys + values) + 2 * keys * values
    return float(time * batch * heads * step)


def made(name: str, heads: int, keys: int, values: int) -> MatrixCell:
    """Return a cell that gets its features as inputs."""
    return CELLS[name](heads, keys, value_dim=values, projection=Packed())


def ours(name: str, shape: tuple[int, ...], what: str, driver: Driver | None) -> tuple[Callable[..., Any], Any]:
    """Return the function that is measured, and its arguments."""
    time, batch, *sizes = shape
    cell = made(name, *sizes)
    given = drawn(cell, (time, batch))
    outputs = lambda params, xs: jaxrnn.unroll(cell, params, xs, driver=driver)[1]
    if what == FORWARD:
        return outputs, given
    return jax.grad(lambda params, xs: jnp.square(outputs(params, xs)).mean(), (0, 1)), given


def drawn(cell: MatrixCell, rows: tuple[int, ...], scale: float = 0.5) -> tuple[Any, jax.Array]:
    """Draw params and features."""
    features = sum(cell.sizes())
    params = cell.init(jax.random.key(0), features)
    return params, scale * jax.random.normal(jax.random.key(1), (*rows, features))


def memax(shape: tuple[int, ...], what: str) -> tuple[Callable[..., Any], Any]:
    """Return memax's layer for one head of K features, mapped over B N sequences, and its arguments."""
    import equinox as eqx
    from memax.equinox.semigroups.gdn import GDN

    time, batch, heads, keys, _ = shape
    layer = GDN(keys, keys, key=jax.random.key(0))
    arrays, rest = eqx.partition(layer, eqx.is_array)
    xs, starts = jax.random.normal(jax.random.key(1), (batch * heads, time, keys)), jnp.zeros(time, bool)

    def outputs(arrays: Any, xs: jax.Array) -> jax.Array:
        layer = eqx.combine(arrays, rest)
        ys: jax.Array = jax.vmap(lambda x: layer(layer.initialize_carry(), (x, starts))[1])(xs)
        return ys

    if what == FORWARD:
        return outputs, (arrays, xs)
    return jax.grad(lambda arrays, xs: jnp.square(outputs(arrays, xs)).mean(), (0, 1)), (arrays, xs)


def errors(name: str, time: int) -> Row:
    """Return the errors of `Chunkwise()` and `Scan()` after many steps, in float32 and bfloat16."""
    cell = made(name, 2, 16, 16)
    params, xs = drawn(cell, (time, 1))
    row: Row = {"cell": name, "time": time, "heads": 2, "keys": 16, "values": 16}
    for dtype in ("float32", "bfloat16"):
        narrow = jax.tree.map(lambda a, dtype=dtype: a.astype(dtype), (params, xs))
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), narrow)
            exact = np.asarray(jaxrnn.unroll(cell, *wide, driver=Scan())[1])
        for driver in (Chunkwise(), Scan()):
            ys = np.asarray(jaxrnn.unroll(cell, *narrow, driver=driver)[1], np.float64)
            row[f"{dtype} {driver.__class__.__name__}"] = float(np.abs(ys - exact).max() / np.abs(exact).max())
    return row


def endless(name: str, time: int) -> Row:
    """Return the memory and the seconds of one gradient of very many steps."""
    run, given = ours(name, (time, 1, 1, 64, 64), GRADIENT, Chunkwise())
    program, _, temporary = compile_ahead(run, *given)
    results: list[Any] = []
    taken = timing.seconds(lambda: results.append(_wait(program, given)))
    finite = all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(results))
    row: Row = {"cell": name, "time": time, "heads": 1, "keys": 64, "values": 64, "gradient_seconds": taken}
    return row | {"temporary_bytes": temporary, "arrays": (temporary or 0) / (4 * time * 64), "finite": finite}


def page(result: Result) -> str:
    """Return the Markdown of a result file: a table for each shape, the errors, and the long gradient."""
    parts = [str(result.head["method"])]
    timed = [row for row in result.rows if "shape" in row]
    for shape in distinct(tuple(row["shape"]) for row in timed):
        lines: dict[str, list[str]] = {}
        for row in timed:
            if tuple(row["shape"]) == shape and "seconds" in row:
                scan = f"{row['scan_over']['median']:.1f}" if "scan_over" in row else ""
                cells = [figure(1e3 * row["seconds"]["median"]), f"{row['percent']:.0f}", scan, f"{row['arrays']:.1f}"]
                line = lines.setdefault(f"{row['cell']}, {row['name']}", [""] * 8)
                start = 4 * (row["what"] == GRADIENT)
                line[start : start + 4] = cells
        heads = [f"{what}, {unit}" for what in (FORWARD, GRADIENT) for unit in ("ms", "% of matmul", "Scan/", "arrays")]
        table = pd.DataFrame.from_dict(lines, orient="index", columns=heads)
        parts.append("T={} B={} N={} K={} V={}".format(*shape) + f"\n\n{grid(table)}")
    rest = [row for row in result.rows if "shape" not in row]
    for key in ("float32 Scan", "gradient_seconds"):
        found = {f"{row['cell']}, T={row['time']:,}": _rest(row) for row in rest if key in row}
        if found:
            parts.append(grid(pd.DataFrame.from_dict(found, orient="index")))
    return "\n\n".join(parts)


def _line(row: Row) -> dict[str, str]:
    """Return the line of a driver."""
    line = {"": f"{row['cell']} {row['shape']} {row['what']} {row['name']}"}
    if "absent" in row:
        return line | {"ms": row["absent"]}
    line |= {"ms": milliseconds(row), "%": f"{row['percent']:.0f}", "arrays": f"{row['arrays']:.1f}"}
    return line | ({"Scan/": f"{row['scan_over']['median']:.1f}"} if "scan_over" in row else {})


def _rest(row: Row) -> dict[str, str]:
    """Return what a row without times in turn says."""
    if "gradient_seconds" in row:
        size = f"{row['temporary_bytes'] / 1e6:.0f}"
        return {"gradient, s": f"{row['gradient_seconds']:.1f}", "MB": size, "arrays": f"{row['arrays']:.1f}"}
    return {name: small(value) for name, value in row.items() if name.startswith(("float32", "bfloat16"))}
