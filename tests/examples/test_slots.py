"""Slots: the random field compared with brute force, spans, tags, and a short training."""

import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest

from examples.intent import bundle, data
from examples.intent.__main__ import main
from examples.intent.classifier import Config
from examples.intent.crf import ChainParams, most_probable_tags, negative_log_likelihood
from examples.intent.errors import UserError
from examples.intent.formats import Example
from examples.intent.slots import Slot, Tagger, extract_slots, span_f1, spans, token_tags, word_tags
from examples.intent.train import Recipe, train

SMALL = Config(16, 16, 0.1, 0.1)
TINY = Recipe(steps=100, min_epochs=20, max_epochs=20, batch_size=8, groups=1, learning_rate=3e-2, word_dropout=0.1)


def test_the_random_field_equals_an_enumeration_of_all_paths():
    draw = np.random.default_rng(0)
    steps, rows, count, lengths = 5, 3, 4, np.array([5, 3, 1])
    initial, transitions, emissions = (draw.normal(size=s) for s in ((count,), (count, count), (steps, rows, count)))
    tags = draw.integers(0, count, (steps, rows))
    params = ChainParams(jnp.array(initial, jnp.float32), jnp.array(transitions, jnp.float32))
    field = jnp.array(emissions, jnp.float32), jnp.array(lengths)
    found = negative_log_likelihood(params, field[0], jnp.array(tags), field[1])
    best = most_probable_tags(params, *field)
    for row, length in enumerate(lengths):
        scores = {
            path: initial[path[0]]
            + sum(emissions[t, row, tag] for t, tag in enumerate(path))
            + sum(transitions[pair] for pair in itertools.pairwise(path))
            for path in itertools.product(range(count), repeat=length)
        }
        total = np.log(sum(np.exp(score) for score in scores.values()))
        assert found[row] == pytest.approx(total - scores[tuple(tags[:length, row])], abs=1e-4)
        assert tuple(best[:length, row]) == max(scores, key=scores.get)


def test_spans_equal_those_of_conlleval():
    assert spans(["I-a", "I-a", "O", "B-a", "B-a", "I-b", "O"]) == [("a", 0, 2), ("a", 3, 4), ("a", 4, 5), ("b", 5, 6)]
    assert span_f1([["B-a", "I-a", "O"], ["B-b"]], [["B-a", "O", "O"], ["B-b"]]) == 0.5
    assert span_f1([["O"]], [["O"]]) == 1


@pytest.mark.parametrize(
    ("text", "tags", "slots"),
    [
        ("play  Nina Simone, now", "O B-artist I-artist O O", [("artist", "Nina Simone")]),
        ("wake me at 9am", "O O O B-time I-time", [("time", "9am")]),
        ("播放周杰伦的歌", "O O B-artist I-artist I-artist O O", [("artist", "周杰伦")]),
        ("da da doo", "B-track I-track B-track", [("track", "da da"), ("track", "doo")]),
        ("ﬁnd it's", "B-verb B-what O", [("verb", "ﬁnd"), ("what", "it")]),
        ("ﬁ-x", "O O B-a", [("a", "x")]),
        ("nothing", "O", []),
    ],
)
def test_slots_are_spelled_as_in_the_text(text, tags, slots):
    assert extract_slots(text, tags.split()) == tuple(Slot(*slot) for slot in slots)


def test_tags_of_words_and_of_tokens():
    example = Example("at 9am sharp \u200b", "alarm", "", ("O", "B-time", "I-time", "O"))
    assert token_tags(example) == ["O", "B-time", "I-time", "I-time"]
    assert word_tags(example.text, token_tags(example)) == list(example.tags)


ROOMS, STATES = ("kitchen", "living room", "bath", "cellar", "hall"), ("on", "off")


def rows():
    for room, state in itertools.product(ROOMS, STATES):
        named = ["B-room", *["I-room"] * (len(room.split()) - 1)]
        yield f"turn the {room} light {state}", "light", ["O", "O", *named, "O", "B-state"]
        yield f"how warm is the {room}", "warmth", ["O", "O", "O", "O", *named]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slots")
    lines = [json.dumps({"text": text, "label": label, "tags": tags}) for text, label, tags in rows()]
    for split in ("train", "valid", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    classifier, _ = train(data.load(folder), SMALL, TINY, seed=0, progress=False)
    bundle.save(folder / "bundle", classifier, {})
    return folder


def test_slots_are_learned_saved_and_predicted(folder, capsys):
    classifier, _ = bundle.load(folder / "bundle")
    assert classifier.tagger == Tagger(("O", "B-room", "I-room", "B-state", "I-state"))
    (prediction,) = classifier.predict(["turn the Living Room light off"])
    assert prediction.slots == (("room", "Living Room"), ("state", "off"))
    assert main(["predict", "how warm is the hall", "--bundle", str(folder / "bundle")]) == 0
    assert "room='hall'" in capsys.readouterr().out
    assert main(["evaluate", "--data", str(folder), "--bundle", str(folder / "bundle")]) == 0
    assert "slots: F1 100.00%" in capsys.readouterr().out
    assert json.loads((folder / "bundle" / "report" / "report.json").read_text())["slot_f1"] == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "lights on", "label": "a", "tags": ["O"]}', "train.jsonl:2: needs one tag per word"),
        ('{"text": "lights on", "label": "a", "tags": ["O", "X-a"]}', "got 2 words"),
        ('{"text": "lights on", "label": "a"}', "train.jsonl:2: has no tags, while other examples have"),
    ],
)
def test_bad_tags_are_reported(tmp_path, line, message):
    (tmp_path / "train.jsonl").write_text('{"text": "lights off", "label": "b", "tags": ["O", "B-state"]}\n' + line)
    with pytest.raises(UserError, match=message):
        data.load(tmp_path)
