"""Long-term memory of cells, and the cost of drivers: `python -m examples.long_memory --help`.

Two problems of Hochreiter and Schmidhuber (1997) and of Arjovsky, Shah and Bengio (2016). In "adding" every step has a
number and a flag, and the target is the sum of the two flagged numbers. In "copy" ten symbols come first, then T - 20
blanks, then ten delimiters, at which the symbols must be repeated in order.
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
from jaxrnn import (
    GRU,
    LRU,
    LSTM,
    RGLRU,
    Associative,
    Driver,
    GlorotOrthogonal,
    IndRNN,
    Linear,
    MinGRU,
    MinLSTM,
    Scan,
    Stack,
)
from jaxrnn.extend import extra
from jaxrnn.train import init, make_step

with extra("examples"):
    import tyro
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.table import Table
    from tyro.conf import arg

SYMBOLS, LENGTH = 8, 10  # number of symbols, and length of the sequence to copy
DRIVERS: dict[str, Driver | None] = {"Scan()": Scan(), "Associative()": Associative(), "select": None}
PROGRAM = f"python -m {__package__}.long_memory"
TIMING_SAMPLES = 7
Row = dict[str, Any]
console = Console(highlight=False, soft_wrap=True)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A problem to learn: the distribution of its batches, and its loss.

    Args:
        name: adding or copy.
        time: T, the number of steps.
        batch: B, the number of sequences.
    """

    name: Literal["adding", "copy"]
    time: int
    batch: int

    @property
    def sizes(self) -> tuple[int, int]:
        """Return the number of input features, and of output features."""
        return (2, 1) if self.name == "adding" else (SYMBOLS + 2, SYMBOLS)

    def draw(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draw inputs (T, B, D) and targets: sums (B,), or symbols (10, B)."""
        if self.name == "copy":
            symbols = jax.random.randint(key, (LENGTH, self.batch), 0, SYMBOLS)
            blanks = jnp.full((self.time - 2 * LENGTH, self.batch), SYMBOLS)
            delimiters = jnp.full((LENGTH, self.batch), SYMBOLS + 1)
            return jax.nn.one_hot(jnp.concatenate([symbols, blanks, delimiters]), SYMBOLS + 2), symbols
        k_numbers, k_steps = jax.random.split(key)
        numbers = jax.random.uniform(k_numbers, (self.time, self.batch))
        half = self.time // 2
        steps = jax.random.randint(k_steps, (2, self.batch), 0, half) + jnp.array([[0], [half]])
        flags = jax.nn.one_hot(steps, self.time, axis=1).sum(axis=0)
        return jnp.stack([numbers, flags], axis=-1), (numbers * flags).sum(axis=0)

    def loss(self, outputs: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the loss and the accuracy of outputs (T, B, K). A sum is correct within 0.1."""
        if self.name == "adding":
            error = outputs[-1, :, 0] - targets
            return (error**2).mean(), (jnp.abs(error) < 0.1).mean()
        last = outputs[-LENGTH:]
        losses = optax.softmax_cross_entropy_with_integer_labels(last, targets)
        return losses.mean(), (last.argmax(axis=-1) == targets).mean()

    @property
    def memoryless_loss(self) -> float:
        """Return the loss of the best prediction that does not depend on the inputs."""
        return 1 / 6 if self.name == "adding" else math.log(SYMBOLS)


@dataclasses.dataclass(frozen=True)
class ChronoInit(GlorotOrthogonal):
    """`GlorotOrthogonal` with biases such that units initially remember for 1 to T steps.

    Args:
        time: T.
        signs: the factor of each gate's bias: 1 for a forget gate, -1 for an input gate, 0 for others.

    Reference: Tallec and Ollivier, "Can recurrent neural networks warp time?", ICLR 2018, section 2
    (https://arxiv.org/abs/1804.11188).
    """

    time: int
    signs: tuple[int, ...]

    def bias(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return b (G, H): log U(1, T) times the sign of the gate."""
        signs = self.signs[: shape[0]]  # the bias b_hn (1, H) of a GRU has the sign of gate r: 0
        return jnp.outer(jnp.array(signs), jnp.log(self._time_constants(key, shape[1:])))

    def diagonal(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return w_h (G, H): exp(-1 / U(1, T))."""
        return jnp.exp(-1 / self._time_constants(key, shape))

    def _time_constants(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.uniform(key, shape, minval=1.0, maxval=float(self.time))


def long_lru(hidden: int, problem: Problem) -> LRU:
    """Return an LRU that remembers T steps. Its phases are small for adding, and up to pi for the order in copy."""
    r_min, r_max = math.exp(-1 / problem.time), math.exp(-0.1 / problem.time)
    max_phase = 3 / problem.time if problem.name == "adding" else math.pi
    return LRU(hidden, r_min=r_min, r_max=r_max, max_phase=max_phase)


CELLS: dict[str, Callable[[int, Problem], Any]] = {
    "lru": long_lru,
    "rg_lru": lambda hidden, problem: RGLRU(hidden, initializer=ChronoInit(problem.time, (-1, 0))),
    "min_gru": lambda hidden, problem: MinGRU(hidden, initializer=ChronoInit(problem.time, (-1, 0))),
    "min_lstm": lambda hidden, problem: MinLSTM(hidden, initializer=ChronoInit(problem.time, (1, -1, 0))),
    "ind_rnn": lambda hidden, problem: IndRNN(hidden, initializer=ChronoInit(problem.time, (0,))),
    "gru": lambda hidden, problem: GRU(hidden, initializer=ChronoInit(problem.time, (0, 1, 0))),
    "lstm": lambda hidden, problem: LSTM(hidden, forget_bias=0.0, initializer=ChronoInit(problem.time, (-1, 1, 0, 0))),
    "gru_default": lambda hidden, problem: GRU(hidden),
    "lstm_default": lambda hidden, problem: LSTM(hidden),
}


@dataclasses.dataclass(frozen=True)
class Net:
    """A ReLU layer, a cell, and a linear readout of every step."""

    cell: Any
    problem: Problem

    @property
    def layers(self) -> Stack:
        """Return the layers."""
        return Stack((Linear(self.cell.hidden, activation="relu"), self.cell, Linear(self.problem.sizes[1])))

    def init(self, key: jax.Array) -> Any:
        """Draw the params."""
        return self.layers.init(key, self.problem.sizes[0])

    def loss(self, driver: Driver | None, params: Any, batch: Any, key: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the loss and the accuracy of a batch, as `make_step` needs."""
        xs, targets = batch
        _, ys = jaxrnn.unroll(self.layers, params, xs, driver=driver)
        loss, accuracy = self.problem.loss(ys, targets)
        return loss, {"accuracy": accuracy}


@dataclasses.dataclass(frozen=True)
class Main:
    """Train each cell on a problem, time its gradient under each driver, and write a plot and a JSON file."""

    problem: Annotated[Literal["adding", "copy"], arg(help="the problem to train on")] = "adding"
    time: Annotated[int, arg(help="T, the steps of a sequence")] = 1000
    batch: Annotated[int, arg(help="B, the sequences of a batch")] = 32
    hidden: Annotated[int, arg(help="H, the hidden units")] = 32
    steps: Annotated[int, arg(help="number of batches to train on")] = 600
    rate: Annotated[float, arg(help="the maximum learning rate")] = 3e-3
    cells: Annotated[tuple[str, ...], arg(help=f"of {', '.join(CELLS)}")] = tuple(CELLS)
    seed: int = 0
    out: Annotated[Path, arg(help="the plot; results go to a .json next to it")] = Path("runs/long-memory.png")

    def __call__(self) -> None:
        """Run the command. The files are written after each cell."""
        problem = Problem(self.problem, self.time, self.batch)
        columns = "loss", "accuracy", *(f"ms, {name}" for name in DRIVERS)
        table = Table(f"{self.problem}, T={self.time}", *columns, box=None)
        table.add_row("(memoryless)", f"{problem.memoryless_loss:.4f}")
        rows: dict[str, Row] = {}
        for name in self.cells:
            net = Net(CELLS[name](self.hidden, problem), problem)
            row = rows[name] = self._train(net)
            row["milliseconds"] = times = self._times(net)
            shown = (f"{times[driver]:.1f}" if driver in times else "" for driver in DRIVERS)
            table.add_row(name, f"{row['losses'][-1]:.4f}", f"{row['accuracy']:.1%}", *shown)
            loss, accuracy = f"loss {row['losses'][-1]:.4f}", f"accuracy {row['accuracy']:.1%}"
            console.print(f"{name}: {loss}, {accuracy}, {row['seconds']:.0f} s")
            self._write(rows)
            self._draw(problem, rows)
        console.print(table)
        console.print(f"plot     {self.out}", markup=False)

    def _train(self, net: Net) -> Row:
        """Train and return the mean losses of 50 intervals, the accuracy of the last interval, and the seconds."""
        rate = optax.cosine_onecycle_schedule(self.steps, self.rate)
        step = make_step(lambda *arguments: net.loss(None, *arguments), optax.adam(rate))
        k_params, k_data = jax.random.split(jax.random.key(self.seed))
        state = init(net.init(k_params), optax.adam(rate), k_data)
        draw = jax.jit(net.problem.draw)
        history, start = [], time.perf_counter()
        for i in range(self.steps):
            state, metrics = step(state, draw(jax.random.fold_in(k_data, i)))
            history.append((metrics["loss"], metrics["accuracy"]))
        losses, accuracies = np.array(jax.device_get(history)).T
        width = max(1, self.steps // 50)
        means = [float(losses[i : i + width].mean()) for i in range(0, self.steps - width + 1, width)]
        accuracy = float(accuracies[-width:].mean())
        return {"losses": means, "accuracy": accuracy, "seconds": time.perf_counter() - start}

    def _times(self, net: Net) -> dict[str, float]:
        """Return the milliseconds of a gradient under each driver that supports the cell, measured in turn."""
        affine = isinstance(net.cell, jaxrnn.AffineCell)
        drivers = {name: d for name, d in DRIVERS.items() if affine or not isinstance(d, Associative)}
        loss = lambda driver, params, batch: net.loss(driver, params, batch, None)[0]
        grads = {name: jax.jit(jax.grad(functools.partial(loss, driver))) for name, driver in drivers.items()}
        arguments = net.init(jax.random.key(0)), net.problem.draw(jax.random.key(1))
        seconds: dict[str, list[float]] = {name: [] for name in grads}
        for _ in range(TIMING_SAMPLES + 1):  # the first one compiles
            for name, grad in grads.items():
                start = time.perf_counter()
                jax.block_until_ready(grad(*arguments))
                seconds[name].append(time.perf_counter() - start)
        return {name: 1e3 * statistics.median(samples[1:]) for name, samples in seconds.items()}

    def _write(self, rows: dict[str, Row]) -> None:
        """Write the results, with command, versions and cores."""
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
        left.axhline(problem.memoryless_loss, color="#9aa5b1", ls=":", label="memoryless")
        left.set(yscale="log", xlabel="batch", ylabel="loss", title=f"{self.problem}, T = {self.time:,}")
        left.set_ylim(top=10 * problem.memoryless_loss)
        left.legend(frameon=False, fontsize=8)
        for index, driver in enumerate(DRIVERS):
            positions = [i + 0.27 * (index - 1) for i in range(len(rows))]
            right.bar(positions, [row["milliseconds"].get(driver, 0) for row in rows.values()], 0.25, label=driver)
        right.set_xticks(range(len(rows)), list(rows), fontsize=7, rotation=20)
        right.set(ylabel="ms, loss and gradient", title=f"B = {self.batch}, H = {self.hidden}")
        right.legend(frameon=False, fontsize=8)
        figure.savefig(self.out)


if __name__ == "__main__":
    tyro.cli(Main, prog=PROGRAM)()
