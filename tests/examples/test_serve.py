"""The server: answers, refusals, batches, and the page."""

import asyncio
import json

import jax
import numpy as np
import pytest
from starlette.testclient import TestClient

from examples.intent import serve
from examples.intent.calibration import Calibration
from examples.intent.classifier import Classifier, Config, build, init
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


def test_one_text_and_many_are_answered_as_in_process(client, classifier):
    got = client.post("/predict", json={"texts": TEXTS, "top_k": 2}).json()["answers"]
    for text, answer, want in zip(TEXTS, got, classifier.answers(TEXTS), strict=True):
        assert answer["intent"] == (want.intent or "none")
        assert [best["intent"] for best in answer["best"]] == [name for name, _ in want.best[:2]]
        assert answer["probability"] == pytest.approx(want.probability, abs=1e-3)
        assert answer["slots"] == [slot._asdict() for slot in want.slots]
        assert client.post("/predict", json={"text": text}).json()["intent"] == (want.intent or "none")


def test_a_threshold_of_ones_own_answers_none_and_says_why(client):
    answer = client.post("/predict", json={"text": TEXTS[0], "threshold": 1.5}).json()
    assert answer["intent"] == "none"
    assert "where 1.5 are allowed" in answer["reason"]


def test_unfolding_ends_in_the_prediction(client):
    steps = client.post("/unfold", json={"text": TEXTS[0]}).json()["steps"]
    assert [step["token"] for step in steps] == ["what", "time", "is", "it", "?"]
    answer = client.post("/predict", json={"text": TEXTS[0]}).json()
    assert steps[-1]["intent"] == answer["intent"]
    assert steps[-1]["slots"] == answer["slots"]
    assert steps[-1]["probability"] == pytest.approx(answer["probability"], abs=1e-3)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "needs"),
        (b'{"text": 3}', "must be a string"),
        (b'{"text": "a", "texts": ["b"]}', "needs"),
        (b'{"texts": []}', "1 to 256"),
        (b'{"texts": ["a", null]}', "list of strings"),
        (b'{"text": "a", "top": 1}', "unknown fields"),
        (b'{"text": "a", "top_k": 0}', "top_k"),
        (b'{"text": "a", "top_k": true}', "top_k"),
        (b'{"text": "a", "threshold": "high"}', "threshold"),
        (b'{"text": "a", "threshold": NaN}', "threshold"),
        (b'{"text": " "}', "1 to 2048 tokens"),
        (b'{"text": "\\u0000"}', "1 to 2048 tokens"),
        (b'{"text": "\\ud800"}', "1 to 2048 tokens"),
        (b'{"texts": ["fine", ""]}', "texts[1]"),
        (json.dumps({"text": "word " * 2049}).encode(), "got 2049"),
    ],
    ids=range(19),
)
def test_bad_input_is_refused_with_a_sentence(client, body, words):
    got = client.post("/predict", content=body)
    assert got.status_code == 422
    assert words in got.json()["detail"]


def test_limits(client, monkeypatch):
    assert client.post("/predict", content=b"x" * (serve.LARGEST + 1)).status_code == 413
    assert client.get("/predict").status_code == 405
    assert client.get("/nowhere").status_code == 404
    monkeypatch.setattr(serve, "MOST_WAITING", 2)
    got = client.post("/predict", json={"texts": TEXTS})
    assert got.status_code == 429
    assert got.headers["retry-after"] == "1"
    assert client.post("/predict", json={"texts": TEXTS[:2]}).status_code == 200


def test_health_description_and_page(client):
    assert client.get("/health").json() == {"status": "ok", "intents": 3}
    description = client.get("/openapi.json").json()
    assert set(description["paths"]) == {"/predict", "/unfold", "/health"}
    assert "token by token" in client.get("/").text


def test_what_waits_becomes_one_batch_and_a_failure_reaches_who_waits():
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
        got = await asyncio.gather(*first)
        assert [list(g) for g in got] == [[f"a{i}", f"b{i}"] for i in range(200)]
        with pytest.raises(ValueError, match="bad"):
            await batcher(["bad"])
        assert list(await batcher(["good"])) == ["good"]
        worker.cancel()

    asyncio.run(go())
    assert max(sizes) <= serve.MOST_TEXTS
    assert len(sizes) < 10
