"""The classifier: bags of ids, a recurrent layer in each direction, the maximum of every feature names the intent."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn.model import BagEmbedding, SequenceModel, maximum
from jaxrnn.train import LengthGroups, epoch_batches

from .errors import UserError
from .text import Vocabulary

BATCH = 256
BOUNDARIES = (8, 16, 32, 64, 128, 512, 2048)
"""What predictions are padded to: at most so many compilations."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The sizes of the model, and how much noise it is trained with.

    Args:
        features: F, of a token's vector.
        hidden: H, of each direction.
        input_dropout: of the features of each token.
        output_dropout: of what the readout sees.
    """

    features: int = 128
    hidden: int = 128
    input_dropout: float = 0.3
    output_dropout: float = 0.5


def build(config: Config, vocabulary: int, labels: int) -> SequenceModel:
    """Define the model; what the last dropout keeps is one mask for all steps, so it may stand before the maximum."""
    layers = (
        jaxrnn.Dropout(config.input_dropout),
        jaxrnn.Bidirectional(jaxrnn.GRU(config.hidden), jaxrnn.GRU(config.hidden)),
        jaxrnn.VariationalDropout(config.output_dropout),
    )
    return SequenceModel(BagEmbedding(vocabulary, config.features), jaxrnn.Stack(layers), labels, read=maximum)


@dataclasses.dataclass(frozen=True)
class Classifier:
    """All that turns a text into the probabilities of intents.

    Args:
        config: the sizes.
        vocabulary: text to ids.
        labels: the names of the K intents.
        params: the model's.
    """

    config: Config
    vocabulary: Vocabulary
    labels: tuple[str, ...]
    params: Any

    @property
    def model(self) -> SequenceModel:
        """Give the definition."""
        return build(self.config, len(self.vocabulary), len(self.labels))

    def probabilities(self, texts: Sequence[str], batch_size: int = BATCH) -> np.ndarray:
        """Give (n, K). Raises UserError for a text without a token, or longer than 2048."""
        sequences = [self.vocabulary.ids(text) for text in texts]
        lengths = [len(ids) for ids in sequences]
        for text, length in zip(texts, lengths, strict=True):
            if not 0 < length <= BOUNDARIES[-1]:
                raise UserError(f"a text must have 1 to {BOUNDARIES[-1]} tokens; got {length} in {text[:40]!r}")
        answers = np.zeros((len(texts), len(self.labels)), np.float32)
        if not sequences:
            return answers
        for batch in epoch_batches(sequences, groups=LengthGroups(BOUNDARIES), batch_size=batch_size):
            rows = batch.rows[batch.rows >= 0]
            answers[rows] = _probabilities(self.model, self.params, batch.ids, batch.lengths)[: len(rows)]
        return answers

    def unfold(self, text: str) -> np.ndarray:
        """Give (T, K): what would be answered after each token, were the text to end there."""
        ids = self.vocabulary.ids(text)
        steps = len(ids)
        prefixes = np.repeat(ids[:, None], steps, axis=1)
        return np.asarray(_probabilities(self.model, self.params, prefixes, np.arange(1, steps + 1)))

    def memory(self, text: str) -> np.ndarray:
        """Give (T, T): the norm of the Jacobian of h_t, what both directions put out, by x_s, the token's vector."""
        return np.asarray(_memory(self.model, self.params, self.vocabulary.ids(text)))


@jax.jit(static_argnums=0)
def _probabilities(model: SequenceModel, params: Any, ids: Any, lengths: Any) -> jax.Array:
    return jax.nn.softmax(model(params, ids, lengths))


@jax.jit(static_argnums=0)
def _memory(model: SequenceModel, params: Any, ids: Any) -> jax.Array:
    xs = model.embed(params.embed, ids)

    def row(t: jax.Array) -> jax.Array:
        jacobian = jax.jacrev(lambda xs: jaxrnn.unroll(model.layers, params.layers, xs)[1][t])(xs)
        return jnp.sqrt((jacobian**2).sum(axis=(0, 2)))

    return jax.lax.map(row, jnp.arange(len(ids)))
