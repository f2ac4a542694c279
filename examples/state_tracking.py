"""State tracking, and the cells that provably cannot: `python -m examples.state_tracking --help`.

Two problems of Merrill, Petty and Sabharwal, "The illusion of state in state-space models" (2024), and Grazzi et al.,
"Unlocking state-tracking in linear RNNs through negative eigenvalues" (2025). In "parity" the target of every step is
the parity of the bits so far. In "swaps" every step swaps two of three items, or none, and the target is their order,
one of six. A cell whose state changes by factors between 0 and 1 cannot solve them at every length; one with a
nonlinear recurrence can, and so can a delta rule with eigenvalues down to -1, which swaps by a reflection.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrnn import LSTM, MLSTM, SLSTM, Cell, DeltaNet, Linear, Mamba2, MinGRU, RMSNorm, Stack, unroll
from jaxrnn.extend import extra
from jaxrnn.train import init, make_step

with extra("examples"):
    import tyro
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.table import Table
    from tyro.conf import arg

PROGRAM = f"python -m {__package__}.state_tracking"
HEADS = 2
CELLS: dict[str, Cell] = {
    "sLSTM": SLSTM(32),
    "LSTM": LSTM(32),
    "DeltaNet, eigenvalues from -1": DeltaNet(HEADS, 8, max_beta=2.0),
    "DeltaNet, eigenvalues from 0": DeltaNet(HEADS, 8),
    "Mamba-2": Mamba2(HEADS, 8),
    "mLSTM": MLSTM(HEADS, 8),
    "minGRU": MinGRU(32),
}
SCALE = 4.0  # of the inputs: gates that must open and close fully learn it sooner
console = Console(highlight=False, soft_wrap=True)


def parity() -> np.ndarray:
    """Return the state after each state and symbol: the parity of bits."""
    return np.array([[0, 1], [1, 0]])


def swaps() -> np.ndarray:
    """Return the state after each state and symbol: the order of three items, of which a symbol swaps two or none."""
    orders = [*itertools.permutations(range(3))]
    symbols = [(0, 1, 2), (1, 0, 2), (0, 2, 1), (2, 1, 0)]
    return np.array([[orders.index(tuple(order[k] for k in symbol)) for symbol in symbols] for order in orders])


PROBLEMS = {"parity": parity(), "swaps": swaps()}


def draw(key: jax.Array, table: jax.Array, steps: int, batch: int) -> tuple[jax.Array, jax.Array]:
    """Draw one-hot symbols (T + 1, B, K + 1), the first of which starts a sequence, and the states (T + 1, B)."""
    symbols = jax.random.randint(key, (steps, batch), 0, table.shape[1])
    follow = lambda state, symbol: (table[state, symbol],) * 2
    first = jnp.zeros(batch, table.dtype)
    _, states = jax.lax.scan(follow, first, symbols)
    xs = jax.nn.one_hot(jnp.concatenate([jnp.full((1, batch), table.shape[1]), symbols]), table.shape[1] + 1)
    return SCALE * xs, jnp.concatenate([first[None], states])


@dataclasses.dataclass(frozen=True)
class Main:
    """Train each cell on short sequences, test it on longer ones, and write a plot and a JSON file."""

    length: Annotated[int, arg(help="the steps of a sequence in training")] = 40
    lengths: Annotated[tuple[int, ...], arg(help="the steps of a sequence in tests")] = (40, 64, 128, 256, 512)
    batch: Annotated[int, arg(help="the sequences of a batch")] = 64
    steps: Annotated[int, arg(help="number of batches to train on, the first quarter of them shorter")] = 1600
    rate: Annotated[float, arg(help="the maximum learning rate")] = 1e-2
    seed: int = 0
    cells: Annotated[tuple[str, ...], arg(help=f"of {'; '.join(CELLS)}")] = tuple(CELLS)
    out: Annotated[Path, arg(help="the plot; results go to a .json next to it")] = Path("runs/state-tracking.png")

    def __call__(self) -> None:
        """Run the command."""
        if unknown := set(self.cells) - CELLS.keys():
            raise SystemExit(f"--cells takes names of {'; '.join(CELLS)}; got {', '.join(sorted(unknown))}")
        results: dict[str, dict[str, Any]] = {}
        for problem in PROBLEMS:
            table = Table(f"{problem}, accuracy", *(f"T = {n}" for n in self.lengths), "s", box=None)
            for name in self.cells:
                row = results.setdefault(problem, {})[name] = self._train(CELLS[name], jnp.asarray(PROBLEMS[problem]))
                console.print(f"{problem}, {name}: {row['accuracy'][-1]:.1%} at T = {self.lengths[-1]}")
                table.add_row(name, *(f"{a:.1%}" for a in row["accuracy"]), f"{row['seconds']:.0f}")
            console.print(table)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        about = dataclasses.asdict(self) | {"out": self.out.name, "results": results}
        self.out.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")
        self._draw(results)
        console.print(f"plot     {self.out}", markup=False)

    def _train(self, cell: Cell, table: jax.Array) -> dict[str, Any]:
        """Train a cell; return the accuracy over all steps at each length, and the seconds of training."""
        classes, symbols = table.shape
        net = Stack((Linear(32), cell, RMSNorm(groups=HEADS, epsilon=1e-12), Linear(classes)))

        def loss(params: Any, batch: Any, key: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            xs, states = batch
            logits = unroll(net, params, xs)[1]
            return optax.softmax_cross_entropy_with_integer_labels(logits, states).mean(), {}

        rate = optax.cosine_onecycle_schedule(self.steps, self.rate)
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
        k_params, k_data, k_test = jax.random.split(jax.random.key(self.seed), 3)
        state, step = init(net.init(k_params, symbols + 1), optimizer, k_data), make_step(loss, optimizer)
        batches = jax.jit(draw, static_argnums=(2, 3))
        start = time.perf_counter()
        for i in range(self.steps):
            length = max(1, self.length // 4) if i < self.steps // 4 else self.length
            state, _ = step(state, batches(jax.random.fold_in(k_data, i), table, length, self.batch))
        seconds = time.perf_counter() - start
        right = jax.jit(lambda params, xs, states: (unroll(net, params, xs)[1].argmax(-1) == states)[1:].mean())
        tests = [draw(k_test, table, length, 256) for length in self.lengths]
        return {"accuracy": [float(right(state.params, *test)) for test in tests], "seconds": seconds}

    def _draw(self, results: dict[str, dict[str, Any]]) -> None:
        figure = Figure(figsize=(11, 4.2), layout="constrained", dpi=130)
        axes = figure.subplots(1, len(results), sharey=True)
        for axis, (problem, rows) in zip(axes, results.items(), strict=True):
            for (name, row), marker in zip(rows.items(), "osD^vx+", strict=False):
                axis.plot(self.lengths, row["accuracy"], marker=marker, label=name)
            axis.axhline(1 / len(PROBLEMS[problem]), color="#9aa5b1", ls=":", label="chance")
            axis.axvline(self.length, color="#9aa5b1", lw=0.8)
            axis.set(xscale="log", xlabel="T", title=f"{problem}, trained at T = {self.length}", ylim=(0, 1.03))
            axis.set_xticks(self.lengths, [str(n) for n in self.lengths], minor=False)
            axis.minorticks_off()
        axes[0].set_ylabel("accuracy")
        axes[-1].legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(1, 0))
        figure.savefig(self.out)


if __name__ == "__main__":
    tyro.cli(Main, prog=PROGRAM)()
