"""Text to tokens, and tokens to bags of ids: a word id and hashed character n-grams, which unknown words have too."""

from __future__ import annotations

import collections
import dataclasses
import functools
import unicodedata
import zlib
from collections.abc import Callable, Iterable

import numpy as np

MAX_CHARACTERS = 1 << 15
"""The maximum length of a text. A longer one is rejected before it is tokenized."""

MAX_TOKENS = 2048
"""The maximum number of tokens of a text."""

MAX_CACHED_LENGTH = 40  # bags of longer tokens are not cached, which bounds the memory of the cache
ZERO_WIDTH_JOINER = "\u200d"


def tokenize(text: str) -> list[str]:
    """Split text into words, numbers, Chinese and Japanese characters, punctuation and emoji.

    Case and compatibility forms (NFKC) are folded. A contraction is split before its apostrophe.

    >>> tokenize("What time is it ?")
    ['what', 'time', 'is', 'it', '?']
    >>> tokenize("What's 5pm? 现在几点了")
    ['what', "'s", '5', 'pm', '?', '现', '在', '几', '点', '了']
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).replace("’", "'")
    tokens: list[str] = []
    previous = "space"
    for character, following in zip(folded, folded[1:] + " ", strict=False):
        kind = _kind(character)
        if character == "'" and previous == "letter" and _kind(following) == "letter":
            tokens.append(character)  # the next letters continue this token
            continue
        if kind == "combining" and previous != "space":
            tokens[-1] += character
            previous = "joiner" if character == ZERO_WIDTH_JOINER and previous == "symbol" else previous
            continue
        joins = previous == "joiner" or (kind == previous and kind in ("letter", "number", "flag"))
        if character == ZERO_WIDTH_JOINER:
            kind = "space"  # there is no token to join
        if kind != "space" and joins:
            tokens[-1] += character
        elif kind != "space":
            tokens.append(character)
        previous = kind
    return tokens


@functools.lru_cache(maxsize=65536)
def _kind(character: str) -> str:
    """Return the kind of a character: space, combining, number, letter, ideograph, flag or symbol."""
    code, category = ord(character), unicodedata.category(character)
    if category[0] == "M" or character == ZERO_WIDTH_JOINER or 0x1F3FB <= code <= 0x1F3FF:  # accents, skin tones
        return "combining"
    if category[0] == "Z" or category in ("Cc", "Cf", "Cs"):
        return "space"
    if category[0] == "N":
        return "number"
    if category[0] == "L":
        is_cjk = 0x3040 <= code <= 0x30FF or 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or code >= 0x20000
        return "ideograph" if is_cjk else "letter"
    return "flag" if 0x1F1E6 <= code <= 0x1F1FF else "symbol"


def _content_tokens(tokens: list[str]) -> list[str]:
    """Return the tokens that are not punctuation, or all tokens if all are punctuation."""
    return [token for token in tokens if any(unicodedata.category(c)[0] != "P" for c in token)] or tokens


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The meaning of ids: 0 is padding, 1 to W are known words, larger ids are buckets of hashed n-grams.

    Args:
        words: the W known words.
        buckets: number of ids that the n-grams share.
        min_n: the smallest n. A word is enclosed in < and > before it is split into n-grams.
        max_n: the largest n.
        width: N, the number of ids per token; a long word has its shorter n-grams only.
    """

    words: tuple[str, ...]
    buckets: int = 12288
    min_n: int = 3
    max_n: int = 4
    width: int = 16

    @classmethod
    def of(cls, texts: Iterable[str], min_count: int = 1, **fields: int) -> Vocabulary:
        """Build a vocabulary of the words that occur at least `min_count` times.

        Punctuation counts only in texts of nothing else.
        """
        counts = collections.Counter(token for text in texts for token in _content_tokens(tokenize(text)))
        return cls(tuple(sorted(word for word, count in counts.items() if count >= min_count)), **fields)

    def __len__(self) -> int:
        return 1 + len(self.words) + self.buckets

    @functools.cached_property
    def _id_of(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words, start=1)}

    def bag(self, token: str) -> list[int]:
        """Return the N ids of a token: its word first (0 if unknown), then its n-grams, then zeros."""
        return self._cached_bag(token) if len(token) <= MAX_CACHED_LENGTH else self._bag(token)

    @functools.cached_property
    def _cached_bag(self) -> Callable[[str], list[int]]:
        return functools.lru_cache(maxsize=65536)(self._bag)

    def _bag(self, token: str) -> list[int]:
        enclosed = f"<{token}>"
        sizes = range(self.min_n, min(self.max_n, len(enclosed)) + 1)
        buckets: dict[int, None] = {}
        for gram in (enclosed[i : i + n] for n in sizes for i in range(len(enclosed) - n + 1)):
            if len(buckets) == self.width - 1:
                break
            buckets[1 + len(self.words) + zlib.crc32(gram.encode()) % self.buckets] = None
        ids = [self._id_of.get(token, 0), *buckets]
        return ids + [0] * (self.width - len(ids))

    def ids(self, text: str) -> np.ndarray:
        """Return the ids (T, N), int32, of the tokens of a text. T is 0 for a text of spaces."""
        return np.array([self.bag(token) for token in tokenize(text)], np.int32).reshape(-1, self.width)
