"""The server: predictions, errors, batches, and the page."""

import asyncio
import json

import jax
import numpy as np
import pytest
from starlette.testclient import TestClient

from examples.intent import serve
from examples.intent.calibration import Calibration
from examples.intent.classifier import Classifier, Config, build, init, padded_batches
from examples.intent.slots import Tagger
from examples.intent.text import Vocabulary

TEXTS = ["what time is it ?", "turn on the lights", "几点了"]


@pytest.fixture(scope="module")
def classifier():
    vocabulary, labels = Vocabulary(("it", "time"), buckets=64, width=4), ("lights", "music", "time")
    config = Config(8, 8)
    tagger = Tagger(("O", "B-room", "I-room"))
    params = init(jax.random.key(0), build(config, len(vocabulary), len(labels)), tagger)
    return Classifier(config, vocabulary, labels, params, Calibration(0.5, threshold=100.0), tagger)


@pytest.fixture(scope="module")
def client(classifier):
    with TestClient(serve.application(classifier)) as client:
        yield client


def test_predictions_equal_those_in_process(client, classifier):
    predictions = client.post("/predict", json={"texts": TEXTS, "top_k": 2}).json()["predictions"]
    for text, prediction, expected in zip(TEXTS, predictions, classifier.predict(TEXTS), strict=True):
        assert prediction["intent"] == (expected.intent or "none")
        assert [best["intent"] for best in prediction["best"]] == [name for name, _ in expected.best[:2]]
        assert prediction["probability"] == pytest.approx(expected.probability, abs=1e-3)
        assert prediction["slots"] == [slot._asdict() for slot in expected.slots]
        assert client.post("/predict", json={"text": text}).json()["intent"] == (expected.intent or "none")


def test_a_threshold_in_the_request_rejects_with_a_reason(client):
    answer = client.post("/predict", json={"text": TEXTS[0], "threshold": 1.5}).json()
    assert answer["intent"] == "none"
    assert "the threshold is 1.5" in answer["reason"]


def test_the_last_prefix_has_the_prediction_of_the_text(client):
    steps = client.post("/prefixes", json={"text": TEXTS[0]}).json()["steps"]
    assert [step["token"] for step in steps] == ["what", "time", "is", "it", "?"]
    answer = client.post("/predict", json={"text": TEXTS[0]}).json()
    assert steps[-1]["intent"] == answer["intent"]
    assert steps[-1]["slots"] == answer["slots"]
    assert steps[-1]["probability"] == pytest.approx(answer["probability"], abs=1e-3)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "invalid JSON"),
        (b"{", "invalid JSON"),
        (b"\xff\xfe", "invalid JSON"),
        (b'{"text": "\xff"}', "invalid JSON"),
        (b'{"text": "\\ud800"}', "invalid JSON"),
        (b'{"text": "a", "threshold": NaN}', "invalid JSON"),
        (b"[" * 100_000, "Expected `object`, got `array`"),
        (b'{"a":' * 100_000, "unknown field"),
        (b'{"' + b"a" * 10_000 + b'": 1}', "unknown field"),
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "needs"),
        (b'{"text": 3}', "Expected `str`, got `int` - at `$.text`"),
        (b'{"text": "a", "texts": ["b"]}', "needs"),
        (b'{"texts": []}', "length >= 1"),
        (json.dumps({"texts": ["a"] * 257}).encode(), "length <= 256"),
        (b'{"texts": ["a", null]}', "$.texts[1]"),
        (b'{"text": "a", "top": 1}', "unknown field `top`"),
        (b'{"text": "a", "top_k": 0}', "$.top_k"),
        (b'{"text": "a", "top_k": true}', "$.top_k"),
        (b'{"text": "a", "threshold": "high"}', "$.threshold"),
        (b'{"text": "a", "threshold": -1}', "$.threshold"),
        (b'{"text": "a", "threshold": 18446744073709551616}', "$.threshold"),
        (b'{"text": "a", "threshold": 1' + b"0" * 5000 + b"}", "$.threshold"),
        (b'{"text": " "}', "1 to 2048 tokens"),
        (b'{"text": "\\u0000"}', "1 to 2048 tokens"),
        (json.dumps({"text": "word " * 2049}).encode(), "got 2049"),
    ],
    ids=range(26),
)
def test_bad_input_is_rejected_with_a_message(client, body, words):
    for path in ("/predict", "/prefixes"):
        response = client.post(path, content=body)
        assert response.status_code == 422
        assert words in response.json()["detail"]
        assert len(response.json()["detail"]) <= 300


