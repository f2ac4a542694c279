"""The classifier: tokens become vectors, a GRU crosses time, and what is read of both names the intent."""

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

from .calibration import Calibration, doubt, favours
from .errors import UserError, at_least, rate
from .layers import LOUDER, Beside, HighestAndMean, TokenEmbedding
from .slots import Slot, Tagger, TaggerParams, fill
from .text import MOST_CHARACTERS, MOST_TOKENS, Vocabulary

BATCHES = (1, 16, 256)
"""How many rows a prediction is padded to."""

BOUNDARIES = (8, 16, 32, 64, 128, 512, MOST_TOKENS)
"""How many steps a prediction is padded to. With `BATCHES` that bounds what is compiled."""

LONG = 128
"""More steps are not padded to the most rows: that bounds the memory that a few long texts take."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The sizes of the model, and how much noise it is trained with.

    Args:
        features: F, the size of a token's vector.
        hidden: H, the hidden units of the GRU in each direction.
        input_dropout: the share of a token's features dropped in training.
        output_dropout: the share of features dropped before the readout in training.
        causal: read forward only, so that each token can be answered as it arrives (predict --stream).
    """

    features: int = 192
    hidden: int = 128
    input_dropout: float = 0.3
    output_dropout: float = 0.5
    causal: bool = False

    def __post_init__(self) -> None:
        """Raise UserError for sizes and rates that no model has."""
        at_least(1, features=self.features, hidden=self.hidden)
        rate(input_dropout=self.input_dropout, output_dropout=self.output_dropout)


def build(config: Config, vocabulary: int, labels: int) -> SequenceModel:
    """Define the model; what the last dropout keeps is one mask for all steps, so it may stand before the reading."""
    gru = jaxrnn.GRU(config.hidden)
    recurrent = gru if config.causal else jaxrnn.Bidirectional(gru, gru)
    heard = Beside(jaxrnn.Stack((jaxrnn.Dropout(config.input_dropout), recurrent)))
    layers = jaxrnn.Stack((heard, jaxrnn.VariationalDropout(config.output_dropout)))
    embed, read = TokenEmbedding(vocabulary, config.features), HighestAndMean(config.features)
    return SequenceModel(embed, layers, labels, read)


class Params(NamedTuple):
    """What is learned: the model's params, and the tagger's, None where the corpus has no slots."""

    model: ModelParams
    tagger: TaggerParams | None = None


def init(key: jax.Array, model: SequenceModel, tagger: Tagger | None) -> Params:
    """Draw the params; the tagger reads each step of what the model's layers put out."""
    params = model.init(key)
    features = out_dim(model.layers, model.embed.features)
    return Params(params, tagger and tagger.init(jax.random.fold_in(key, 0), features))


class Answer(NamedTuple):
    """What is answered to a text: an intent, or none, in which case `reason` says why.

    Attributes:
        intent: its name; None for none.
        probability: of the likeliest intent.
        best: the likeliest intents and their probabilities, the likeliest first.
        reason: a sentence where the answer is none, else None.
        slots: what else the text says, where slots were learned.
    """

    intent: str | None
    probability: float
    best: tuple[tuple[str, float], ...]
    reason: str | None
    slots: tuple[Slot, ...] = ()


def with_slots(answers: list[Answer], texts: Sequence[str], tags: Sequence[Sequence[str]]) -> list[Answer]:
    """Add what the tags of the tokens say of the texts."""
    return [answer._replace(slots=fill(*row)) for answer, *row in zip(answers, texts, tags, strict=True)]


