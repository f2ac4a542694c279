"""Losses of a `SequenceModel`, in the form that `make_step` and `fit` take."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .._core.masks import length_mask
from ..model._sequence_model import ModelParams, SequenceModel
from ._batches import Batch
from ._step import Carried, Metrics
from ._windows import Window


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """The mean cross-entropy over what counts, for a `Batch`: its rows, or its steps where `read` is `every`.

    Args:
        model: with logits (B, K) for labels (B,), or logits (T, B, K) for labels (T, B); labels are integers from 0 to
            K - 1. Any other label makes the loss NaN, so that `make_step` skips the step; but not in the padding and in
            rows of weight 0, where labels do not count.

    Its metrics are `accuracy` and `weight`, the number of answers that count.

    >>> from jaxrnn.model import Embedding, SequenceModel
    >>> from jaxrnn.train import LengthGroups, epoch_batches
    >>> loss = CrossEntropy(SequenceModel(Embedding(9, 4), Elman(8), outputs=2))
    >>> batch = next(epoch_batches([[1, 2], [3]], [0, 1], groups=LengthGroups((4,)), batch_size=2))
    >>> scalar, metrics = loss(loss.model.init(jax.random.key(0)), batch, None)
    >>> float(metrics["weight"])
    2.0
    """

    model: SequenceModel

    def __call__(self, params: ModelParams, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, Metrics]:
        """Give the mean, and the metrics; without a key there is no dropout."""
        if not isinstance(batch, Batch):
            raise TypeError(f"CrossEntropy needs a Batch, as epoch_batches yields; got a {type(batch).__name__}")
        if batch.labels is None:
            raise ValueError("CrossEntropy needs labels; this batch has none")
        logits = self.model(params, batch.ids, batch.lengths, key=key)
        return _mean(logits, batch.labels, _weights(batch.weights, batch.lengths, logits))


def carried_cross_entropy(model: SequenceModel, batch: int) -> Carried:
    """Make the loss of windows (ids, labels), both (T, B), that carries the layers' state: truncated back-propagation.

    Args:
        model: with `pooling=every`: a language model, or a tagger.
        batch: B.

    >>> from jaxrnn.model import Embedding, SequenceModel, every
    >>> from jaxrnn.train import fit, streams, windows
    >>> model = SequenceModel(Embedding(9, 4), Elman(8), outputs=9, pooling=every)
    >>> text = streams(np.arange(90) % 9, 5)
    >>> loss = carried_cross_entropy(model, 5)
    >>> batches = lambda epoch: windows((text[:-1], text[1:]), 4)
    >>> params, key = model.init(jax.random.key(0)), jax.random.key(1)
    >>> sorted(fit(loss, params, batches, optimizer=optax.adam(1e-2), epochs=1, key=key).history[0])
    ['epoch', 'seconds', 'skipped', 'train_accuracy', 'train_grad_norm', 'train_loss']
    """

    def loss(params: ModelParams, state: Any, window: Window, key: Any) -> tuple[Any, jax.Array, Metrics]:
        ids, labels = window.xs
        state, logits = model.unroll(params, ids, window.lengths, state=state, resets=window.resets, key=key)
        ones = jnp.ones(window.lengths.shape, logits.dtype)
        return state, *_mean(logits, labels, _weights(ones, window.lengths, logits))

    return Carried(loss, lambda params: model.initial_state(params, (batch,)))


def _weights(rows: Any, lengths: Any, logits: jax.Array) -> jax.Array:
    """Give what each answer counts: (B,) for logits (B, K), (T, B) for logits (T, B, K)."""
    if logits.ndim == 2:
        return rows
    return jnp.where(length_mask(lengths, logits.shape[0]), rows, jnp.zeros_like(rows))


def _mean(logits: jax.Array, labels: Any, weights: jax.Array) -> tuple[jax.Array, Metrics]:
    """Give the weighted mean of the cross-entropy; zero where nothing counts."""
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits {logits.shape} need labels {logits.shape[:-1]}; got {labels.shape}. pooling=every answers at every "
            "step, the other reads once a sequence."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers, from 0 to {logits.shape[-1] - 1}; got {labels.dtype}")
    known = (labels >= 0) & (labels < logits.shape[-1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(known, labels, jnp.zeros_like(labels)))
    losses = jnp.where(known, losses, jnp.full_like(losses, jnp.nan))
    losses = jnp.where(weights > 0, losses, jnp.zeros_like(losses))  # what does not count may have any label
    weight = weights.sum()
    share = weights.astype(losses.dtype) / jnp.where(weight > 0, weight, jnp.ones_like(weight)).astype(losses.dtype)
    right = (logits.argmax(axis=-1) == labels).astype(losses.dtype)
    return (losses * share).sum(), {"accuracy": (right * share).sum(), "weight": weight}
