"""The classifier: token vectors, a GRU over them, pooling of both, and a linear readout."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn.extend import out_dim
from jaxrnn.model import ModelParams, SequenceModel, readout

from .calibration import Calibration, has_evidence, uncertainty
from .errors import UserError, check_at_least, check_rate
from .layers import MEAN_SCALE, ConcatInputs, MaxAndMeanPooling, TokenEmbedding
from .slots import Slot, Tagger, TaggerParams, extract_slots
from .text import MAX_CHARACTERS, MAX_TOKENS, Vocabulary

BATCHES = (1, 16, 256)
"""The numbers of rows that a batch is padded to."""

BOUNDARIES = (8, 16, 32, 64, 128, 512, MAX_TOKENS)
"""The numbers of steps that a batch is padded to. With `BATCHES` they bound the number of compilations."""

LONG = 128
"""Batches of more steps are not padded to the largest number of rows, which bounds their memory."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The sizes of the model, and its dropout rates.

    Args:
        features: F, the size of a token vector.
        hidden: H, the hidden units of the GRU in each direction.
        input_dropout: dropout rate of token vectors.
        output_dropout: dropout rate before the readout.
        causal: forward direction only, so that each token is answered as it arrives (predict --stream).
    """

    features: int = 192
    hidden: int = 128
    input_dropout: float = 0.3
    output_dropout: float = 0.5
    causal: bool = False

    def __post_init__(self) -> None:
        """Raise UserError for invalid sizes and rates."""
        check_at_least(1, features=self.features, hidden=self.hidden)
        check_rate(input_dropout=self.input_dropout, output_dropout=self.output_dropout)


def build(config: Config, vocabulary: int, labels: int) -> SequenceModel:
    """Build the model. The second dropout has one mask for all steps, so it commutes with the pooling."""
    gru = jaxrnn.GRU(config.hidden)
    recurrent = gru if config.causal else jaxrnn.Bidirectional(gru, gru)
    inner = ConcatInputs(jaxrnn.Stack((jaxrnn.Dropout(config.input_dropout), recurrent)))
    layers = jaxrnn.Stack((inner, jaxrnn.VariationalDropout(config.output_dropout)))
    embed, pooling = TokenEmbedding(vocabulary, config.features), MaxAndMeanPooling(config.features)
    return SequenceModel(embed, layers, labels, pooling)


class Params(NamedTuple):
    """The params of the model, and of the tagger: None if the corpus has no slots."""

    model: ModelParams
    tagger: TaggerParams | None = None


def init(key: jax.Array, model: SequenceModel, tagger: Tagger | None) -> Params:
    """Draw the params. The tagger reads the output of the model's layers at each step."""
    params = model.init(key)
    features = out_dim(model.layers, model.embed.features)
    return Params(params, tagger and tagger.init(jax.random.fold_in(key, 0), features))


class Prediction(NamedTuple):
    """The predicted intent of a text, or none.

    Attributes:
        intent: its name; None if the text is rejected.
        probability: of the most probable intent.
        best: the most probable intents with their probabilities, in descending order.
        reason: why the text is rejected, in a sentence; else None.
        slots: empty if the classifier has no tagger.
    """

    intent: str | None
    probability: float
    best: tuple[tuple[str, float], ...]
    reason: str | None
    slots: tuple[Slot, ...] = ()


