"""Whatever a stranger sends, a text, a bundle or a request: an answer or a refusal.

`JAXRNN_FUZZ=200000` tries so many texts, 10,000 bundles and 20,000 requests; by default it tries a few.
"""

import collections
import copy
import hashlib
import json
import os
import random
import time

import numpy as np
import safetensors.numpy

from examples.intent import bundle
from examples.intent.classifier import with_slots
from examples.intent.data import load
from examples.intent.errors import UserError
from examples.intent.text import tokenize

from .test_serve import classifier, client  # noqa: F401

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
    logits, tags = classifier.forward(encoded)
    answers = with_slots(classifier.name(logits), known, tags)
    assert all([t for word in text.split() for t in tokenize(word)] == tokenize(text) for text in known)
    assert len(answers) + refused == len(tried)
    assert all((answer.intent is None) == (answer.reason is not None) for answer in answers)
    assert all(0 <= answer.probability <= 1 for answer in answers)
    print(f"{len(tried)} texts, {refused} refused, the slowest took {1e3 * slowest:.1f} ms")


HOSTILE = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**64,
    10**400,
    -0.0,
    0.5,
    1e-300,
    1e308,
    "",
    "x",
    "\x1b[2J",
    [],
    [[]],
    {},
    {"a": 1},
]
RAW = [
    b"NaN",
    b"1e999",
    b"-Infinity",
    b'"\\ud800"',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"\xff",
    b"",
    b"18446744073709551616",
]


def changed(draw, document):
    """A JSON document with one value replaced, taken away, doubled or added."""
    root = inner = place = [document]
    while isinstance(inner, dict | list) and inner and draw.random() < 0.9:
        place, key = inner, draw.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        inner = place[key]
    kind = draw.randrange(8)
    if place is root or kind > 1:
        place[key if place is not root else 0] = "RAW" if kind == 2 else copy.deepcopy(draw.choice(HOSTILE))
    elif kind == 0:
        del place[key]
    elif isinstance(place, list):
        place.append(inner)
    else:
        place[f"{key}x"] = inner
    return json.dumps(root[0]).encode().replace(b'"RAW"', draw.choice(RAW))


def rewired(draw, content):
    """Weights with an array that is not what the model needs, or whose numbers are not."""
    arrays = {name: array.copy() for name, array in safetensors.numpy.load(content).items()}
    name = draw.choice(sorted(arrays))
    array = arrays[name]
    kind = draw.randrange(6)
    if kind == 0:
        array.flat[draw.randrange(array.size)] = draw.choice([np.nan, np.inf, -np.inf, 65504, -65504, 6e-8])
    elif kind == 1:
        array[...] = draw.choice([65504, -65504, 0])
    elif kind == 2:
        arrays[name] = draw.choice([array.T, array[:0], array[..., None], np.zeros(()), np.zeros((0, 2**40))])
    elif kind == 3:
        arrays[name] = array.astype(draw.choice([np.float64, np.float32, np.int32, np.bool_]))
    elif kind == 4:
        del arrays[name]
    else:
        arrays[name + "x"] = array
    return safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def damaged(draw, content):
    """A file with bytes changed, taken away or put in between."""
    content = bytearray(content)
    for _ in range(draw.randrange(1, 4)):
        place, size = draw.randrange(len(content) + 1), draw.choice([0, 1, 1, 8])
        content[place : place + size] = draw.choice([b"", draw.randbytes(size), b"0", draw.choice(RAW)[:20]])
    return bytes(content[: draw.randrange(len(content) + 1)] if draw.random() < 0.1 else content)


def mutate(draw, contents):
    """The files of a bundle with one changed, and a manifest that fits."""
    contents = dict(contents)
    name = draw.choice([*bundle.FILES, "manifest.json"])
    if draw.random() < 0.2:
        contents[name] = damaged(draw, contents[name])
    elif name == "weights.safetensors":
        contents[name] = rewired(draw, contents[name])
    else:
        contents[name] = changed(draw, json.loads(contents[name]))
    if name != "manifest.json":
        sums = {name: hashlib.sha256(contents[name]).hexdigest() for name in bundle.FILES}
        contents["manifest.json"] = json.dumps({"format": bundle.FORMAT, "sha256": sums}).encode()
    return contents


def test_every_mutated_bundle_answers_or_is_refused(classifier, tmp_path):  # noqa: F811
    bundle.save(tmp_path, classifier, {"seed": 0, "history": [{"loss": 1.5}]})
    whole = {name: (tmp_path / name).read_bytes() for name in [*bundle.FILES, "manifest.json"]}
    draw, refused = random.Random(0), 0
    count = COUNT // 20
    for _ in range(count):
        for name, content in mutate(draw, whole).items():
            (tmp_path / name).write_bytes(content)
        try:
            loaded, _ = bundle.load(tmp_path)
        except UserError as reason:
            refused += 1
            message = str(reason).replace(str(tmp_path), "bundle")
            assert len(message) < 300
            assert "version" not in message or "a bundle of format" in message
            continue
        logits = loaded.logits(["what time is it ?", "x"])
        assert np.isfinite(loaded.calibration.probabilities(logits)).all()
        assert all(0 <= answer.probability <= 1 for answer in loaded.answers(["turn on the lights"]))
    assert refused > count // 2
    print(f"{count} mutated bundles, {refused} refused")


def request(draw, texts):
    """A method, a path, headers and a body, most of them a little wrong."""
    document = draw.choice([{"text": draw.choice(texts)}, {"texts": draw.choices(texts, k=draw.randrange(4))}])
    document |= draw.choice([{}, {"top_k": draw.choice(HOSTILE)}, {"threshold": draw.choice(HOSTILE)}, {"top_k": 2}])
    body = changed(draw, document) if draw.random() < 0.5 else json.dumps(document).encode()
    body = damaged(draw, body) if draw.random() < 0.3 else body
    method = draw.choice(["POST"] * 8 + ["GET", "PUT", "HEAD", "OPTIONS", "BREW"])
    path = draw.choice(
        ["/predict"] * 5 + ["/prefixes"] * 5 + ["/", "/health", "/predict/", "//evil", "/%00", "/%ff", "/?" + "a" * 99]
    )
    headers = [
        {},
        {"host": "evil"},
        {"content-type": b"text/\xff"},
        {"range": "bytes=0-,-1"},
        {"content-encoding": "gzip"},
    ]
    return method, path, draw.choice(headers), body


def test_no_request_is_answered_by_500(client):  # noqa: F811
    draw = random.Random(0)
    texts = [*PIECES[:8], *["what time is it ?", "几点了"] * 6, "word " * 70]
    seen = collections.Counter()
    for _ in range(COUNT // 10):
        method, path, headers, body = request(draw, texts)
        got = client.request(method, path, headers=headers, content=body, follow_redirects=False)
        assert got.status_code in (200, 404, 405, 413, 422), (method, path, headers, body)
        seen[got.status_code] += 1
    print(f"requests by status: {dict(seen)}")
    assert min(seen[200], seen[422]) > COUNT // 200
