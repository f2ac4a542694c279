"""What is learned: the model, where training starts, its batches, and the utterances to be answered."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from examples.intent import data
from examples.intent.classifier import Config, build
from examples.intent.text import Vocabulary
from examples.intent.train import Encoded, Recipe
from jaxrnn import Scan
from jaxrnn.model import ModelParams, SequenceModel
from jaxrnn.train import Batch, LengthGroups, epoch_batches

SEED = 0

Answer = Callable[[np.ndarray], np.ndarray]
"""From the ids (t, N) of one utterance to the probabilities (K,) of the intents."""


class Learner(Protocol):
    """A model and its optimizer in one library, at the task's params until the first `step`."""

    def logits(self, batch: Batch) -> np.ndarray:
        """Return (B, K), without noise."""
        ...

    def step(self, batch: Batch) -> Any:
        """Train on a batch, and return the loss, possibly before it is computed."""
        ...

    def wait(self) -> None:
        """Return when every step is done."""
        ...


@dataclasses.dataclass(frozen=True)
class Task:
    """Everything that the implementations share.

    Attributes:
        config: sizes and noise.
        recipe: how the example trains.
        model: the example's.
        params: where training starts, numpy float32; b_hn is zero, since `flax.nnx.GRUCell` has none.
        batches: of one shuffled epoch, the first of them.
        utterances: ids (t, N) of the test's texts, the first of them.
    """

    config: Config
    recipe: Recipe
    model: SequenceModel
    params: ModelParams
    batches: tuple[Batch, ...]
    utterances: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, path: pathlib.Path, config: Config, recipe: Recipe, batches: int, utterances: int) -> Task:
        """Read a corpus; take so many batches and utterances of it at most."""
        corpus = data.load(path)
        vocabulary = Vocabulary.of(example.text for example in corpus.train)
        training = Encoded.of(corpus.train, vocabulary, corpus.labels, recipe)
        model = build(config, len(vocabulary), len(corpus.labels))
        epoch = training.batches(np.random.default_rng(SEED))
        ids = (vocabulary.ids(example.text) for example in corpus.test)
        return cls(
            config,
            recipe,
            model,
            first_params(model),
            tuple(itertools.islice(epoch, batches)),
            tuple(itertools.islice((i for i in ids if len(i)), utterances)),
        )

    @property
    def vocabulary(self) -> int:
        """V."""
        return self.params.embed.shape[0]

    @property
    def layer(self) -> Any:
        """The GRU in both directions."""
        return self.model.layers.layers[0].cell.layers[1]

    @property
    def layer_params(self) -> Any:
        """Its params."""
        return self.params.layers[0][1]

    @property
    def samples(self) -> int:
        """How many rows of the batches count."""
        return int(sum(batch.weights.sum() for batch in self.batches))

    @property
    def ragged(self) -> Batch:
        """The batch whose lengths differ most."""
        return max(self.batches, key=lambda batch: np.ptp(batch.lengths[batch.weights > 0]))

    @property
    def side_by_side(self) -> Batch:
        """All utterances as one batch."""
        longest = LengthGroups((max(map(len, self.utterances)),))
        return next(epoch_batches(self.utterances, groups=longest, batch_size=len(self.utterances)))

    def reference(self, batch: Batch) -> np.ndarray:
        """Return the logits (B, K) in float64, by `Scan()`."""
        with jax.enable_x64(True):
            params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), self.params)
            run = jax.jit(lambda params, ids, lengths: self.model(params, ids, lengths, driver=Scan()))
            return np.asarray(run(params, batch.ids, batch.lengths))


def first_params(model: SequenceModel) -> ModelParams:
    """Draw params, and set b_hn to zero."""
    params = jax.tree.map(np.asarray, model.init(jax.random.key(SEED)))
    (below, both), above = params.layers
    both = type(both)(*(p._replace(local=np.zeros_like(p.local)) for p in both))
    return params._replace(layers=((below, both), above))
