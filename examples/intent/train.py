"""Training: the loss with adversarial training, the optimizer, and the number of epochs."""

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

from .bundle import round_to_storage
from .calibration import Calibration
from .classifier import Classifier, Config, Params, build, init
from .data import Corpus
from .errors import UserError, check_at_least, check_rate
from .formats import Example
from .slots import Tagger
from .text import Vocabulary

MIN_NORM = 1e-12  # avoids division by 0


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The hyperparameters of training, the same for every corpus.

    Args:
        steps: approximate number of batches in total; determines the number of epochs.
        min_epochs: minimum number of epochs, for large corpora.
        max_epochs: maximum number of epochs, for small corpora.
        batch_size: B, the texts per batch.
        groups: number of lengths that texts are padded to; each is compiled once.
        learning_rate: maximum of a one-cycle schedule.
        weight_decay: weight decay of AdamW.
        smoothing: label smoothing of the loss.
        rejection_rate: share of validation texts that the threshold may reject; confident predictions are kept.
        word_dropout: rate of replacing a word by the unknown word; its character n-grams remain.
        adversarial_norm: L2 norm of the adversarial perturbation of the token vectors of a text; 0 turns it off, which
            takes two thirds of the time.
    """

    steps: int = 1400
    min_epochs: int = 12
    max_epochs: int = 16
    batch_size: int = 128
    groups: int = 3
    learning_rate: float = 6e-3
    weight_decay: float = 1e-2
    smoothing: float = 0.1
    rejection_rate: float = 0.05
    word_dropout: float = 0.2
    adversarial_norm: float = 1.0

    def __post_init__(self) -> None:
        """Raise UserError for invalid hyperparameters."""
        check_at_least(1, steps=self.steps, batch_size=self.batch_size, groups=self.groups, min_epochs=self.min_epochs)
        check_at_least(0, weight_decay=self.weight_decay, adversarial_norm=self.adversarial_norm)
        check_at_least(1e-12, learning_rate=self.learning_rate)
        check_rate(smoothing=self.smoothing, rejection_rate=self.rejection_rate, word_dropout=self.word_dropout)
        if self.max_epochs < self.min_epochs:
            raise UserError(f"--max-epochs {self.max_epochs} is less than --min-epochs {self.min_epochs}: set both")

    def epochs(self, examples: int) -> int:
        """Return the number of epochs for a number of examples."""
        return max(self.min_epochs, min(self.max_epochs, round(self.steps * self.batch_size / examples)))

    def optimizer(self, steps: int) -> optax.GradientTransformation:
        """Return AdamW with a one-cycle learning rate. Arrays with one axis do not decay."""
        rate = optax.cosine_onecycle_schedule(steps, self.learning_rate, pct_start=0.15, div_factor=10)
        return optax.adamw(rate, weight_decay=self.weight_decay, mask=_decay_mask)


def _decay_mask(params: Any) -> Any:
    return jax.tree.map(lambda array: array.ndim > 1, params)


@dataclasses.dataclass(frozen=True)
class Loss:
    """The cross-entropy of intents with smoothed labels, plus the negative log-likelihood of tags.

    Labels are integers (B,), or (T, B, 2), intent and tag, with a tagger. With a key, words and features are dropped,
    and the loss is the mean of the loss and of the loss at an adversarial perturbation of the token vectors.

    Reference: Miyato, Dai and Goodfellow, "Adversarial training methods for semi-supervised text classification",
    ICLR 2017 (https://arxiv.org/abs/1605.07725).
    """

    model: SequenceModel
    recipe: Recipe
    tagger: Tagger | None = None
    driver: Driver | None = None

    def __call__(self, params: Params, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the weighted mean over the batch, and the metrics. Without a key there is no noise."""
        ids = jnp.asarray(batch.ids)
        if key is None:
            return self._loss(params, self.model.embed(params.model.embed, ids), batch, None)
        key, k_words = jax.random.split(key)
        keep = jax.random.bernoulli(k_words, 1 - self.recipe.word_dropout, ids.shape[:-1])
        ids = ids.at[..., 0].multiply(keep)  # 0 is the unknown word
        xs = self.model.embed(params.model.embed, ids)
        if not self.recipe.adversarial_norm:
            return self._loss(params, xs, batch, key)
        (loss, metrics), grads = jax.value_and_grad(self._loss, argnums=1, has_aux=True)(params, xs, batch, key)
        grads = jax.lax.stop_gradient(grads)
        norms = jnp.sqrt((grads**2).sum(axis=(0, 2), keepdims=True))
        perturbed = xs + self.recipe.adversarial_norm * grads / jnp.maximum(norms, MIN_NORM)
        adversarial, _ = self._loss(params, perturbed, batch, key)
        return (loss + adversarial) / 2, metrics

    def _loss(self, params: Params, xs: jax.Array, batch: Batch, key: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the loss for token vectors (T, B, F), and the metrics."""
        assert batch.labels is not None
        model, weight, options = self.model, batch.weights.sum(), {"key": key, "driver": self.driver}
        _, ys = jaxrnn.unroll(model.layers, params.model.layers, xs, lengths=batch.lengths, **options)
        logits = readout(params.model.readout, model.pooling(ys, batch.lengths))
        labels = batch.labels if self.tagger is None else batch.labels[0, :, 0]
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), self.recipe.smoothing)
        loss = (optax.softmax_cross_entropy(logits, targets) * batch.weights).sum() / weight
        if self.tagger is not None:
            loss += self.tagger.loss(params.tagger, ys, batch.labels[..., 1], batch.lengths)
        correct = (logits.argmax(axis=-1) == labels) * batch.weights
        return loss, {"accuracy": correct.sum() / weight, "weight": weight}


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Examples encoded as ids, with an iterator over batches.

    Args:
        sequences: ids (T_i, N) of each text.
        labels: (n,) intents; with a tagger a list of (T_i, 2), intent and tag.
        groups: the lengths to pad to.
        batch_size: B.
    """

    sequences: Sequence[np.ndarray]
    labels: np.ndarray | list[np.ndarray]
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
        """Encode texts, labels and, with a tagger, tags; choose the lengths to pad to."""
        sequences = [vocabulary.ids(example.text) for example in examples]
        intents = label_ids(examples, labels)
        encoded: Any = intents
        if tagger is not None:
            tags = [tagger.tag_ids(example) for example in examples]
            encoded = [np.stack([np.full_like(row, i), row], axis=-1) for i, row in zip(intents, tags, strict=True)]
        groups = length_groups([len(ids) for ids in sequences], recipe.groups)
        return cls(sequences, encoded, groups, recipe.batch_size)

    def batches(self, rng: np.random.Generator | None = None, mesh: Mesh | None = None) -> Iterator[Batch]:
        """Return the batches of one epoch, shuffled by `rng`. With a mesh each process loads its share of a batch."""
        batches = functools.partial(epoch_batches, groups=self.groups, batch_size=self.batch_size, rng=rng)
        if mesh is None:
            return batches(self.sequences, self.labels)
        shares = batches(self.sequences, self.labels, share=(jax.process_index(), jax.process_count()))
        return map(functools.partial(shard_batch, mesh=mesh), shares)


def label_ids(examples: list[Example], labels: tuple[str, ...]) -> np.ndarray:
    """Return the index of each example's intent, (n,)."""
    index = {label: i for i, label in enumerate(labels)}
    return np.array([index[example.label] for example in examples], np.int32)


def train(
    corpus: Corpus, config: Config, recipe: Recipe, *, seed: int, mesh: Mesh | None = None, **options: Any
) -> tuple[Classifier, Fit]:
    """Train on train, keep the params of the epoch with the lowest loss on valid, and calibrate on valid.

    Args:
        corpus: the examples.
        config: the sizes of the model.
        recipe: the hyperparameters of training.
        seed: of the params, the order of batches, and the noise.
        mesh: shards batches over the devices of one or many processes, each of which calls this; None for one device.
        options: keywords of `jaxrnn.train.fit`, such as progress and checkpoints.
    """
    vocabulary = Vocabulary.of(example.text for example in corpus.train)
    labels = corpus.labels
    tagger = Tagger.of(corpus.train)
    model = build(config, len(vocabulary), len(labels))
    training = Encoded.of(corpus.train, vocabulary, labels, recipe, tagger)
    validation = Encoded.of(corpus.valid, vocabulary, labels, recipe, tagger)
    if not any(ids[:, 0].any() for ids in validation.sequences):
        raise UserError(f"{corpus.name}: no validation text has a word of train, so there is nothing to calibrate on")
    loss, epochs = Loss(model, recipe, tagger), recipe.epochs(len(corpus.train))
    key, k_init = jax.random.split(jax.random.key(seed))
    params = init(k_init, model, tagger)
    if mesh is not None:
        params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    result = fit(
        loss,
        params,
        lambda epoch: training.batches(np.random.default_rng((seed, epoch)), mesh),
        optimizer=recipe.optimizer(epochs * sum(1 for _ in training.batches())),
        epochs=epochs,
        key=key,
        evaluate=evaluation(loss, lambda: validation.batches(mesh=mesh)),
        **options,
    )
    classifier = Classifier(config, vocabulary, labels, round_to_storage(result.params), tagger=tagger)
    logits = classifier.logits([example.text for example in corpus.valid])
    calibration = Calibration.fit(logits, label_ids(corpus.valid, labels), recipe.rejection_rate)
    return dataclasses.replace(classifier, calibration=calibration), result
