"""The first example: its tokens, and that it learns from a part of the bundled corpus."""

import pytest

from examples import first_intent
from examples.first_intent import read

INTENTS = ["get_date", "get_time", "get_weather", "set_alarm"]
TEXT = "what time is it ?"


def part(split):
    """Return the rows of a split that have one of four intents."""
    return [row for row in read(split) if row[1] in INTENTS]


@pytest.fixture(scope="module")
def classifier():
    return first_intent.train(part("train"), part("valid"), epochs=6)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("What time is it ?", ["what", "time", "is", "it", "?"]), ("what's 现在", ["what's", "现", "在"]), (" ", [])],
)
def test_tokens(text, tokens):
    assert first_intent.tokenize(text) == tokens


@pytest.mark.parametrize(("split", "count"), [("train", 2660), ("valid", 392), ("test", 760)])
def test_every_row_is_a_text_and_an_intent(split, count):
    rows = read(split)
    assert len(rows) == count
    assert all(len(row) == 2 and all(row) for row in rows)


def test_a_short_training_names_the_intent(classifier):
    assert classifier.intents == INTENTS
    assert classifier.accuracy(part("test")) > 0.75
    ((intent, probability),) = classifier.predict([first_intent.tokenize(TEXT)])
    assert intent == "get_time"
    assert probability > 0.5


def test_a_prediction_does_not_depend_on_the_texts_next_to_it(classifier):
    tokens = first_intent.tokenize(TEXT)
    prefixes = [tokens[:end] for end in range(1, len(tokens) + 1)]
    for prefix, (intent, probability) in zip(prefixes, classifier.predict(prefixes), strict=True):
        ((alone, same),) = classifier.predict([prefix])
        assert alone == intent
        assert same == pytest.approx(probability, abs=1e-5)


def test_the_program_prints_the_accuracy_and_a_prediction_after_each_token(classifier, monkeypatch, capsys):
    monkeypatch.setattr(first_intent, "train", lambda rows, valid: classifier)
    monkeypatch.setattr(first_intent, "read", part)
    first_intent.main(TEXT)
    accuracy, *steps = capsys.readouterr().out.splitlines()
    assert accuracy == f"test accuracy {classifier.accuracy(part('test')):.1%}"
    assert [step.split()[0] for step in steps] == first_intent.tokenize(TEXT)
    assert steps[-1].split()[1] == "get_time"
