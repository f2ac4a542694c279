"""What is remembered over long sequences, and what it costs: `python -m examples.long_memory --help`.

Two problems of Hochreiter and Schmidhuber (1997) and of Arjovsky, Shah and Bengio (2016). In "adding" every step has a
number and a flag, and the answer is the sum of the two numbers that are flagged. In "copy" ten symbols come first,
then T blanks, then a sign to say the ten again.
"""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from tyro.conf import arg

import jaxrnn
from jaxrnn import GRU, LRU, LSTM, RGLRU, Associative, Driver, IndRNN, MinGRU, MinLSTM, Scan
from jaxrnn.model import init_readout, readout
from jaxrnn.train import init, make_step

SYMBOLS, LENGTH = 8, 10  # of what is to be copied
CELLS: dict[str, Any] = {
    "lru": lambda hidden: LRU(hidden, smallest=0.9, largest=0.9999, angle=math.pi / 50),
    "rg_lru": RGLRU,
    "min_gru": MinGRU,
    "min_lstm": MinLSTM,
    "ind_rnn": IndRNN,
    "gru": GRU,
    "lstm": lambda hidden: LSTM(hidden, forget_bias=5.0),
}
DRIVERS: dict[str, Driver | None] = {"Scan()": Scan(), "Associative()": Associative(), "select": None}
TIMED = 3  # training steps, after one that compiles
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
    """Train each cell on a problem, time a step of it under each driver, and draw both."""

    problem: Annotated[Literal["adding", "copy"], arg(help="what is to be remembered")] = "adding"
    time: Annotated[int, arg(help="T, the steps of a sequence")] = 1000
    batch: Annotated[int, arg(help="B, the sequences of a batch")] = 32
    hidden: Annotated[int, arg(help="H, the units")] = 64
    steps: Annotated[int, arg(help="how many batches to train on")] = 1000
    rate: Annotated[float, arg(help="the highest learning rate")] = 3e-3
    cells: Annotated[tuple[str, ...], arg(help=f"of {', '.join(CELLS)}")] = tuple(CELLS)
    seed: int = 0
    out: Annotated[Path, arg(help="the picture")] = Path("runs/long-memory.png")

    def __call__(self) -> None:
        """Do it."""
        problem = Problem(self.problem, self.time, self.batch)
        table = Table(f"{self.problem}, T={self.time}", "loss", "right", *(f"ms, {name}" for name in DRIVERS), box=None)
        curves: dict[str, list[float]] = {}
        costs: dict[str, list[float | None]] = {}
        for name in self.cells:
            net = Net(CELLS[name](self.hidden), self.hidden, problem)
            curves[name], right = self._train(net)
            costs[name] = [self._cost(net, driver) for driver in DRIVERS.values()]
            shown = ("" if cost is None else f"{cost:.1f}" for cost in costs[name])
            table.add_row(name, f"{curves[name][-1]:.4f}", f"{right:.1%}", *shown)
            console.print(f"{name}: {curves[name][-1]:.4f}, {right:.1%} right")
        console.print(table)
        self._draw(problem, curves, costs)
        console.print(f"picture  {self.out}", markup=False)

    def _train(self, net: Net) -> tuple[list[float], float]:
        """Train; give the losses, about a hundred means of them, and the share that is right at the end."""
        rate = optax.cosine_onecycle_schedule(self.steps, self.rate)
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
        step = make_step(lambda *arguments: net.loss(None, *arguments), optimizer)
        k_params, k_data = jax.random.split(jax.random.key(self.seed))
        state = init(net.init(k_params), optimizer, k_data)
        draw = jax.jit(net.problem.draw)
        found = []
        for i in range(self.steps):
            state, metrics = step(state, draw(jax.random.fold_in(k_data, i)))
            found.append((metrics["loss"], metrics["right"]))
        losses, shares = zip(*jax.device_get(found), strict=True)
        width = max(1, self.steps // 100)
        means = [float(sum(losses[i : i + width]) / width) for i in range(0, self.steps - width + 1, width)]
        return means, float(sum(shares[-width:]) / width)

    def _cost(self, net: Net, driver: Driver | None) -> float | None:
        """Give the milliseconds of a loss and its gradient; None where the driver does not take the cell."""
        if isinstance(driver, Associative) and not isinstance(net.cell, jaxrnn.AffineCell):
            return None
        call = jax.jit(jax.grad(lambda params, batch: net.loss(driver, params, batch, None)[0]))
        arguments = net.init(jax.random.key(0)), net.problem.draw(jax.random.key(1))
        seconds = []
        for _ in range(TIMED + 1):
            began = time.perf_counter()
            jax.block_until_ready(call(*arguments))
            seconds.append(time.perf_counter() - began)
        return 1e3 * sorted(seconds[1:])[TIMED // 2]

    def _draw(self, problem: Problem, curves: dict[str, list[float]], costs: dict[str, list[float | None]]) -> None:
        figure = Figure(figsize=(11, 4.2), layout="constrained", dpi=130)
        left, right = figure.subplots(1, 2)
        for name, losses in curves.items():
            left.plot([(i + 0.5) * self.steps / len(losses) for i in range(len(losses))], losses, label=name)
        left.axhline(problem.blind, color="#9aa5b1", ls=":", label="remembers nothing")
        left.set(yscale="log", xlabel="batch", ylabel="loss", title=f"{self.problem}, T = {self.time:,}")
        left.legend(frameon=False, fontsize=8)
        for at, driver in enumerate(DRIVERS):
            places = [i + 0.27 * (at - 1) for i in range(len(costs))]
            right.bar(places, [row[at] or 0 for row in costs.values()], 0.25, label=driver)
        right.set_xticks(range(len(costs)), list(costs), fontsize=8)
        right.set(ylabel="ms, loss and gradient", title=f"B = {self.batch}, H = {self.hidden}")
        right.legend(frameon=False, fontsize=8)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.out)


if __name__ == "__main__":
    tyro.cli(Main)()
