"""Training: the loss with its noise, the optimizer, and how long."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxrnn
from jaxrnn import Driver
from jaxrnn.model import SequenceModel, readout
from jaxrnn.train import Batch, Fit, LengthGroups, epoch_batches, evaluation, fit, length_groups, shard_batch

from .bundle import rounded
from .calibration import Calibration
from .classifier import Classifier, Config, Params, build, init
from .data import Corpus
from .errors import UserError, at_least, rate
from .formats import Example
from .slots import Tagger
from .text import Vocabulary

TINY = 1e-12  # the least norm to divide by


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the classifier is trained; one recipe for every corpus.

    Args:
        steps: about how many batches to train on in all, from which the number of epochs follows.
        least_epochs: the fewest epochs, however large the corpus.
        most_epochs: the most epochs, however small the corpus.
        batch_size: B, the texts of a batch.
        groups: how many lengths texts are padded to; each is compiled once.
        learning_rate: the highest of one cycle: it rises to that, and falls.
        weight_decay: the weight decay of AdamW.
        smoothing: the label smoothing of the loss.
        rejects: the share of validation texts that the threshold for none may turn away; fewer are, where the
            network is sure of them.
        word_dropout: the share of words hidden in training; their character n-grams stay, as of an unknown word.
        adversary: how far adversarial training moves the vectors of a text's tokens to where the loss is greater;
            0 turns it off, and takes two thirds of the time.
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
    adversary: float = 1.0

    def __post_init__(self) -> None:
        """Raise UserError for what nothing can be trained with."""
        at_least(1, steps=self.steps, batch_size=self.batch_size, groups=self.groups, least_epochs=self.least_epochs)
        at_least(0, weight_decay=self.weight_decay, adversary=self.adversary)
        at_least(1e-12, learning_rate=self.learning_rate)
        rate(smoothing=self.smoothing, rejects=self.rejects, word_dropout=self.word_dropout)
        if self.most_epochs < self.least_epochs:
            raise UserError(
                f"--most-epochs {self.most_epochs} is less than --least-epochs {self.least_epochs}: set both"
            )

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
    """The cross-entropy with smoothed labels, and that of the slots; with a key there is noise.

    Labels are integers (B,), or (T, B, 2), intent and tag, with a tagger. The noise hides some words, drops features,
    and moves the tokens' vectors to where the loss is greater (Miyato, Dai and Goodfellow, 2017).
    """

    model: SequenceModel
    recipe: Recipe
    tagger: Tagger | None = None
    driver: Driver | None = None

    def __call__(self, params: Params, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Give the mean over the rows that count, and the metrics."""
        ids = jnp.asarray(batch.ids)
        if key is None:
            return self._of(params, self.model.embed(params.model.embed, ids), batch, None)
        key, words = jax.random.split(key)
        heard = jax.random.bernoulli(words, 1 - self.recipe.word_dropout, ids.shape[:-1])
        ids = ids.at[..., 0].multiply(heard)  # id 0 is nothing: the n-grams stay
        xs = self.model.embed(params.model.embed, ids)
        if not self.recipe.adversary:
            return self._of(params, xs, batch, key)
        (loss, metrics), slope = jax.value_and_grad(self._of, argnums=1, has_aux=True)(params, xs, batch, key)
        slope = jax.lax.stop_gradient(slope)
        norms = jnp.sqrt((slope**2).sum(axis=(0, 2), keepdims=True))
        moved, _ = self._of(params, xs + self.recipe.adversary * slope / jnp.maximum(norms, TINY), batch, key)
        return (loss + moved) / 2, metrics

    def _of(self, params: Params, xs: jax.Array, batch: Batch, key: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Give the loss for the tokens' vectors (T, B, F)."""
        assert batch.labels is not None
        model, weight, how = self.model, batch.weights.sum(), {"key": key, "driver": self.driver}
        _, ys = jaxrnn.unroll(model.layers, params.model.layers, xs, lengths=batch.lengths, **how)
        logits = readout(params.model.readout, model.pooling(ys, batch.lengths))
        labels = batch.labels if self.tagger is None else batch.labels[0, :, 0]
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), self.recipe.smoothing)
        loss = (optax.softmax_cross_entropy(logits, targets) * batch.weights).sum() / weight
        if self.tagger is not None:
            loss += self.tagger.loss(params.tagger, ys, batch.labels[..., 1], batch.lengths)
        right = (logits.argmax(axis=-1) == labels) * batch.weights
        return loss, {"accuracy": right.sum() / weight, "weight": weight}


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Examples as numbers, to be had in batches."""

    sequences: Sequence[np.ndarray]
    answers: np.ndarray | list[np.ndarray]
    groups: LengthGroups
    batch_size: int

    @classmethod
    def of(
        cls,
        examples: list[Example],
        vocabulary: Vocabulary,
        labels: tuple[str, ...],
        recipe: Recipe,
        tagger: Tagger | None = None,
    ) -> Encoded:
        """Encode texts, labels and, for a tagger, tags; choose what to pad to."""
        sequences = [vocabulary.ids(example.text) for example in examples]
        intents = numbers(examples, labels)
        answers: Any = intents
        if tagger is not None:
            tags = [tagger.numbers(example) for example in examples]
            answers = [np.stack([np.full_like(row, i), row], axis=-1) for i, row in zip(intents, tags, strict=True)]
        groups = length_groups([len(ids) for ids in sequences], recipe.groups)
        return cls(sequences, answers, groups, recipe.batch_size)

    def batches(self, rng: np.random.Generator | None = None, mesh: Mesh | None = None) -> Iterator[Batch]:
        """Go once through them, shuffled by `rng`; over a mesh, each process hands in its share of every batch."""
        of = functools.partial(epoch_batches, groups=self.groups, batch_size=self.batch_size, rng=rng)
        if mesh is None:
            return of(self.sequences, self.answers)
        shares = of(self.sequences, self.answers, share=(jax.process_index(), jax.process_count()))
        return map(functools.partial(shard_batch, mesh=mesh), shares)


def numbers(examples: list[Example], labels: tuple[str, ...]) -> np.ndarray:
    """Give the number of each example's intent, (n,)."""
    number = {label: i for i, label in enumerate(labels)}
    return np.array([number[example.label] for example in examples], np.int32)


