"""Fuzz tests: every text, bundle and request is answered, or rejected with an error.

`JAXRNN_FUZZ=200000` tries 200,000 texts, 10,000 bundles and 20,000 requests. The default is 2,000 texts.
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


def random_text(draw, texts):
    """Return a text of pieces of others, with characters deleted, repeated and replaced by any Unicode character."""
    letters = list(draw.choice(texts) + draw.choice(PIECES) + draw.choice(texts)[: draw.randrange(20)])
    for _ in range(draw.randrange(6)):
        index = draw.randrange(len(letters) + 1)
        letters[index : index + draw.randrange(3)] = draw.choice(
            [[], letters[:index][-4:], [chr(draw.randrange(0x110000))], [draw.choice(PIECES)]]
        )
    return "".join(letters)


def test_every_text_is_predicted_or_rejected(classifier):  # noqa: F811
    draw = random.Random(0)
    texts = [example.text for example in load().train[:500]]
    tried = [*PIECES, "x" * 10_000_000, "词 " * 5_000_000, *(random_text(draw, texts) for _ in range(COUNT))]
    encoded, known, errors, slowest = [], [], 0, 0.0
    for text in tried:
        start = time.perf_counter()
        try:
            encoded.append(classifier.encode(text))
            known.append(text)
        except UserError:
            errors += 1
        slowest = max(slowest, time.perf_counter() - start)
    logits, tags = classifier.forward(encoded)
    predictions = with_slots(classifier.decode(logits), known, tags)
    assert all([t for word in text.split() for t in tokenize(word)] == tokenize(text) for text in known)
    assert len(predictions) + errors == len(tried)
    assert all((p.intent is None) == (p.reason is not None) for p in predictions)
    assert all(0 <= p.probability <= 1 for p in predictions)
    print(f"{len(tried)} texts, {errors} errors, maximum {1e3 * slowest:.1f} ms")


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


def mutate_json(draw, document):
    """Return a JSON document with one value replaced, removed, repeated or added."""
    root = inner = parent = [document]
    while isinstance(inner, dict | list) and inner and draw.random() < 0.9:
        parent, key = inner, draw.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        inner = parent[key]
    kind = draw.randrange(8)
    if parent is root or kind > 1:
        parent[key if parent is not root else 0] = "RAW" if kind == 2 else copy.deepcopy(draw.choice(HOSTILE))
    elif kind == 0:
        del parent[key]
    elif isinstance(parent, list):
        parent.append(inner)
    else:
        parent[f"{key}x"] = inner
    return json.dumps(root[0]).encode().replace(b'"RAW"', draw.choice(RAW))


def mutate_weights(draw, content):
    """Return weights with an array of another shape, dtype or name, or with extreme numbers."""
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


def mutate_bytes(draw, content):
    """Return a file with bytes changed, removed or inserted."""
    content = bytearray(content)
    for _ in range(draw.randrange(1, 4)):
        index, size = draw.randrange(len(content) + 1), draw.choice([0, 1, 1, 8])
        content[index : index + size] = draw.choice([b"", draw.randbytes(size), b"0", draw.choice(RAW)[:20]])
    return bytes(content[: draw.randrange(len(content) + 1)] if draw.random() < 0.1 else content)


def mutate_bundle(draw, contents):
    """Return the files of a bundle with one changed, and a manifest with matching checksums."""
    contents = dict(contents)
    name = draw.choice([*bundle.FILES, "manifest.json"])
    if draw.random() < 0.2:
        contents[name] = mutate_bytes(draw, contents[name])
    elif name == "weights.safetensors":
        contents[name] = mutate_weights(draw, contents[name])
    else:
        contents[name] = mutate_json(draw, json.loads(contents[name]))
    if name != "manifest.json":
        sums = {name: hashlib.sha256(contents[name]).hexdigest() for name in bundle.FILES}
        contents["manifest.json"] = json.dumps({"format": bundle.FORMAT, "sha256": sums}).encode()
    return contents


def test_every_mutated_bundle_is_loaded_or_rejected(classifier, tmp_path):  # noqa: F811
    bundle.save(tmp_path, classifier, {"seed": 0, "history": [{"loss": 1.5}]})
    valid = {name: (tmp_path / name).read_bytes() for name in [*bundle.FILES, "manifest.json"]}
    draw, errors = random.Random(0), 0
    count = COUNT // 20
    for _ in range(count):
        for name, content in mutate_bundle(draw, valid).items():
            (tmp_path / name).write_bytes(content)
        try:
            loaded, _ = bundle.load(tmp_path)
        except UserError as error:
            errors += 1
            message = str(error).replace(str(tmp_path), "bundle")
            assert len(message) < 300
            assert "version" not in message or "a bundle of format" in message
            continue
        logits = loaded.logits(["what time is it ?", "x"])
        assert np.isfinite(loaded.calibration.probabilities(logits)).all()
        assert all(0 <= p.probability <= 1 for p in loaded.predict(["turn on the lights"]))
    assert errors > count // 2
    print(f"{count} mutated bundles, {errors} errors")


def random_request(draw, texts):
    """Return a method, a path, headers and a body, most of them malformed."""
    document = draw.choice([{"text": draw.choice(texts)}, {"texts": draw.choices(texts, k=draw.randrange(4))}])
    document |= draw.choice([{}, {"top_k": draw.choice(HOSTILE)}, {"threshold": draw.choice(HOSTILE)}, {"top_k": 2}])
    body = mutate_json(draw, document) if draw.random() < 0.5 else json.dumps(document).encode()
    body = mutate_bytes(draw, body) if draw.random() < 0.3 else body
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


def test_no_request_has_status_500(client):  # noqa: F811
    draw = random.Random(0)
    texts = [*PIECES[:8], *["what time is it ?", "几点了"] * 6, "word " * 70]
    seen = collections.Counter()
    for _ in range(COUNT // 10):
        method, path, headers, body = random_request(draw, texts)
        response = client.request(method, path, headers=headers, content=body, follow_redirects=False)
        assert response.status_code in (200, 404, 405, 413, 422), (method, path, headers, body)
        seen[response.status_code] += 1
    print(f"requests by status: {dict(seen)}")
    assert min(seen[200], seen[422]) > COUNT // 200
