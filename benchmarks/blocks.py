"""Stacks of published blocks next to an LSTM: what each learns of a text in the same time, with as many params."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from jaxrnn import LSTM, RMSNorm, Stack, blocks
from jaxrnn.model import Embedding, SequenceModel, every
from jaxrnn.train import init, make_step

from . import record
from .measure import show
from .result import Result, Row
from .tables import grid
from .train_dtypes import DATA, TRAINING_SHARE

BLOCKS = {
    "griffin": blocks.griffin,
    "mamba": blocks.mamba,
    "mamba2": blocks.mamba2,
    "s5": blocks.s5,
    "slstm": blocks.slstm,
    "mlstm": blocks.mlstm,
    "gated_delta_net": blocks.gated_delta_net,
}
WARM_UP = 8  # steps that tell how many fit into the time
METHOD = (
    "Every model trains alone for the same seconds, without compilation, on random windows of the first nine tenths "
    "of the text; the number of steps follows from the first ones, and the learning rate falls to zero over them "
    "(Adam, a cosine after a rise). The LSTM has as many units as give it as many params as the first stack. The loss"
    " is in nats a character over the last tenth, in windows that start from a state of zeros; one seed. Nothing was "
    "tuned on it."
)


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Train stacks of four blocks and an LSTM on the characters of a text.

    Args:
        stacks: names of four blocks of `jaxrnn.blocks` each, separated by commas.
        features: of a block.
        seconds: of training, for each model.
        batch: B, windows of a step.
        window: T.
        rate: the maximum learning rate.
        text: a text file; by default Tiny Shakespeare in $JAXRNN_DATA or ../shared/data.
        json: the result file; by default in the folder of this hardware.
    """

    stacks: tuple[str, ...] = (
        "gated_delta_net,gated_delta_net,gated_delta_net,gated_delta_net",
        "mlstm,mamba2,griffin,s5",
    )
    features: int = 128
    seconds: float = 180.0
    batch: int = 16
    window: int = 256
    rate: float = 3e-3
    text: pathlib.Path = DATA / "tinyshakespeare" / "input.txt"
    json: pathlib.Path | None = None

    def __call__(self) -> None:
        """Train, show, write the file after each."""
        if not self.text.is_file():
            raise SystemExit(f"no file {self.text}: name a text with --text, or set JAXRNN_DATA")
        text = self.text.read_text(encoding="utf-8")
        known = sorted(set(text))
        ids = np.searchsorted(known, list(text)).astype(np.int32)
        rows: list[Row] = []
        for name, layers in self._layers(len(known)).items():
            model = SequenceModel(Embedding(len(known), self.features), layers, outputs=len(known), pooling=every)
            rows.append({"name": name, **self._train(model, ids)})
            path = record.write("blocks", rows, self.json, method=METHOD)
        show("one seed", [_line(row) for row in rows])
        print(f"wrote {path}")

    def _layers(self, vocabulary: int) -> dict[str, Any]:
        """Return the stacks by name, and an LSTM with as many params as the first."""
        stacks: dict[str, Any] = {}
        for names in self.stacks:
            if unknown := set(names.split(",")) - BLOCKS.keys():
                raise SystemExit(f"stacks are of {', '.join(BLOCKS)}; got {', '.join(sorted(unknown))}")
            stacks[names] = Stack((*(BLOCKS[name](self.features) for name in names.split(",")), RMSNorm()))
        wanted = size(next(iter(stacks.values())), self.features) + self.features * vocabulary
        count = lambda hidden: size(LSTM(hidden), self.features) + hidden * vocabulary
        hidden = next(h for h in range(8, 100_000, 8) if count(h) >= wanted)
        return stacks | {f"LSTM of {hidden} units": LSTM(hidden)}

    def _train(self, model: SequenceModel, ids: np.ndarray) -> Row:
        """Train for the given time; return the loss, steps, and params."""
        split = int(TRAINING_SHARE * len(ids))

        def loss(params: Any, batch: Any, key: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            logits = model(params, batch[:-1])
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1:]).mean(), {}

        start = lambda steps: self._start(model, steps)
        optimizer, state = start(1_000)
        step, batches = make_step(loss, optimizer), self._draw(ids[:split], np.random.default_rng(0))
        state = _run(step, state, batches, 2)  # compiles
        began = time.perf_counter()
        state = _run(step, state, batches, WARM_UP)
        steps = max(WARM_UP, int(self.seconds * WARM_UP / (time.perf_counter() - began)))
        optimizer, state = start(steps)
        step = make_step(loss, optimizer)
        jax.block_until_ready(step(start(steps)[1], next(batches)))
        began = time.perf_counter()
        state = _run(step, state, batches, steps)
        seconds = time.perf_counter() - began
        of_batch = jax.jit(lambda params, batch: loss(params, batch, None)[0])
        tests = list(self._cut(ids[split:]))
        found = float(np.mean([of_batch(state.params, batch) for batch in tests]))
        params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        return {"loss": found, "steps": steps, "seconds": seconds, "params": params}

    def _start(self, model: SequenceModel, steps: int) -> tuple[optax.GradientTransformation, Any]:
        rate = optax.warmup_cosine_decay_schedule(0.0, self.rate, min(100, steps // 10 + 1), steps)
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.98))
        return optimizer, init(model.init(jax.random.key(0)), optimizer, jax.random.key(1))

    def _draw(self, ids: np.ndarray, rng: np.random.Generator) -> Iterator[jax.Array]:
        """Yield random windows (T + 1, B)."""
        while True:
            starts = rng.integers(0, len(ids) - self.window, self.batch)
            yield jnp.asarray(ids[np.arange(self.window + 1)[:, None] + starts])

    def _cut(self, ids: np.ndarray) -> Iterator[jax.Array]:
        """Yield all windows (T + 1, B) of a text, one after the other."""
        starts = np.arange(0, len(ids) - self.window, self.window)
        for at in range(0, len(starts) // self.batch * self.batch, self.batch):
            yield jnp.asarray(ids[np.arange(self.window + 1)[:, None] + starts[at : at + self.batch]])


def _run(step: Any, state: Any, batches: Iterator[jax.Array], steps: int) -> Any:
    for _ in range(steps):
        state, _ = step(state, next(batches))
    return jax.block_until_ready(state)


def size(layers: Any, in_dim: int) -> int:
    """Return the number of params."""
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda: layers.init(jax.random.key(0), in_dim))))


def page(result: Result) -> str:
    """Return the Markdown of a result file."""
    table = pd.DataFrame([_line(row) for row in result.rows]).set_index("")
    return f"{result.head['method']}\n\n{grid(table)}"


def _line(row: Row) -> dict[str, str]:
    return {
        "": row["name"].replace(",", ", "),
        "loss": f"{row['loss']:.4f}",
        "params": f"{row['params']:,}",
        "steps": f"{row['steps']:,}",
        "seconds": f"{row['seconds']:.0f}",
    }