def test_a_large_top_k_is_all_intents(client):
    body = b'{"text": "a", "top_k": 100000000000000000000000000000}'
    assert len(client.post("/predict", content=body).json()["best"]) == 3


def test_each_of_many_texts_has_a_prediction_or_an_error(client):
    fine, none, more, blank = client.post("/predict", json={"texts": [TEXTS[0], "", TEXTS[1], "\u200b"]}).json()[
        "predictions"
    ]
    assert fine == client.post("/predict", json={"text": TEXTS[0]}).json()
    assert more == client.post("/predict", json={"text": TEXTS[1]}).json()
    assert none["detail"].startswith("texts[1]: a text must have 1 to 2048 tokens")
    assert blank["detail"].startswith("texts[3]: a text must have 1 to 2048 tokens")
    (alone,) = client.post("/predict", json={"texts": [""]}).json()["predictions"]
    assert alone["detail"].startswith("texts[0]: ")


def test_a_few_long_texts_pad_no_large_batch(classifier):
    lengths = [1] * 200 + [2048, 129]
    sequences = [np.full((length, classifier.vocabulary.width), 1, np.int32) for length in lengths]
    shapes, seen = [], []
    for rows, ids, _ in padded_batches(sequences):
        shapes.append(ids.shape[:2])
        seen += rows
    assert sorted(seen) == list(range(len(lengths)))
    assert max(steps * rows for steps, rows in shapes) == 2048 * 16
    assert [ids.shape[:2] for _, ids, _ in padded_batches(sequences[:200])] == [(8, 256)]


def test_limits(client, monkeypatch):
    assert client.post("/predict", content=b"x" * (serve.MAX_BODY_BYTES + 1)).status_code == 413
    assert client.post("/predict", json={"texts": ["word " * 2000] * 17}).status_code == 413
    assert client.get("/predict").status_code == 405
    assert client.get("/nowhere").status_code == 404
    assert client.post("/").status_code == 405
    assert client.get("/health/", follow_redirects=False, headers={"host": "evil.example"}).status_code == 404
    monkeypatch.setattr(serve, "MAX_PENDING", 2)
    response = client.post("/predict", json={"texts": TEXTS})
    assert response.status_code == 429
    assert response.headers["retry-after"] == "1"
    assert client.post("/predict", json={"texts": TEXTS[:2]}).status_code == 200


def test_health_description_and_page(client):
    assert client.get("/health").json() == {"status": "ok", "intents": 3}
    description = client.get("/openapi.json").json()
    assert set(description["paths"]) == {"/predict", "/prefixes", "/health"}
    assert "prediction after each token" in client.get("/").text


def test_pending_requests_form_one_batch_and_raise_its_error():
    sizes = []

    def work(items):
        sizes.append(len(items))
        if "bad" in items:
            raise ValueError("bad")
        return np.array(items)

    async def go():
        batcher = serve.Batcher(work)
        worker = asyncio.create_task(batcher.run())
        first = [asyncio.create_task(batcher([f"a{i}", f"b{i}"])) for i in range(200)]
        results = await asyncio.gather(*first)
        assert [list(result) for result in results] == [[f"a{i}", f"b{i}"] for i in range(200)]
        with pytest.raises(ValueError, match="bad"):
            await batcher(["bad"])
        assert list(await batcher(["good"])) == ["good"]
        worker.cancel()

    asyncio.run(go())
    assert max(sizes) <= serve.MAX_TEXTS
    assert len(sizes) < 10