def with_slots(predictions: list[Prediction], texts: Sequence[str], tags: Sequence[Sequence[str]]) -> list[Prediction]:
    """Return the predictions with the slots of the texts, from the tags of their tokens."""
    return [p._replace(slots=extract_slots(*row)) for p, *row in zip(predictions, texts, tags, strict=True)]


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained classifier, from texts to the probabilities of intents.

    Args:
        config: the sizes.
        vocabulary: from text to ids.
        labels: the names of the K intents.
        params: the trained params.
        calibration: temperature and rejection threshold.
        tagger: of the slots; None without slots.
    """

    config: Config
    vocabulary: Vocabulary
    labels: tuple[str, ...]
    params: Params
    calibration: Calibration = Calibration()
    tagger: Tagger | None = None

    @functools.cached_property
    def model(self) -> SequenceModel:
        """Return the model, without params."""
        return build(self.config, len(self.vocabulary), len(self.labels))

    def predict(self, texts: Sequence[str], *, top_k: int = 3, threshold: float | None = None) -> list[Prediction]:
        """Return the prediction for each text. Raise UserError as `logits` does."""
        logits, tags = self.forward([self.encode(text) for text in texts])
        return with_slots(self.decode(logits, top_k=top_k, threshold=threshold), texts, tags)

    def decode(self, logits: np.ndarray, *, top_k: int = 3, threshold: float | None = None) -> list[Prediction]:
        """Return the predictions of logits (n, K). A `threshold` replaces the one of the calibration."""
        calibration = self.calibration
        if threshold is not None:
            calibration = dataclasses.replace(calibration, threshold=threshold)
        rows = zip(calibration.probabilities(logits), calibration.rejects(logits), has_evidence(logits), strict=True)
        return [self._decode_row(*row, calibration.threshold, top_k) for row in rows]

    def _decode_row(
        self, row: np.ndarray, rejected: bool, evidence: bool, threshold: float | None, top_k: int
    ) -> Prediction:
        order = np.argsort(-row)[:top_k]
        best = tuple((self.labels[i], round(float(row[i]), 4)) for i in order)
        if not rejected:
            return Prediction(*best[0], best, None)
        if not evidence:
            return Prediction(None, best[0][1], best, "the text has no known word")
        spread = f"the probability is spread over {uncertainty(row):.3g} intents"
        return Prediction(None, best[0][1], best, f"{spread}; the threshold is {threshold:.3g}")

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Return calibrated probabilities (n, K). Raise UserError as `logits` does."""
        return self.calibration.probabilities(self.logits(texts))

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return logits (n, K), zeros for texts without a known word. Raise UserError as `encode` does."""
        return self.forward([self.encode(text) for text in texts])[0]

    def forward(self, sequences: Sequence[np.ndarray]) -> tuple[np.ndarray, list[list[str]]]:
        """Return logits (n, K) and the tag of each token for sequences from `encode`; no tags without a tagger."""
        logits = np.zeros((len(sequences), len(self.labels)), np.float32)
        tags: list[list[str]] = [[] for _ in sequences]
        for rows, ids, lengths in padded_batches(sequences):
            outputs, tag_ids = _forward(self.model, self.tagger, self.params, ids, lengths)
            logits[rows] = np.asarray(outputs)[: len(rows)]
            if self.tagger is not None:
                for row, length, tag in zip(rows, lengths, np.asarray(tag_ids).T, strict=False):
                    tags[row] = [self.tagger.tags[i] for i in tag[:length]]
        return logits, tags

    def encode(self, text: str) -> np.ndarray:
        """Return the ids (T, N) of a text. Raise UserError if it has no token, or is too long."""
        if len(text) > MAX_CHARACTERS:
            raise UserError(f"a text must have {MAX_CHARACTERS} characters at most; got {len(text)}")
        ids = self.vocabulary.ids(text)
        if not 0 < len(ids) <= MAX_TOKENS:
            raise UserError(f"a text must have 1 to {MAX_TOKENS} tokens; got {len(ids)} in {text[:40]!r}")
        return ids

    def prefix_probabilities(self, text: str) -> np.ndarray:
        """Return calibrated probabilities (T, K): row t is the prediction for the first t + 1 tokens."""
        return self.calibration.probabilities(self.prefix_logits(text))

    def prefix_logits(self, text: str) -> np.ndarray:
        """Return logits (T, K): row t is the output for the first t + 1 tokens."""
        ids = self.encode(text)
        return self.forward([ids[:end] for end in range(1, len(ids) + 1)])[0]

    def stream(self, tokens: Iterable[str]) -> Iterator[Prediction]:
        """Yield the prediction after each token. It equals the prediction for the text of these tokens.

        Raises UserError for a bidirectional classifier.
        """
        if not self.config.causal:
            raise UserError("this classifier is bidirectional and needs the whole text. Train one with --causal")
        state = self.model.initial_state(self.params.model)
        pooled = jnp.full(self.config.hidden, -jnp.inf), jnp.zeros(self.config.features), jnp.array(False)
        for count, token in enumerate(tokens, start=1):
            ids = np.array(self.vocabulary.bag(token), np.int32)
            state, pooled, logits = _step(self.model, self.params.model, state, pooled, ids, count)
            yield self.decode(np.asarray(logits)[None])[0]

    def leave_one_out(self, text: str) -> np.ndarray:
        """Return probabilities (T, K): row t is the prediction without token t. For a single token they are 1 / K."""
        ids = self.encode(text)
        if len(ids) == 1:
            return np.full((1, len(self.labels)), 1 / len(self.labels))
        logits, _ = self.forward([np.delete(ids, t, axis=0) for t in range(len(ids))])
        return self.calibration.probabilities(logits)

    def jacobian_norms(self, text: str) -> np.ndarray:
        """Return (T, T): the norm of the Jacobian of h_t, the output of the GRU, with respect to token vector x_s."""
        return np.asarray(_jacobian_norms(self.model, self.params.model, self.vocabulary.ids(text)))


def padded_batches(sequences: Sequence[np.ndarray]) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Yield row indices, ids (T, B, N) and lengths (B,). Similar lengths share a batch, padded to few shapes."""
    order = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
    while order:
        size = next((size for size in BATCHES if len(order) <= size), BATCHES[-1])
        if len(sequences[order[:size][-1]]) > LONG:
            size = min(size, BATCHES[1])
        rows, order = order[:size], order[size:]
        chosen = [sequences[row] for row in rows]
        num_steps = next(boundary for boundary in BOUNDARIES if boundary >= len(chosen[-1]))
        ids, lengths = np.zeros((num_steps, size, *chosen[0].shape[1:]), np.int32), np.zeros(size, np.int32)
        for column, sequence in enumerate(chosen):
            ids[: len(sequence), column], lengths[column] = sequence, len(sequence)
        yield rows, ids, lengths


