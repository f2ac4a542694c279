"""Slots: what an utterance says besides its intent. Spans of words, tagged in BIO by a CRF over every step's output."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.model import ReadoutParams, init_readout, readout

from .crf import ChainParams, likeliest, losses
from .formats import Example
from .text import tokenize

NEVER = -1e4  # the score of what cannot be: an inside tag that continues nothing
OUTSIDE = "O"


class Slot(NamedTuple):
    """A part of a text, and what it stands for."""

    name: str
    value: str


class TaggerParams(NamedTuple):
    """The params of a tagger: what each step's output says of its tag, and what a tag says of the next."""

    readout: ReadoutParams
    chain: ChainParams


@dataclasses.dataclass(frozen=True)
class Tagger:
    """A tag for every token.

    Args:
        tags: the names of the K tags: O for none, B-x where a slot x begins, I-x where it goes on.
    """

    tags: tuple[str, ...]

    @classmethod
    def of(cls, examples: Iterable[Example]) -> Tagger | None:
        """Know every slot of the examples; None where there are none."""
        names = sorted({tag[2:] for example in examples for tag in example.tags if tag != OUTSIDE})
        return cls((OUTSIDE, *(f"{mark}-{name}" for name in names for mark in "BI"))) if names else None

    def init(self, key: jax.Array, features: int) -> TaggerParams:
        """Draw the params for outputs of so many features."""
        count = len(self.tags)
        chain = ChainParams(jnp.zeros(count), jnp.zeros((count, count)))
        return TaggerParams(init_readout(key, features, count), chain)

    def loss(self, params: TaggerParams, ys: jax.Array, tags: jax.Array, lengths: jax.Array) -> jax.Array:
        """Give the mean negative log-likelihood a token: outputs (T, B, H), tags (T, B), lengths (B,)."""
        found = losses(self._chain(params), readout(params.readout, ys), tags, lengths)
        return jnp.where(lengths > 0, found, 0).sum() / jnp.maximum(lengths.sum(), 1)

    def path(self, params: TaggerParams, ys: jax.Array, lengths: jax.Array) -> jax.Array:
        """Give the likeliest tags (T, B) for outputs (T, B, H)."""
        return likeliest(self._chain(params), readout(params.readout, ys), lengths)

    def numbers(self, example: Example) -> np.ndarray:
        """Give the number of each token's tag, (T,); a slot that is not known is none."""
        number = {tag: i for i, tag in enumerate(self.tags)}
        return np.array([number.get(tag, 0) for tag in spread(example)], np.int32)

    def _chain(self, params: TaggerParams) -> ChainParams:
        """Rule out an inside tag behind anything but its own slot."""
        inside = np.array([tag[0] == "I" for tag in self.tags])
        names = np.array([tag[2:] for tag in self.tags])
        allowed = ~inside | (names[:, None] == names)
        return ChainParams(jnp.where(inside, NEVER, params.chain.first), jnp.where(allowed, params.chain.follow, NEVER))


def spread(example: Example) -> list[str]:
    """Give the tags of the tokens from those of the words: a word's own, and inside it the slot goes on."""
    found: list[str] = []
    for word, tag in zip(example.text.split(), example.tags, strict=True):
        following = OUTSIDE if tag == OUTSIDE else f"I-{tag[2:]}"
        found += [following if i else tag for i in range(len(tokenize(word)))]
    return found


def gathered(text: str, tags: Sequence[str]) -> list[str]:
    """Give the tags of the words from those of the tokens: of a word's first."""
    counts = [len(tokenize(word)) for word in text.split()]
    starts = itertools.accumulate(counts, initial=0)
    return [tags[start] if count else OUTSIDE for count, start in zip(counts, starts, strict=False)]


def spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Give (slot, first, behind the last) of every span, as conlleval reads tags: an inside tag alone begins one too.

    >>> spans(["O", "B-artist", "I-artist", "B-artist", "I-track"])
    [('artist', 1, 3), ('artist', 3, 4), ('track', 4, 5)]
    """
    found: list[tuple[str, int, int]] = []
    for i, tag in enumerate(tags):
        if tag == OUTSIDE:
            continue
        mark, name = tag[0], tag[2:]
        if mark == "I" and found and found[-1][0] == name and found[-1][2] == i:
            found[-1] = (name, found[-1][1], i + 1)
        else:
            found.append((name, i, i + 1))
    return found


def span_f1(truths: Sequence[Sequence[str]], answers: Sequence[Sequence[str]]) -> float:
    """Give F1 over all spans: right is what has the same slot, beginning and end. 1 where there are none."""
    right = asked = given = 0
    for truth, answer in zip(truths, answers, strict=True):
        wanted, found = set(spans(truth)), set(spans(answer))
        right, asked, given = right + len(wanted & found), asked + len(wanted), given + len(found)
    return 2 * right / (asked + given) if asked + given else 1.0


def fill(text: str, tags: Sequence[str]) -> tuple[Slot, ...]:
    """Give the slots of a text, as it is written there, from the tags of its tokens."""
    if not (found := spans(tags)):
        return ()
    places = [(n, word, i) for n, word in enumerate(text.split()) for i in range(len(tokenize(word)))]
    return tuple(Slot(name, _written(places[first:end])) for name, first, end in found)


def _written(places: Sequence[tuple[int, str, int]]) -> str:
    """Give what tokens say, each the i-th of the n-th word: a space between words, none within."""
    words = [list(group) for _, group in itertools.groupby(places, key=lambda place: place[0])]
    return " ".join(_part(group[0][1], group[0][2], group[-1][2] + 1) for group in words)


def _part(word: str, first: int, end: int) -> str:
    """Give some tokens of a word as they are written, or as they are read where folding has changed their length."""
    tokens = tokenize(word)
    start = len("".join(tokens[:first]))
    wanted = tokens[first:end]
    written = word[start : start + len("".join(wanted))]
    if tokens == wanted:
        return word
    return written if tokenize(written) == wanted else "".join(wanted)