def train(
    corpus: Corpus, config: Config, recipe: Recipe, *, seed: int, mesh: Mesh | None = None, **how: Any
) -> tuple[Classifier, Fit]:
    """Train on train; keep the params of the epoch with the least loss on valid, and calibrate on valid.

    Args:
        corpus: the examples.
        config: the sizes.
        recipe: how to train.
        seed: of the params, the order and the noise.
        mesh: what batches are laid over, of the devices of one process or many (each calls this); None for one device.
        how: more keywords of `jaxrnn.train.fit`: progress, checkpoints.
    """
    vocabulary = Vocabulary.of(example.text for example in corpus.train)
    labels = corpus.labels
    tagger = Tagger.of(corpus.train)
    model = build(config, len(vocabulary), len(labels))
    training = Encoded.of(corpus.train, vocabulary, labels, recipe, tagger)
    holdout = Encoded.of(corpus.valid, vocabulary, labels, recipe, tagger)
    if not any(ids[:, 0].any() for ids in holdout.sequences):
        raise UserError(f"{corpus.name}: no validation text has a word of train, so there is nothing to calibrate on")
    loss, epochs = Loss(model, recipe, tagger), recipe.epochs(len(corpus.train))
    key, k_init = jax.random.split(jax.random.key(seed))
    params = init(k_init, model, tagger)
    if mesh is not None:
        params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    fitted = fit(
        loss,
        params,
        lambda epoch: training.batches(np.random.default_rng((seed, epoch)), mesh),
        optimizer=recipe.optimizer(epochs * sum(1 for _ in training.batches())),
        epochs=epochs,
        key=key,
        evaluate=evaluation(loss, lambda: holdout.batches(mesh=mesh)),
        **how,
    )
    classifier = Classifier(config, vocabulary, labels, rounded(fitted.params), tagger=tagger)
    logits = classifier.logits([example.text for example in corpus.valid])
    calibration = Calibration.fit(logits, numbers(corpus.valid, labels), recipe.rejects)
    return dataclasses.replace(classifier, calibration=calibration), fitted