@dataclasses.dataclass(frozen=True)
class Classifier:
    """All that turns a text into the probabilities of intents.

    Args:
        config: the sizes.
        vocabulary: text to ids.
        labels: the names of the K intents.
        params: what was learned.
        calibration: what was fitted on validation texts.
        tagger: of the slots, None where there are none.
    """

    config: Config
    vocabulary: Vocabulary
    labels: tuple[str, ...]
    params: Params
    calibration: Calibration = Calibration()
    tagger: Tagger | None = None

    @functools.cached_property
    def model(self) -> SequenceModel:
        """Give the definition."""
        return build(self.config, len(self.vocabulary), len(self.labels))

    def answers(self, texts: Sequence[str], *, most: int = 3, threshold: float | None = None) -> list[Answer]:
        """Answer each text. Raises UserError as `logits` does."""
        logits, tags = self.hear([self.encode(text) for text in texts])
        return with_slots(self.name(logits, most=most, threshold=threshold), texts, tags)

    def name(self, logits: np.ndarray, *, most: int = 3, threshold: float | None = None) -> list[Answer]:
        """Name the intents of logits (n, K); `threshold` takes the place of the calibration's."""
        calibration = self.calibration
        if threshold is not None:
            calibration = dataclasses.replace(calibration, threshold=threshold)
        rows = zip(calibration.probabilities(logits), calibration.unknown(logits), favours(logits), strict=True)
        return [self._answer(*row, calibration.threshold, most) for row in rows]

    def _answer(self, row: np.ndarray, none: bool, favoured: bool, threshold: float | None, most: int) -> Answer:
        order = np.argsort(-row)[:most]
        best = tuple((self.labels[i], round(float(row[i]), 4)) for i in order)
        if not none:
            return Answer(*best[0], best, None)
        if not favoured:
            return Answer(None, best[0][1], best, "no word of it is known")
        spread = f"its probability spreads over some {doubt(row):.3g} intents"
        return Answer(None, best[0][1], best, f"{spread}, where {threshold:.3g} are allowed")

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Give (n, K), calibrated. Raises UserError as `logits` does."""
        return self.calibration.probabilities(self.logits(texts))

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return (n, K), zeros where no word is known. Raises UserError for a text of no token, or of over 2048."""
        return self.hear([self.encode(text) for text in texts])[0]

    def hear(self, sequences: Sequence[np.ndarray]) -> tuple[np.ndarray, list[list[str]]]:
        """Give (n, K) and each token's tag for what `encode` gave; lists of none where there are no slots."""
        logits = np.zeros((len(sequences), len(self.labels)), np.float32)
        tags: list[list[str]] = [[] for _ in sequences]
        for rows, ids, lengths in _batches(sequences):
            heard, path = _hear(self.model, self.tagger, self.params, ids, lengths)
            logits[rows] = np.asarray(heard)[: len(rows)]
            if self.tagger is not None:
                for row, length, tag in zip(rows, lengths, np.asarray(path).T, strict=False):
                    tags[row] = [self.tagger.tags[i] for i in tag[:length]]
        return logits, tags

    def encode(self, text: str) -> np.ndarray:
        """Give the ids (T, N) of a text; raises UserError for one of no token, or of more than can be answered."""
        if len(text) > MOST_CHARACTERS:
            raise UserError(f"a text must have {MOST_CHARACTERS} characters at most; got {len(text)}")
        ids = self.vocabulary.ids(text)
        if not 0 < len(ids) <= MOST_TOKENS:
            raise UserError(f"a text must have 1 to {MOST_TOKENS} tokens; got {len(ids)} in {text[:40]!r}")
        return ids

    def unfold(self, text: str) -> np.ndarray:
        """Give (T, K): what would be answered after each token, were the text to end there."""
        return self.calibration.probabilities(self.prefixes(text))

    def stream(self, tokens: Iterable[str]) -> Iterator[Answer]:
        """Answer after each token, as it arrives; the answer to `t` tokens is the one to a text of them.

        Raises UserError for a classifier that crosses time both ways.
        """
        if not self.config.causal:
            raise UserError("this classifier hears the end before it answers the beginning. Train one with --causal")
        state = self.model.initial_state(self.params.model)
        heard = jnp.full(self.config.hidden, -jnp.inf), jnp.zeros(self.config.features), jnp.array(False)
        for count, token in enumerate(tokens, start=1):
            ids = np.array(self.vocabulary.bag(token), np.int32)
            state, heard, logits = _step(self.model, self.params.model, state, heard, ids, count)
            yield self.name(np.asarray(logits)[None])[0]

    def prefixes(self, text: str) -> np.ndarray:
        """Give the logits (T, K) of the text's beginnings, each of a token more."""
        ids = self.encode(text)
        return self.hear([ids[:end] for end in range(1, len(ids) + 1)])[0]

    def without(self, text: str) -> np.ndarray:
        """Give (T, K): what would be answered without each token, one at a time; of a single token a row of 1 / K."""
        ids = self.encode(text)
        if len(ids) == 1:
            return np.full((1, len(self.labels)), 1 / len(self.labels))
        logits, _ = self.hear([np.delete(ids, t, axis=0) for t in range(len(ids))])
        return self.calibration.probabilities(logits)

    def memory(self, text: str) -> np.ndarray:
        """Give (T, T): the norm of the Jacobian of h_t, what both directions put out, by x_s, the token's vector."""
        return np.asarray(_memory(self.model, self.params.model, self.vocabulary.ids(text)))