@jax.jit(static_argnums=(0, 1))
def _forward(model: SequenceModel, tagger: Tagger | None, params: Params, ids: Any, lengths: Any) -> Any:
    """Return logits (B, K) and tag ids (T, B), None without a tagger."""
    _, ys = model.hidden(params.model, ids, lengths)
    logits = readout(params.model.readout, model.pooling(ys, lengths))
    return zero_unknown(ids, logits), tagger and tagger.decode(params.tagger, ys, lengths)


def zero_unknown(ids: jax.Array, logits: jax.Array) -> jax.Array:
    """Return the logits (B, K), zero in the rows of ids (T, B, N) without a known word. Padding ids are 0."""
    return jnp.where((ids[..., 0] > 0).any(axis=0)[:, None], logits, 0)


@jax.jit(static_argnums=0)
def _step(
    model: SequenceModel, params: ModelParams, state: Any, pooled: Any, ids: Any, count: Any
) -> tuple[Any, Any, jax.Array]:
    """Apply one step. `pooled` is the running maximum, the running sum, and whether a word is known."""
    state, y = model.layers.step(params.layers, state, model.embed(params.embed, ids))
    maximum, total, known = pooled
    pooled = jnp.maximum(maximum, y[: len(maximum)]), total + y[len(maximum) :], known | (ids[0] > 0)
    logits = readout(params.readout, jnp.concatenate([pooled[0], MEAN_SCALE * pooled[1] / count]))
    return state, pooled, jnp.where(pooled[2], logits, 0)


@jax.jit(static_argnums=0)
def _jacobian_norms(model: SequenceModel, params: ModelParams, ids: Any) -> jax.Array:
    xs = model.embed(params.embed, ids)

    def row(t: jax.Array) -> jax.Array:
        jacobian = jax.jacrev(lambda xs: jaxrnn.unroll(model.layers, params.layers, xs)[1][t, : -xs.shape[-1]])(xs)
        return jnp.sqrt((jacobian**2).sum(axis=(0, 2)))

    return jax.lax.map(row, jnp.arange(len(ids)))
