"""Losses of a `SequenceModel`, in the form that `make_step` and `fit` take."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import optax

from .._core.masks import length_mask
from .._core.types import Key, State
from ..model._sequence_model import ModelParams, SequenceModel
from ._batches import AnyArray, Batch
from ._step import Carried, Metrics
from ._windows import Window

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """The mean cross-entropy of a `Batch`, over its rows, or over its valid steps where `pooling` is `every`.

    Args:
        model: its logits are (B, K) for labels (B,), or (T, B, K) for labels (T, B). Labels are integers from 0 to
            K - 1. Any other label makes the loss NaN, so `make_step` skips the step; labels in the padding and in rows
            of weight 0 are ignored.

    Its metrics are `accuracy` and `weight`, the sum of the weights of the labels.

    >>> from jaxrnn.model import Embedding, SequenceModel
    >>> from jaxrnn.train import LengthGroups, epoch_batches
    >>> loss = CrossEntropy(SequenceModel(Embedding(9, 4), Elman(8), outputs=2))
    >>> batch = next(epoch_batches([[1, 2], [3]], [0, 1], groups=LengthGroups((4,)), batch_size=2))
    >>> scalar, metrics = loss(loss.model.init(jax.random.key(0)), batch, None)
    >>> float(metrics["weight"])
    2.0
    """

    model: SequenceModel

    def __call__(self, params: ModelParams, batch: Batch, key: Key | None) -> tuple[Float[Array, ""], Metrics]:
        """Return the mean () and the metrics. Without a key there is no dropout.

        Raises:
            TypeError: if batch is no `Batch`, or labels are no integers.
            ValueError: if batch has no labels, or their shape is not that of the logits.
        """
        if not isinstance(batch, Batch):
            raise TypeError(f"CrossEntropy needs a Batch, as epoch_batches yields; got a {type(batch).__name__}")
        if batch.labels is None:
            raise ValueError("CrossEntropy needs labels; this batch has none")
        logits = self.model(params, batch.ids, batch.lengths, key=key)
        return _mean(logits, batch.labels, _weights(batch.weights, batch.lengths, logits))


def carried_cross_entropy(model: SequenceModel, batch: int) -> Carried:
    """Return the loss of windows (ids, labels), (W, B) each, that carries the state: truncated back-propagation.

    Args:
        model: a language model or a tagger, with `pooling=every`.
        batch: B.

    Raises:
        TypeError: when called, if labels are no integers.
        ValueError: when called, if the shape of labels is not that of the logits.

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

    def loss(params: ModelParams, state: State, window: Window, key: Key | None) -> tuple[State, jax.Array, Metrics]:
        ids, labels = window.xs
        state, logits = model.unroll(params, ids, window.lengths, state=state, resets=window.resets, key=key)
        ones = jnp.ones(window.lengths.shape, logits.dtype)
        return state, *_mean(logits, labels, _weights(ones, window.lengths, logits))

    return Carried(loss, lambda params: model.initial_state(params, (batch,)))


def _weights(rows: AnyArray, lengths: AnyArray, logits: jax.Array) -> AnyArray:
    """Return the weight of each label: (B,) for logits (B, K), (T, B) for logits (T, B, K)."""
    if logits.ndim == 2:
        return jnp.asarray(rows)
    return jnp.where(length_mask(jnp.asarray(lengths), logits.shape[0]), rows, jnp.zeros_like(rows))


def _mean(logits: jax.Array, labels: AnyArray, weights: AnyArray) -> tuple[jax.Array, Metrics]:
    """Return the weighted mean of the cross-entropy, zero if all weights are zero, and the metrics."""
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits {logits.shape} need labels {logits.shape[:-1]}; got {labels.shape}. A model with "
            "pooling=every has logits at every step, with another pooling once per sequence."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers, from 0 to {logits.shape[-1] - 1}; got {labels.dtype}")
    known = (labels >= 0) & (labels < logits.shape[-1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(known, labels, jnp.zeros_like(labels)))
    losses = jnp.where(known, losses, jnp.full_like(losses, jnp.nan))
    losses = jnp.where(weights > 0, losses, jnp.zeros_like(losses))  # a label of weight 0 may be out of range
    weight = weights.sum()
    share = weights.astype(losses.dtype) / jnp.where(weight > 0, weight, jnp.ones_like(weight)).astype(losses.dtype)
    correct = (logits.argmax(axis=-1) == labels).astype(losses.dtype)
    return (losses * share).sum(), {"accuracy": (correct * share).sum(), "weight": weight}