def _batches(sequences: Sequence[np.ndarray]) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Give rows, ids (T, B, N) and lengths (B,), those of like length together, padded to few shapes."""
    order = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
    while order:
        size = next((size for size in BATCHES if len(order) <= size), BATCHES[-1])
        if len(sequences[order[:size][-1]]) > LONG:
            size = min(size, BATCHES[1])
        rows, order = order[:size], order[size:]
        chosen = [sequences[row] for row in rows]
        steps = next(steps for steps in BOUNDARIES if steps >= len(chosen[-1]))
        ids, lengths = np.zeros((steps, size, *chosen[0].shape[1:]), np.int32), np.zeros(size, np.int32)
        for place, sequence in enumerate(chosen):
            ids[: len(sequence), place], lengths[place] = sequence, len(sequence)
        yield rows, ids, lengths


@jax.jit(static_argnums=(0, 1))
def _hear(model: SequenceModel, tagger: Tagger | None, params: Params, ids: Any, lengths: Any) -> Any:
    """Give the logits (B, K) and the path of tags (T, B), None without a tagger."""
    _, ys = model.hidden(params.model, ids, lengths)
    logits = readout(params.model.readout, model.pooling(ys, lengths))
    return heard_of(ids, logits), tagger and tagger.path(params.tagger, ys, lengths)


def heard_of(ids: jax.Array, logits: jax.Array) -> jax.Array:
    """Return the logits (B, K), zeros for the rows of ids (T, B, N), 0 in the padding, that hold no known word."""
    return jnp.where((ids[..., 0] > 0).any(axis=0)[:, None], logits, 0)


@jax.jit(static_argnums=0)
def _step(
    model: SequenceModel, params: ModelParams, state: Any, heard: Any, ids: Any, count: Any
) -> tuple[Any, Any, jax.Array]:
    """Hear one token more: `heard` is the maximum and the sum so far, and whether a word is known."""
    state, y = model.layers.step(params.layers, state, model.embed(params.embed, ids))
    highest, total, known = heard
    heard = jnp.maximum(highest, y[: len(highest)]), total + y[len(highest) :], known | (ids[0] > 0)
    logits = readout(params.readout, jnp.concatenate([heard[0], LOUDER * heard[1] / count]))
    return state, heard, jnp.where(heard[2], logits, 0)


@jax.jit(static_argnums=0)
def _memory(model: SequenceModel, params: ModelParams, ids: Any) -> jax.Array:
    xs = model.embed(params.embed, ids)

    def row(t: jax.Array) -> jax.Array:
        jacobian = jax.jacrev(lambda xs: jaxrnn.unroll(model.layers, params.layers, xs)[1][t, : -xs.shape[-1]])(xs)
        return jnp.sqrt((jacobian**2).sum(axis=(0, 2)))

    return jax.lax.map(row, jnp.arange(len(ids)))
