"""Text to tokens, tokens to bags of ids. Any Unicode goes in; an unknown word is known by its character n-grams."""

from __future__ import annotations

import collections
import dataclasses
import functools
import unicodedata
import zlib
from collections.abc import Callable, Iterable

import numpy as np

MOST_CHARACTERS = 1 << 15
"""Of a text that can be answered: a longer one is not even cut into tokens."""

MOST_TOKENS = 2048
"""Of a text that can be answered."""

REMEMBERED = 40  # the longest token whose bag is kept, so that what is kept stays small
ZERO_WIDTH_JOINER = "\u200d"


def tokenize(text: str) -> list[str]:
    """Cut text into words, numbers, Chinese and Japanese characters, punctuation marks and emoji.

    Case and compatibility forms (NFKC) are folded away. A contraction is cut before its apostrophe.

    >>> tokenize("What time is it ?")
    ['what', 'time', 'is', 'it', '?']
    >>> tokenize("What's 5pm? 现在几点了")
    ['what', "'s", '5', 'pm', '?', '现', '在', '几', '点', '了']
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).replace("’", "'")
    tokens: list[str] = []
    before = "space"
    for here, following in zip(folded, folded[1:] + " ", strict=False):
        kind = _kind(here)
        if here == "'" and before == "letter" and _kind(following) == "letter":
            tokens.append(here)  # the letters that follow join it
            continue
        if kind == "mark" and before != "space":
            tokens[-1] += here
            before = "joiner" if here == ZERO_WIDTH_JOINER and before == "symbol" else before
            continue
        joins = before == "joiner" or (kind == before and kind in ("letter", "number", "flag"))
        if here == ZERO_WIDTH_JOINER:
            kind = "space"  # it has nothing to join
        if kind != "space" and joins:
            tokens[-1] += here
        elif kind != "space":
            tokens.append(here)
        before = kind
    return tokens


@functools.lru_cache(maxsize=65536)
def _kind(character: str) -> str:
    """Say what a character is: space, mark (joins what stands before it), number, letter, flag, ideograph, symbol."""
    code, category = ord(character), unicodedata.category(character)
    if category[0] == "M" or character == ZERO_WIDTH_JOINER or 0x1F3FB <= code <= 0x1F3FF:  # accents, skin tones
        return "mark"
    if category[0] == "Z" or category in ("Cc", "Cf", "Cs"):
        return "space"
    if category[0] == "N":
        return "number"
    if category[0] == "L":
        alone = 0x3040 <= code <= 0x30FF or 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or code >= 0x20000
        return "ideograph" if alone else "letter"
    return "flag" if 0x1F1E6 <= code <= 0x1F1FF else "symbol"


def _telling(tokens: list[str]) -> list[str]:
    """Return the tokens that tell one intent from another: not punctuation, unless there is nothing else."""
    return [token for token in tokens if any(unicodedata.category(c)[0] != "P" for c in token)] or tokens


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What ids stand for: 0 nothing, 1 to W a known word, then a bucket of hashed n-grams.

    Args:
        words: the known words.
        buckets: how many ids the n-grams share.
        shortest: the least n; a word stands between the marks < and >.
        longest: the greatest n.
        width: N, how many ids a token has at most; a long word keeps its shorter n-grams.
    """

    words: tuple[str, ...]
    buckets: int = 12288
    shortest: int = 3
    longest: int = 4
    width: int = 16

    @classmethod
    def of(cls, texts: Iterable[str], at_least: int = 1, **fields: int) -> Vocabulary:
        """Know every word that stands in `texts` at least so many times; punctuation only where it is a whole text."""
        counts = collections.Counter(token for text in texts for token in _telling(tokenize(text)))
        return cls(tuple(sorted(word for word, count in counts.items() if count >= at_least)), **fields)

    def __len__(self) -> int:
        return 1 + len(self.words) + self.buckets

    @functools.cached_property
    def _number(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words, start=1)}

    def bag(self, token: str) -> list[int]:
        """Give the ids of a token, N of them: the word's own first (0 if unknown), then its n-grams, then 0."""
        return self._remembered(token) if len(token) <= REMEMBERED else self._bag(token)

    @functools.cached_property
    def _remembered(self) -> Callable[[str], list[int]]:
        return functools.lru_cache(maxsize=65536)(self._bag)

    def _bag(self, token: str) -> list[int]:
        marked = f"<{token}>"
        lengths = range(self.shortest, min(self.longest, len(marked)) + 1)
        grams: dict[int, None] = {}
        for span in (marked[i : i + n] for n in lengths for i in range(len(marked) - n + 1)):
            if len(grams) == self.width - 1:
                break
            grams[1 + len(self.words) + zlib.crc32(span.encode()) % self.buckets] = None
        ids = [self._number.get(token, 0), *grams]
        return ids + [0] * (self.width - len(ids))

    def ids(self, text: str) -> np.ndarray:
        """Give (T, N) int32, a row a token; T is 0 where nothing but spaces stands."""
        return np.array([self.bag(token) for token in tokenize(text)], np.int32).reshape(-1, self.width)
