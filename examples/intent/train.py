"""Training: the loss with its noise, the optimizer, and how long."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrnn.model import SequenceModel
from jaxrnn.train import Batch, Fit, LengthGroups, epoch_batches, evaluation, fit, length_groups

from .bundle import rounded
from .calibration import Calibration
from .classifier import Classifier, Config, build
from .data import Corpus
from .formats import Example
from .text import Vocabulary


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the classifier is trained; one recipe for every corpus.

    Args:
        steps: how many batches to see, about.
        least_epochs: but no fewer epochs, however large the corpus.
        most_epochs: and no more, however small.
        batch_size: B.
        groups: how many lengths to pad to, each of which is compiled for.
        learning_rate: the highest of one cycle.
        weight_decay: of AdamW.
        smoothing: of the labels.
        rejects: the share of validation texts that the threshold for none may turn away.
        word_dropout: how often a token is known by its n-grams alone, as an unknown word is.
    """

    steps: int = 1400
    least_epochs: int = 12
    most_epochs: int = 16
    batch_size: int = 128
    groups: int = 3
    learning_rate: float = 6e-3
    weight_decay: float = 1e-2
    smoothing: float = 0.1
    rejects: float = 0.05
    word_dropout: float = 0.2

    def epochs(self, examples: int) -> int:
        """Give how often to go through the examples."""
        return max(self.least_epochs, min(self.most_epochs, round(self.steps * self.batch_size / examples)))

    def optimizer(self, steps: int) -> optax.GradientTransformation:
        """Give AdamW with one cycle of the learning rate; arrays of one axis do not decay."""
        rate = optax.cosine_onecycle_schedule(steps, self.learning_rate, pct_start=0.15, div_factor=10)
        return optax.adamw(rate, weight_decay=self.weight_decay, mask=_matrices)


def _matrices(params: Any) -> Any:
    return jax.tree.map(lambda array: array.ndim > 1, params)


@dataclasses.dataclass(frozen=True)
class Loss:
    """The cross-entropy with smoothed labels; with a key some words are hidden, and there is dropout."""

    model: SequenceModel
    recipe: Recipe

    def __call__(self, params: Any, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Give the mean over the rows that count, and the metrics."""
        ids = jnp.asarray(batch.ids)
        if key is not None:
            key, words = jax.random.split(key)
            heard = jax.random.bernoulli(words, 1 - self.recipe.word_dropout, ids.shape[:-1])
            ids = ids.at[..., 0].multiply(heard)  # id 0 is nothing: the n-grams stay
        logits = self.model(params, ids, batch.lengths, key=key)
        targets = optax.smooth_labels(jax.nn.one_hot(batch.labels, logits.shape[-1]), self.recipe.smoothing)
        weight = batch.weights.sum()
        losses = optax.softmax_cross_entropy(logits, targets)
        right = (logits.argmax(axis=-1) == batch.labels) * batch.weights
        return (losses * batch.weights).sum() / weight, {"accuracy": right.sum() / weight, "weight": weight}


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Examples as numbers, to be had in batches."""

    sequences: Sequence[np.ndarray]
    answers: np.ndarray
    groups: LengthGroups
    batch_size: int

    @classmethod
    def of(cls, examples: list[Example], vocabulary: Vocabulary, labels: tuple[str, ...], recipe: Recipe) -> Encoded:
        """Encode texts and labels; choose what to pad to."""
        sequences = [vocabulary.ids(example.text) for example in examples]
        number = {label: i for i, label in enumerate(labels)}
        answers = np.array([number[example.label] for example in examples], np.int32)
        groups = length_groups([len(ids) for ids in sequences], recipe.groups)
        return cls(sequences, answers, groups, recipe.batch_size)

    def batches(self, rng: np.random.Generator | None = None) -> Iterator[Batch]:
        """Go once through them, shuffled by `rng`."""
        return epoch_batches(self.sequences, self.answers, groups=self.groups, batch_size=self.batch_size, rng=rng)


def train(
    corpus: Corpus, config: Config, recipe: Recipe, *, seed: int, progress: bool | None = None
) -> tuple[Classifier, Fit]:
    """Train on train; keep the params of the epoch that is best on valid, and calibrate on valid."""
    vocabulary = Vocabulary.of(example.text for example in corpus.train)
    labels = corpus.labels
    model = build(config, len(vocabulary), len(labels))
    training = Encoded.of(corpus.train, vocabulary, labels, recipe)
    holdout = Encoded.of(corpus.valid, vocabulary, labels, recipe)
    loss, epochs = Loss(model, recipe), recipe.epochs(len(corpus.train))
    key, k_init = jax.random.split(jax.random.key(seed))
    fitted = fit(
        loss,
        model.init(k_init),
        lambda epoch: training.batches(np.random.default_rng((seed, epoch))),
        optimizer=recipe.optimizer(epochs * sum(1 for _ in training.batches())),
        epochs=epochs,
        key=key,
        evaluate=evaluation(loss, holdout.batches),
        monitor="accuracy",
        mode="max",
        progress=progress,
    )
    classifier = Classifier(config, vocabulary, labels, rounded(fitted.params))
    logits = classifier.logits([example.text for example in corpus.valid])
    calibration = Calibration.fit(logits, holdout.answers, recipe.rejects)
    return dataclasses.replace(classifier, calibration=calibration), fitted
