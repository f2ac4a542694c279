"""Training in 16 bits next to float32: an intent model and a character model, their speed and what they learn."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from examples.intent import classifier, data
from examples.intent.text import Vocabulary
from examples.intent.train import Encoded, Loss, Recipe
from jaxrnn import LSTM
from jaxrnn.model import Embedding, SequenceModel, every
from jaxrnn.train import Carried, carried_cross_entropy, evaluation, init, make_step, streams, windows

from . import record, timing
from .measure import show
from .result import Result, Row, distinct, figure, median
from .tables import frame, grid, notes

DATA = pathlib.Path(os.environ.get("JAXRNN_DATA", record.ROOT.parent / "shared" / "data"))
FEATURES = 64  # of a character
TRAINING_SHARE = 0.9  # of a text; the rest is the test
TURN = 12  # steps of a turn
METHOD = (
    "Every dtype starts at the same params and trains on the same batches, in turn in one process, some steps a turn; "
    "steps of the first 30 ms of a turn are not timed, nor is compilation. The optimizer keeps params and moments in "
    "float32; embedding, readout and loss are in float32; the params of the recurrent layers are cast to the dtype, "
    "and so are their inputs, gates and state. Accuracy and loss are of the test split, after the last step, one seed "
    "a row. Ratios are samples a second over float32's, round by round."
)


@dataclasses.dataclass(frozen=True)
class Course:
    """What is learned.

    Args:
        name: as tables show it.
        params: where training starts, in float32.
        cast: (params, dtype) -> params, those of the recurrent layers in the dtype.
        loss: (params, carry, batch, key) -> (carry, loss, metrics), and the first carry.
        optimizer: of the params.
        batches: of all steps.
        test: returns the batches of the test split.
        samples: how many samples a batch has.
        unit: what a sample is.
    """

    name: str
    params: Any
    cast: Callable[[Any, str], Any]
    loss: Carried
    optimizer: optax.GradientTransformation
    batches: Sequence[Any]
    test: Callable[[], Iterable[Any]]
    samples: Callable[[Any], float]
    unit: str

    def loss_in(self, dtype: str) -> Carried:
        """Return the loss with the recurrent layers in a dtype; gradients are of params in float32."""
        cast, loss = self.cast, self.loss
        return Carried(
            lambda params, carry, batch, key: loss.loss(cast(params, dtype), carry, batch, key),
            lambda params: loss.initial(cast(params, dtype)),
        )


def in_dtype(params: Any, dtype: str) -> Any:
    """Cast every array."""
    return jax.tree.map(lambda a: a.astype(dtype), params)


def intent(epochs: int, seed: int) -> Course:
    """Return the intent classifier of `examples/intent` on its bundled corpus, without the adversary."""
    corpus, recipe = data.load(data.BUNDLED), Recipe(adversarial_norm=0)
    vocabulary = Vocabulary.of(example.text for example in corpus.train)
    model = classifier.build(classifier.Config(), len(vocabulary), len(corpus.labels))
    training, test = (Encoded.of(e, vocabulary, corpus.labels, recipe) for e in (corpus.train, corpus.test))
    batches = [b for epoch in range(epochs) for b in training.batches(np.random.default_rng((seed, epoch)))]
    loss = Loss(model, recipe)
    return Course(
        "intent, GRU in both directions",
        classifier.Params(model.init(jax.random.key(seed))),
        lambda params, dtype: params._replace(model=params.model._replace(layers=in_dtype(params.model.layers, dtype))),
        Carried(lambda params, carry, batch, key: (carry, *loss(params, batch, key)), lambda params: ()),
        recipe.optimizer(len(batches)),
        batches,
        test.batches,
        lambda batch: float(batch.weights.sum()),
        "texts",
    )


def characters(text: str, hidden: int, batch: int, window: int, steps: int, seed: int) -> Course:
    """Return a language model of characters: an LSTM, truncated backpropagation through `window` steps."""
    known = sorted(set(text))
    ids = np.searchsorted(known, list(text)).astype(np.int32)
    split = int(TRAINING_SHARE * len(ids))
    model = SequenceModel(Embedding(len(known), FEATURES), LSTM(hidden), outputs=len(known), pooling=every)

    def cut(part: np.ndarray) -> Any:
        rows = streams(part, batch)
        length = (len(rows) - 1) // window * window  # whole windows
        return windows((rows[:length], rows[1 : length + 1]), window)

    endless = itertools.chain.from_iterable(cut(ids[:split]) for _ in itertools.count())
    return Course(
        f"characters, LSTM of {hidden} units",
        model.init(jax.random.key(seed)),
        lambda params, dtype: params._replace(layers=in_dtype(params.layers, dtype)),
        carried_cross_entropy(model, batch),
        optax.adam(optax.cosine_decay_schedule(4e-3, steps)),
        list(itertools.islice(endless, steps)),
        lambda: cut(ids[split:]),
        lambda batch: float(batch.lengths.sum()),
        "characters",
    )


class Learner:
    """A course in one dtype, at the step that it has reached."""

    def __init__(self, course: Course, dtype: str, seed: int) -> None:
        loss = course.loss_in(dtype)
        self._course, self._loss = course, loss
        self._step = make_step(loss, course.optimizer)
        start = lambda: init(course.params, course.optimizer, jax.random.key(seed), loss.initial(course.params))
        self.state, unused = start(), start()
        shapes = {str(jax.tree.map(jnp.shape, batch)): batch for batch in course.batches}
        for batch in shapes.values():  # compiles
            unused, _ = self._step(unused, batch)
        jax.block_until_ready(unused)

    def turn(self, batches: Sequence[Any]) -> tuple[float, float]:
        """Train on the batches; return the samples and the seconds of those after the first moments."""
        left, began = iter(batches), time.perf_counter()
        for batch in left:
            self._train(batch)
            jax.block_until_ready(self.state)
            if time.perf_counter() - began >= timing.SETTLE:
                break
        counted, began = list(left), time.perf_counter()
        for batch in counted:
            self._train(batch)
        jax.block_until_ready(self.state)
        return sum(map(self._course.samples, counted)), time.perf_counter() - began

    def _train(self, batch: Any) -> None:
        self.state, _ = self._step(self.state, batch)

    def evaluate(self) -> dict[str, float]:
        """Return loss and accuracy of the test split."""
        found = evaluation(self._loss, self._course.test)(self.state.params)
        return {"loss": found["loss"], "accuracy": found["accuracy"], "skipped": int(self.state.skipped)}


def measure(course: Course, dtypes: Sequence[str], seed: int) -> list[Row]:
    """Train in every dtype; return a row for each. The first is the one that the others are compared with."""
    learners = {dtype: Learner(course, dtype, seed) for dtype in dtypes}
    rates: dict[str, list[float]] = {dtype: [] for dtype in dtypes}
    for at in range(0, len(course.batches), TURN):
        found = {dtype: learner.turn(course.batches[at : at + TURN]) for dtype, learner in learners.items()}
        if all(samples for samples, _ in found.values()):
            for dtype, (samples, seconds) in found.items():
                rates[dtype].append(samples / seconds)
    if not rates[dtypes[0]]:
        raise ValueError(f"{course.name}: no turn of {TURN} steps lasts {timing.SETTLE} s: take more units or rows")
    return [
        {
            **{"task": course.name, "name": dtype, "seed": seed, "unit": course.unit, "steps": len(course.batches)},
            "samples_per_second": timing.spread(rates[dtype]),
            "ratio": timing.ratio(rates[dtype], rates[dtypes[0]]),
            **learner.evaluate(),
        }
        for dtype, learner in learners.items()
    ]


@dataclasses.dataclass(frozen=True)
class TrainDtypes:
    """Train an intent model and a character model in each dtype: samples a second, and what they have learned.

    Args:
        dtypes: of the recurrent layers; ratios are over the first.
        epochs: of the intent model on the bundled corpus; 0 leaves it out.
        steps: of the character model; 0 leaves it out.
        text: a text file for the character model; by default Tiny Shakespeare in $JAXRNN_DATA or ../shared/data.
        hidden: H of the character model.
        batch: B of the character model.
        window: the steps of time that its gradient goes through.
        seeds: of params, batches and noise.
        json: the result file; by default in the folder of this hardware.
    """

    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    epochs: int = 16
    steps: int = 400
    text: pathlib.Path = DATA / "tinyshakespeare" / "input.txt"
    hidden: int = 256
    batch: int = 32
    window: int = 128
    seeds: tuple[int, ...] = (0,)
    json: pathlib.Path | None = None

    def __call__(self) -> None:
        """Train, show, write the file after each."""
        rows: list[Row] = []
        for seed in self.seeds:
            for make in (self._intent, self._characters):
                found = make(seed)
                rows += found
                lines = [_line(row) for row in found if "absent" not in row]
                show(f"{found[0]['task']}, seed {seed}", lines) if lines else print(*found)
                path = record.write("train_dtypes", rows, self.json, method=METHOD)
        print(f"wrote {path}")

    def _intent(self, seed: int) -> list[Row]:
        if not self.epochs:
            return [{"task": "intent", "name": "intent", "absent": "left out: --epochs 0"}]
        return measure(intent(self.epochs, seed), self.dtypes, seed)

    def _characters(self, seed: int) -> list[Row]:
        absent = "left out: --steps 0" if not self.steps else f"no file {self.text}: name a text with --text"
        if not self.steps or not self.text.is_file():
            return [{"task": "characters", "name": "characters", "absent": absent}]
        text = self.text.read_text(encoding="utf-8")
        return measure(characters(text, self.hidden, self.batch, self.window, self.steps, seed), self.dtypes, seed)


def _line(row: Row) -> dict[str, str]:
    rate, ratio = row["samples_per_second"], row["ratio"]
    return {
        "": row["name"],
        f"{row['unit']}/s": f"{rate['median']:,.0f} ({rate['low']:,.0f} to {rate['high']:,.0f})",
        "over the first": f"{ratio['median']:.2f}",
        "test accuracy": f"{100 * row['accuracy']:.2f} %",
        "test loss": f"{row['loss']:.4f}",
    }


def page(result: Result) -> str:
    """Return the Markdown of a result file: a table for each task."""
    parts = [result.head["method"]]
    for task, unit in distinct((row["task"], row["unit"]) for row in result.timed):
        rows = [row for row in result.timed if row["task"] == task]
        lines = {
            f"{row['name']}, seed {row['seed']}": [
                figure(median(row["samples_per_second"])),
                figure(median(row["ratio"])),
                f"{100 * row['accuracy']:.2f}",
                f"{row['loss']:.4f}",
            ]
            for row in rows
        }
        heads = [f"{unit}/s", "over the first", "test accuracy, %", "test loss"]
        table = pd.DataFrame.from_dict(lines, orient="index", columns=heads)
        parts.append(f"**{task}**, {rows[0]['steps']} steps\n\n{grid(table)}")
    return "\n\n".join(parts) + notes(frame(result.rows))
