"""What is remembered over long sequences, and what it costs: `python -m examples.long_memory --help`.

Two problems of Hochreiter and Schmidhuber (1997) and of Arjovsky, Shah and Bengio (2016). In "adding" every step has a
number and a flag, and the answer is the sum of the two numbers that are flagged. In "copy" ten symbols come first,
then T blanks, then a sign to say the ten again.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxrnn
from jaxrnn import GRU, LRU, LSTM, RGLRU, Associative, Driver, GlorotOrthogonal, IndRNN, MinGRU, MinLSTM, Scan
from jaxrnn.extend import extra
from jaxrnn.model import init_readout, readout
from jaxrnn.train import init, make_step

with extra("examples"):
    import tyro
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.table import Table
    from tyro.conf import arg

SYMBOLS, LENGTH = 8, 10  # of what is to be copied
DRIVERS: dict[str, Driver | None] = {"Scan()": Scan(), "Associative()": Associative(), "select": None}
PROGRAM = f"python -m {__package__}.long_memory"
TIMED = 7  # gradients of a cell under each driver
Row = dict[str, Any]
console = Console(highlight=False, soft_wrap=True)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A problem: how a batch is drawn, and how answers are judged.

    Args:
        name: adding or copy.
        time: T.
        batch: B.
    """

    name: Literal["adding", "copy"]
    time: int
    batch: int

    @property
    def sizes(self) -> tuple[int, int]:
        """Give the features of an input, and of an answer."""
        return (2, 1) if self.name == "adding" else (SYMBOLS + 2, SYMBOLS)

    def draw(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Give inputs (T, B, D) and what is right: sums (B,), or symbols (10, B)."""
        if self.name == "copy":
            symbols = jax.random.randint(key, (LENGTH, self.batch), 0, SYMBOLS)
            blanks = jnp.full((self.time - 2 * LENGTH, self.batch), SYMBOLS)
            signs = jnp.full((LENGTH, self.batch), SYMBOLS + 1)
            return jax.nn.one_hot(jnp.concatenate([symbols, blanks, signs]), SYMBOLS + 2), symbols
        k_numbers, k_places = jax.random.split(key)
        numbers = jax.random.uniform(k_numbers, (self.time, self.batch))
        half = self.time // 2
        places = jax.random.randint(k_places, (2, self.batch), 0, half) + jnp.array([[0], [half]])
        flags = jax.nn.one_hot(places, self.time, axis=1).sum(axis=0)
        return jnp.stack([numbers, flags], axis=-1), (numbers * flags).sum(axis=0)

    def loss(self, answers: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Judge answers (T, B, K): the loss, and the share that is right (within 0.1, for a sum)."""
        if self.name == "adding":
            off = answers[-1, :, 0] - right
            return (off**2).mean(), (jnp.abs(off) < 0.1).mean()
        last = answers[-LENGTH:]
        losses = optax.softmax_cross_entropy_with_integer_labels(last, right)
        return losses.mean(), (last.argmax(axis=-1) == right).mean()

    @property
    def blind(self) -> float:
        """Give the loss of who remembers nothing."""
        return 1 / 6 if self.name == "adding" else math.log(SYMBOLS)


@dataclasses.dataclass(frozen=True)
class FarBack(GlorotOrthogonal):
    """`GlorotOrthogonal`, but for units that begin by keeping what they heard for 1 to T steps.

    Args:
        time: T.
        signs: what each gate's bias is multiplied by: 1 for a gate that keeps, -1 for one that lets in, 0 for others.

    Reference: Tallec and Ollivier, "Can recurrent neural networks warp time?", ICLR 2018, section 2
    (https://arxiv.org/abs/1804.11188).
    """

    time: int
    signs: tuple[int, ...]

    def bias(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """b (G, H): log U(1, T) with the sign of its gate."""
        signs = self.signs[: shape[0]]  # a GRU's b_hn (1, H) is as its r is: 0
        return jnp.outer(jnp.array(signs), jnp.log(self._steps(key, shape[1:])))

    def diagonal(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """w_h (G, H): exp(-1 / U(1, T))."""
        return jnp.exp(-1 / self._steps(key, shape))

    def _steps(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.uniform(key, shape, minval=1.0, maxval=float(self.time))


def ring(hidden: int, problem: Problem) -> LRU:
    """Give an LRU that keeps T steps: it turns slowly to add, fast to tell the order of what is to be copied."""
    smallest, largest = math.exp(-1 / problem.time), math.exp(-0.1 / problem.time)
    angle = 3 / problem.time if problem.name == "adding" else math.pi
    return LRU(hidden, r_min=smallest, r_max=largest, max_phase=angle)


CELLS: dict[str, Callable[[int, Problem], Any]] = {
    "lru": ring,
    "rg_lru": lambda hidden, problem: RGLRU(hidden, initializer=FarBack(problem.time, (-1, 0))),
    "min_gru": lambda hidden, problem: MinGRU(hidden, initializer=FarBack(problem.time, (-1, 0))),
    "min_lstm": lambda hidden, problem: MinLSTM(hidden, initializer=FarBack(problem.time, (1, -1, 0))),
    "ind_rnn": lambda hidden, problem: IndRNN(hidden, initializer=FarBack(problem.time, (0,))),
    "gru": lambda hidden, problem: GRU(hidden, initializer=FarBack(problem.time, (0, 1, 0))),
    "lstm": lambda hidden, problem: LSTM(hidden, forget_bias=0.0, initializer=FarBack(problem.time, (-1, 1, 0, 0))),
    "gru_default": lambda hidden, problem: GRU(hidden),
    "lstm_default": lambda hidden, problem: LSTM(hidden),
}


@dataclasses.dataclass(frozen=True)
class Net:
    """A projection with a rectifier, a cell, and a readout."""

    cell: Any
    hidden: int
    problem: Problem

    def init(self, key: jax.Array) -> Any:
        """Draw the params."""
        k_in, k_cell, k_out = jax.random.split(key, 3)
        inputs, outputs = self.problem.sizes
        return (
            init_readout(k_in, inputs, self.hidden),
            self.cell.init(k_cell, self.hidden),
            init_readout(k_out, self.hidden, outputs),
        )

    def loss(self, driver: Driver | None, params: Any, batch: Any, key: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Give the loss of a batch, in the form that `make_step` takes."""
        xs, right = batch
        into, cell, out = params
        _, ys = jaxrnn.unroll(self.cell, cell, jax.nn.relu(readout(into, xs)), driver=driver)
        loss, share = self.problem.loss(readout(out, ys[-LENGTH:]), right)
        return loss, {"right": share}


@dataclasses.dataclass(frozen=True)
class Main:
    """Train each cell on a problem, time a gradient of it under each driver, draw both, and write both down."""

    problem: Annotated[Literal["adding", "copy"], arg(help="what is to be remembered")] = "adding"
    time: Annotated[int, arg(help="T, the steps of a sequence")] = 1000
    batch: Annotated[int, arg(help="B, the sequences of a batch")] = 32
    hidden: Annotated[int, arg(help="H, the units")] = 32
    steps: Annotated[int, arg(help="how many batches to train on")] = 600
    rate: Annotated[float, arg(help="the highest learning rate")] = 3e-3
    cells: Annotated[tuple[str, ...], arg(help=f"of {', '.join(CELLS)}")] = tuple(CELLS)
    seed: int = 0
    out: Annotated[Path, arg(help="the picture; the figures are beside it as .json")] = Path("runs/long-memory.png")

    def __call__(self) -> None:
        """Do it; picture and figures are written after each cell."""
        problem = Problem(self.problem, self.time, self.batch)
        table = Table(f"{self.problem}, T={self.time}", "loss", "right", *(f"ms, {name}" for name in DRIVERS), box=None)
        table.add_row("(remembers nothing)", f"{problem.blind:.4f}")
        rows: dict[str, Row] = {}
        for name in self.cells:
            net = Net(CELLS[name](self.hidden, problem), self.hidden, problem)
            row = rows[name] = self._train(net)
            row["milliseconds"] = costs = self._costs(net)
            shown = (f"{costs[driver]:.1f}" if driver in costs else "" for driver in DRIVERS)
            table.add_row(name, f"{row['losses'][-1]:.4f}", f"{row['right']:.1%}", *shown)
            console.print(f"{name}: {row['losses'][-1]:.4f}, {row['right']:.1%} right, {row['seconds']:.0f} s")
            self._write(rows)
            self._draw(problem, rows)
        console.print(table)
        console.print(f"picture  {self.out}", markup=False)

    def _train(self, net: Net) -> Row:
        """Train; give some fifty means of the losses, the share that is right in the last of them, and the seconds."""
        rate = optax.cosine_onecycle_schedule(self.steps, self.rate)
        step = make_step(lambda *arguments: net.loss(None, *arguments), optax.adam(rate))
        k_params, k_data = jax.random.split(jax.random.key(self.seed))
        state = init(net.init(k_params), optax.adam(rate), k_data)
        draw = jax.jit(net.problem.draw)
        found, began = [], time.perf_counter()
        for i in range(self.steps):
            state, metrics = step(state, draw(jax.random.fold_in(k_data, i)))
            found.append((metrics["loss"], metrics["right"]))
        losses, shares = np.array(jax.device_get(found)).T
        width = max(1, self.steps // 50)
        means = [float(losses[i : i + width].mean()) for i in range(0, self.steps - width + 1, width)]
        return {"losses": means, "right": float(shares[-width:].mean()), "seconds": time.perf_counter() - began}

    def _costs(self, net: Net) -> dict[str, float]:
        """Give the milliseconds of a loss and its gradient under each driver that takes the cell, timed in turn."""
        affine = isinstance(net.cell, jaxrnn.AffineCell)
        drivers = {name: d for name, d in DRIVERS.items() if affine or not isinstance(d, Associative)}
        loss = lambda driver, params, batch: net.loss(driver, params, batch, None)[0]
        calls = {name: jax.jit(jax.grad(functools.partial(loss, driver))) for name, driver in drivers.items()}
        arguments = net.init(jax.random.key(0)), net.problem.draw(jax.random.key(1))
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(TIMED + 1):  # the first one compiles
            for name, call in calls.items():
                began = time.perf_counter()
                jax.block_until_ready(call(*arguments))
                seconds[name].append(time.perf_counter() - began)
        return {name: 1e3 * statistics.median(found[1:]) for name, found in seconds.items()}

    def _write(self, rows: dict[str, Row]) -> None:
        """Write what was found, and how."""
        about = dataclasses.asdict(self) | {"out": self.out.name, "cells": rows}
        about["command"] = " ".join([PROGRAM, *sys.argv[1:]])
        about["versions"] = {name: version(name) for name in ("jax", "jaxlib", "optax")}
        about["cores"] = os.cpu_count()
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")

    def _draw(self, problem: Problem, rows: dict[str, Row]) -> None:
        figure = Figure(figsize=(11, 4.2), layout="constrained", dpi=130)
        left, right = figure.subplots(1, 2)
        for name, row in rows.items():
            losses = row["losses"]
            batches = [(i + 0.5) * self.steps / len(losses) for i in range(len(losses))]
            left.plot(batches, losses, "--" if "default" in name else "-", label=name)
        left.axhline(problem.blind, color="#9aa5b1", ls=":", label="remembers nothing")
        left.set(yscale="log", xlabel="batch", ylabel="loss", title=f"{self.problem}, T = {self.time:,}")
        left.set_ylim(top=10 * problem.blind)
        left.legend(frameon=False, fontsize=8)
        for at, driver in enumerate(DRIVERS):
            places = [i + 0.27 * (at - 1) for i in range(len(rows))]
            right.bar(places, [row["milliseconds"].get(driver, 0) for row in rows.values()], 0.25, label=driver)
        right.set_xticks(range(len(rows)), list(rows), fontsize=7, rotation=20)
        right.set(ylabel="ms, loss and gradient", title=f"B = {self.batch}, H = {self.hidden}")
        right.legend(frameon=False, fontsize=8)
        figure.savefig(self.out)


if __name__ == "__main__":
    tyro.cli(Main, prog=PROGRAM)()
