"""Slot filling: BIO tags for every token, by a conditional random field on the outputs of the layers."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.model import ReadoutParams, init_readout, readout

from .crf import ChainParams, most_probable_tags, negative_log_likelihood
from .formats import Example
from .text import tokenize

FORBIDDEN = -1e4  # the score of an inside tag that does not continue its slot
OUTSIDE = "O"


class Slot(NamedTuple):
    """The name of a slot, and its value in the text."""

    name: str
    value: str


class TaggerParams(NamedTuple):
    """The params of a tagger: a readout for emission scores, and the scores of the chain."""

    readout: ReadoutParams
    chain: ChainParams


@dataclasses.dataclass(frozen=True)
class Tagger:
    """A model of the tag of every token.

    Args:
        tags: the names of the K tags: O outside of slots, B-x at the beginning of a slot x, I-x inside it.
    """

    tags: tuple[str, ...]

    @classmethod
    def of(cls, examples: Iterable[Example]) -> Tagger | None:
        """Build a tagger for all slots of the examples; None if they have no slots."""
        names = sorted({tag[2:] for example in examples for tag in example.tags if tag != OUTSIDE})
        return cls((OUTSIDE, *(f"{prefix}-{name}" for name in names for prefix in "BI"))) if names else None

    def init(self, key: jax.Array, features: int) -> TaggerParams:
        """Draw the params for outputs of H = `features`."""
        count = len(self.tags)
        chain = ChainParams(jnp.zeros(count), jnp.zeros((count, count)))
        return TaggerParams(init_readout(key, features, count), chain)

    def loss(self, params: TaggerParams, ys: jax.Array, tags: jax.Array, lengths: jax.Array) -> jax.Array:
        """Return the mean negative log-likelihood per token: outputs (T, B, H), tags (T, B), lengths (B,)."""
        losses = negative_log_likelihood(self._chain(params), readout(params.readout, ys), tags, lengths)
        return jnp.where(lengths > 0, losses, 0).sum() / jnp.maximum(lengths.sum(), 1)

    def decode(self, params: TaggerParams, ys: jax.Array, lengths: jax.Array) -> jax.Array:
        """Return the ids of the most probable tags (T, B) for outputs (T, B, H)."""
        return most_probable_tags(self._chain(params), readout(params.readout, ys), lengths)

    def tag_ids(self, example: Example) -> np.ndarray:
        """Return the id of the tag of each token, (T,). Unknown slots are outside."""
        id_of = {tag: i for i, tag in enumerate(self.tags)}
        return np.array([id_of.get(tag, 0) for tag in token_tags(example)], np.int32)

    def _chain(self, params: TaggerParams) -> ChainParams:
        """Return the scores of the chain, where I-x follows B-x and I-x only."""
        inside = np.array([tag[0] == "I" for tag in self.tags])
        names = np.array([tag[2:] for tag in self.tags])
        allowed = ~inside | (names[:, None] == names)
        initial = jnp.where(inside, FORBIDDEN, params.chain.initial)
        return ChainParams(initial, jnp.where(allowed, params.chain.transitions, FORBIDDEN))


def token_tags(example: Example) -> list[str]:
    """Return the tags of tokens, from those of words. The first token has the word's tag; the others continue it."""
    tags: list[str] = []
    for word, tag in zip(example.text.split(), example.tags, strict=True):
        continued = OUTSIDE if tag == OUTSIDE else f"I-{tag[2:]}"
        tags += [continued if i else tag for i in range(len(tokenize(word)))]
    return tags


def word_tags(text: str, tags: Sequence[str]) -> list[str]:
    """Return the tags of words, from those of tokens: each word has the tag of its first token."""
    counts = [len(tokenize(word)) for word in text.split()]
    starts = itertools.accumulate(counts, initial=0)
    return [tags[start] if count else OUTSIDE for count, start in zip(counts, starts, strict=False)]


def spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return (slot, start, end) of every span. As in conlleval, an inside tag without a beginning starts a span.

    >>> spans(["O", "B-artist", "I-artist", "B-artist", "I-track"])
    [('artist', 1, 3), ('artist', 3, 4), ('track', 4, 5)]
    """
    found: list[tuple[str, int, int]] = []
    for i, tag in enumerate(tags):
        if tag == OUTSIDE:
            continue
        prefix, name = tag[0], tag[2:]
        if prefix == "I" and found and found[-1][0] == name and found[-1][2] == i:
            found[-1] = (name, found[-1][1], i + 1)
        else:
            found.append((name, i, i + 1))
    return found


def span_f1(truths: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> float:
    """Return F1 over all spans. A span is correct if slot, start and end are equal. Without spans F1 is 1."""
    correct = expected = predicted = 0
    for truth, prediction in zip(truths, predictions, strict=True):
        true_spans, spans_found = set(spans(truth)), set(spans(prediction))
        correct += len(true_spans & spans_found)
        expected, predicted = expected + len(true_spans), predicted + len(spans_found)
    return 2 * correct / (expected + predicted) if expected + predicted else 1.0


def extract_slots(text: str, tags: Sequence[str]) -> tuple[Slot, ...]:
    """Return the slots of a text, spelled as in the text, from the tags of its tokens."""
    if not (found := spans(tags)):
        return ()
    tokens = [(n, word, i) for n, word in enumerate(text.split()) for i in range(len(tokenize(word)))]
    return tuple(Slot(name, _surface_form(tokens[start:end])) for name, start, end in found)


def _surface_form(tokens: Sequence[tuple[int, str, int]]) -> str:
    """Return the original spelling of tokens, each (index of the word, word, index of the token in the word)."""
    words = [list(group) for _, group in itertools.groupby(tokens, key=lambda token: token[0])]
    return " ".join(_part_of_word(group[0][1], group[0][2], group[-1][2] + 1) for group in words)


def _part_of_word(word: str, first: int, end: int) -> str:
    """Return the original spelling of tokens `first` to `end` of a word; folded if folding has changed the length."""
    tokens = tokenize(word)
    start = len("".join(tokens[:first]))
    part = tokens[first:end]
    spelling = word[start : start + len("".join(part))]
    if tokens == part:
        return word
    return spelling if tokenize(spelling) == part else "".join(part)
