"""Control that needs memory: `python -m examples.memory_control --help`.

The T-maze of Bakker, "Reinforcement learning with long short-term memory" (2002): a sign at the start of a corridor
tells which way to turn at its end. All steps between look alike, so a policy without memory is right half of the time.
`examples.maze` is the environment, `examples.ppo` the recurrent PPO that the policies learn by.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import jax

from jaxrnn import GRU, LSTM, Linear, Stack
from jaxrnn.extend import extra

from . import bundle
from .maze import ACTIONS
from .ppo import PARTS, Learner, Policy

with extra("examples"):
    import tyro
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter
    from rich.console import Console
    from rich.progress import track
    from tyro.conf import arg

PROGRAM = f"python -m {__package__}.memory_control"
HIDDEN = 64
MEMORIES = {"GRU": GRU(HIDDEN), "LSTM": LSTM(HIDDEN), "no memory": Linear(HIDDEN, activation="tanh")}
INTERVAL = 5  # the windows for a point of the curve
console = Console(highlight=False, soft_wrap=True)


def policy(name: str) -> Policy:
    """Return a policy with one of the memories."""
    return Policy(Stack((Linear(HIDDEN, activation="tanh"), MEMORIES[name], Linear(ACTIONS + 1))))


@dataclasses.dataclass(frozen=True)
class Main:
    """Train a policy with each memory, and write a plot and a bundle of each."""

    length: Annotated[int, arg(help="the steps of the corridor, which the sign must be remembered for")] = 40
    mazes: Annotated[int, arg(help=f"the mazes that are played side by side, a multiple of {PARTS}")] = 64
    steps: Annotated[int, arg(help="the steps of a window")] = 64
    windows: Annotated[int, arg(help=f"the number of windows to train on, at least {INTERVAL}")] = 120
    rate: Annotated[float, arg(help="the first learning rate")] = 2e-3
    seed: int = 0
    memories: Annotated[tuple[str, ...], arg(help=f"of {'; '.join(MEMORIES)}")] = tuple(MEMORIES)
    compare: Annotated[bool, arg(help="also measure the steps per second, next to flax.linen, in turn")] = False
    out: Annotated[Path, arg(help="the folder for the plot, the results and the bundles")] = Path("runs/memory-control")

    def __call__(self) -> None:
        """Run the command."""
        if unknown := set(self.memories) - MEMORIES.keys():
            raise SystemExit(f"--memories takes names of {'; '.join(MEMORIES)}; got {', '.join(sorted(unknown))}")
        if self.mazes % PARTS or min(self.mazes, self.steps, self.length) < 1 or self.windows < INTERVAL:
            raise SystemExit(f"--mazes is a multiple of {PARTS}, --windows at least {INTERVAL}, the others at least 1")
        bundle.prepare(self.out)
        results: dict[str, Any] = {}
        for name in self.memories:
            learner, began = self._learner(policy(name)), time.perf_counter()
            for _ in track(range(self.windows), name, console=console, transient=True, disable=not console.is_terminal):
                learner.learn()
            shares = learner.shares(INTERVAL)
            results[name] = {"right": shares, "seconds": time.perf_counter() - began}
            about = {"program": PROGRAM, "memory": name, "length": self.length, "right": shares[-1]}
            bundle.save(self.out / name.replace(" ", "-"), learner.train.params, about)
            console.print(f"{name}: {shares[-1]:.1%} of the episodes end right, {results[name]['seconds']:.0f} s")
        if self.compare:
            results["steps per second"] = self._compare()
        (self.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        self._draw(results)
        console.print(f"plot     {self.out / 'right.png'}", markup=False)

    def _learner(self, policy: Policy) -> Learner:
        sizes = {"mazes": self.mazes, "steps": self.steps, "length": self.length, "windows": self.windows}
        return Learner(policy, **sizes, rate=self.rate, seed=self.seed)

    def _compare(self) -> dict[str, float]:
        """Return the steps in mazes per second, training included, of the GRU here and in flax, timed in turn."""
        from .flax_gru import FlaxGRU, Net, flax_scan

        others = {"jaxrnn": policy("GRU"), "flax.linen": Policy(FlaxGRU(Net(HIDDEN, ACTIONS + 1)), flax_scan)}
        learners = {name: self._learner(other) for name, other in others.items()}
        seconds: dict[str, list[float]] = {name: [] for name in learners}
        for _ in range(11):  # the first one compiles
            for name, learner in learners.items():
                began = time.perf_counter()
                learner.learn()
                jax.block_until_ready(learner.train.params)
                seconds[name].append(time.perf_counter() - began)
        rates = {name: self.mazes * self.steps / statistics.median(times[1:]) for name, times in seconds.items()}
        console.print("; ".join(f"{name}: {rate:,.0f} steps per second" for name, rate in rates.items()))
        return rates

    def _draw(self, results: dict[str, Any]) -> None:
        figure = Figure(figsize=(7, 4), layout="constrained", dpi=130)
        axis = figure.subplots()
        for name in self.memories:
            shares, each = results[name]["right"], INTERVAL * self.steps * self.mazes
            axis.plot([each * (i + 1) for i in range(len(shares))], shares, marker=".", label=name)
        axis.axhline(0.5, color="#9aa5b1", ls=":", label="chance")
        title = f"T-maze, a sign {self.length} steps before the turn"
        axis.set(xlabel="steps in mazes", ylabel="episodes that end right", title=title, ylim=(0, 1.03))
        axis.xaxis.set_major_formatter(EngFormatter())
        axis.legend(frameon=False)
        figure.savefig(self.out / "right.png")


def main() -> None:
    """Run the command; report a folder that cannot be written in one line."""
    try:
        tyro.cli(Main, prog=PROGRAM)()
    except bundle.BundleError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
