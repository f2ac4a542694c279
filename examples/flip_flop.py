"""Three bits in a recurrent network, and where it keeps them: `python -m examples.flip_flop --help`.

The problem of Sussillo and Barak, "Opening the black box" (2013): each of three channels gets a pulse of +1 or -1 now
and then, and its output is the sign of the last one. A trained network holds eight memories as stable fixed points,
near the corners of a cube, with saddles between them that decide which pulse leads where.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrnn import GRU, Cell, Elman, unroll
from jaxrnn.dynamics import Found, fixed_points, principal_components, trajectory
from jaxrnn.extend import extra
from jaxrnn.train import TrainState, init, make_step

with extra("examples"):
    import tyro
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from tyro.conf import arg

    from jaxrnn.dynamics import plots

PROGRAM = f"python -m {__package__}.flip_flop"
BITS = 3
PULSES = 0.05  # the probability that a channel has a pulse at a step
CELLS = {"gru": GRU, "elman": Elman}
console = Console(highlight=False, soft_wrap=True)


def draw(key: jax.Array, length: int, batch: int) -> tuple[jax.Array, jax.Array]:
    """Return pulses (T, B, 3) of -1, 0 and 1, all channels at the first step, and the sign of the last pulse."""
    k_when, k_sign = jax.random.split(key)
    shape = (length, batch, BITS)
    when = jax.random.bernoulli(k_when, PULSES, shape).at[0].set(True)
    pulses = jnp.where(when, jax.random.rademacher(k_sign, shape, float), 0.0)
    last = lambda earlier, later: jnp.where(later == 0, earlier, later)
    return pulses, jax.lax.associative_scan(last, pulses)


@dataclasses.dataclass(frozen=True)
class Main:
    """Train the three-bit flip-flop, find the fixed points of the network, and draw them.

    Args:
        cell: "gru" or "elman".
        hidden: H, the number of units.
        steps: of training.
        batch: B, the sequences of a batch.
        length: T.
        rate: the maximum learning rate.
        candidates: states from which fixed points are searched.
        seeds: a network is trained for each.
        out: the picture of the first network.
        json: the file of the numbers; none by default.
    """

    cell: str = "gru"
    hidden: int = 24
    steps: int = 1500
    batch: int = 64
    length: int = 100
    rate: float = 0.01
    candidates: int = 512
    seeds: Annotated[tuple[int, ...], arg(metavar="INT ...")] = (0,)
    out: Path = Path("flip-flop.png")
    json: Path | None = None

    def __call__(self) -> None:
        """Train, search, draw, and print a table."""
        if self.cell not in CELLS or not self.seeds:
            raise SystemExit(f"--cell is one of {', '.join(CELLS)}, with one seed or more; got {self.cell!r}")
        table = Table("seed", "accuracy", "stable", "saddles", "bits of the stable points", "seconds")
        rows = []
        for seed in self.seeds:
            row, net, params, found = self.run(seed)
            rows.append(row)
            cells = [row[name] for name in ("seed", "accuracy", "stable", "saddles", "memories", "seconds")]
            table.add_row(*(f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells))
            if seed == self.seeds[0]:
                self.picture(net, params["rnn"], found)
        console.print(table)
        if self.json:
            self.json.write_text(json.dumps(rows, indent=1))
        console.print(f"wrote {self.out}")

    def run(self, seed: int) -> tuple[dict[str, Any], Cell, Any, Found]:
        """Train a network, and return a row of numbers, the cell, its params, and the fixed points."""
        cell, key, start = CELLS[self.cell](self.hidden), jax.random.key(seed), time.perf_counter()
        state = self.train(cell, key)
        xs, targets = draw(jax.random.fold_in(key, self.steps), self.length, 256)
        outputs = unroll(cell, state.params["rnn"], xs)[1] @ state.params["readout"]
        starts = self.starts(cell, state.params["rnn"], jax.random.fold_in(key, self.steps + 1))
        found = fixed_points(cell, state.params["rnn"], jnp.zeros(BITS), starts)
        stable = found.fixed.spectrum.stable
        bits = np.sign(found.fixed.points[stable] @ np.asarray(state.params["readout"]))
        row = {
            "seed": seed,
            "accuracy": float((jnp.sign(outputs) == targets).mean()),
            "stable": int(stable.sum()),
            "saddles": int((~stable).sum()),
            "memories": len(np.unique(bits, axis=0)),
            "seconds": round(time.perf_counter() - start, 1),
        }
        return row, cell, state.params, found

    def train(self, cell: Cell, key: jax.Array) -> TrainState:
        """Return the trained params of the cell, and of a readout."""

        def loss(params: Any, batch: Any, key: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            xs, targets = batch
            return ((unroll(cell, params["rnn"], xs)[1] @ params["readout"] - targets) ** 2).mean(), {}

        optimizer = optax.chain(
            optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_onecycle_schedule(self.steps, self.rate))
        )
        k_cell, k_readout, k_data = jax.random.split(key, 3)
        readout = jax.random.normal(k_readout, (self.hidden, BITS)) / self.hidden**0.5
        params = {"rnn": cell.init(k_cell, BITS), "readout": readout}
        state, step = init(params, optimizer, k_data), make_step(loss, optimizer)
        batches = jax.jit(draw, static_argnums=(1, 2))
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            for i in progress.track(range(self.steps), description="training"):
                state, _ = step(state, batches(jax.random.fold_in(k_data, i), self.length, self.batch))
        return state

    def starts(self, cell: Cell, params: Any, key: jax.Array) -> jax.Array:
        """Return the states to search from: points between two visited states, since saddles lie there."""
        visited = trajectory(cell, params, draw(key, self.length, 256)[0]).reshape(-1, self.hidden)
        ends = jax.random.choice(key, len(visited), (2, self.candidates))
        between = jax.random.uniform(key, (self.candidates, 1))
        return between * visited[ends[0]] + (1 - between) * visited[ends[1]]

    def picture(self, cell: Cell, params: Any, found: Found) -> None:
        """Draw the fixed points among trajectories in three components, and the eigenvalues of one of each kind."""
        xs, _ = draw(jax.random.key(1), self.length, 24)
        states = trajectory(cell, params, xs)
        stable = found.fixed.points[found.fixed.spectrum.stable]
        space = principal_components(jnp.asarray(stable) if len(stable) > BITS else states, BITS)
        figure = Figure(figsize=(11.5, 5.2), dpi=140)
        cube = figure.add_axes((0.0, 0.04, 0.52, 0.86), projection="3d")
        plots.fixed_points(found, space, states, cube)
        cube.set(title=f"{len(stable)} stable points, and the saddles between them")
        cube.view_init(elev=20, azim=-65)
        circle = plots.eigenvalues(found.fixed.spectrum, figure.add_axes((0.62, 0.13, 0.36, 0.75)))
        circle.set(title="eigenvalues of all fixed points")
        figure.savefig(self.out)


if __name__ == "__main__":
    tyro.cli(Main, prog=PROGRAM)()
