"""Whatever the text, one answer or one refusal. `JAXRNN_FUZZ=200000` tries so many; by default a few."""

import os
import random
import time

from examples.intent.classifier import with_slots
from examples.intent.data import load
from examples.intent.errors import UserError
from examples.intent.text import tokenize

from .test_serve import classifier  # noqa: F401

COUNT = int(os.environ.get("JAXRNN_FUZZ", "2000"))
PIECES = ["", " ", "\x00", "\ud800", "\udfff\ud800", "\u202e\u05d0\u05d1", "\u0301" * 40, "e\u0301\u0323", "\u200d"]
PIECES += [
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "🇩🇪🇫",
    "\ufeff",
    "\ufdfa" * 9,
    "现在几点了",
    "がぎ",
    "'s",
    "''",
    "a" * 3000,
    "\n\r\t",
    "٣٤",
]
PIECES += ["\U0010ffff", "<script>", "%s{}"]


def mutated(draw, texts):
    """A text made of pieces of others, characters deleted, doubled and replaced by any of Unicode's."""
    letters = list(draw.choice(texts) + draw.choice(PIECES) + draw.choice(texts)[: draw.randrange(20)])
    for _ in range(draw.randrange(6)):
        place = draw.randrange(len(letters) + 1)
        letters[place : place + draw.randrange(3)] = draw.choice(
            [[], letters[:place][-4:], [chr(draw.randrange(0x110000))], [draw.choice(PIECES)]]
        )
    return "".join(letters)


def test_every_text_has_one_answer_or_one_refusal(classifier):  # noqa: F811
    draw = random.Random(0)
    texts = [example.text for example in load().train[:500]]
    tried = [*PIECES, "x" * 10_000_000, "词 " * 5_000_000, *(mutated(draw, texts) for _ in range(COUNT))]
    encoded, known, refused, slowest = [], [], 0, 0.0
    for text in tried:
        began = time.perf_counter()
        try:
            encoded.append(classifier.encode(text))
            known.append(text)
        except UserError:
            refused += 1
        slowest = max(slowest, time.perf_counter() - began)
    logits, tags = classifier.hear(encoded)
    answers = with_slots(classifier.name(logits), known, tags)
    assert all([t for word in text.split() for t in tokenize(word)] == tokenize(text) for text in known)
    assert len(answers) + refused == len(tried)
    assert all((answer.intent is None) == (answer.reason is not None) for answer in answers)
    assert all(0 <= answer.probability <= 1 for answer in answers)
    print(f"{len(tried)} texts, {refused} refused, the slowest took {1e3 * slowest:.1f} ms")
