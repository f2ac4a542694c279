"""Untrusted labels and texts: printed and plotted literally, and a malformed line is an error of that line only."""

import dataclasses
import io
import json
import sys

import jax
import pytest

from examples.intent import bundle, data, lines
from examples.intent.__main__ import main
from examples.intent.classifier import Classifier, Config, build, init
from examples.intent.errors import UserError
from examples.intent.terminal import console, printable
from examples.intent.text import Vocabulary

LABELS = ("<img src=x onerror=alert(1)>", "[/b]", "[bold]x", "$x$", "$\\frac$", "_x", ":smile:", "a\nb\tc", "\u202eabc",
          "\x1b[31mred\x9b", "y" * 3000, "=1+1", "{x}", "100%s", "现在", "\u0378")  # fmt: skip


def untrained(causal=False):
    vocabulary, config = Vocabulary(("it", "time"), buckets=64, width=4), Config(8, 8, causal=causal)
    params = init(jax.random.key(0), build(config, len(vocabulary), len(LABELS)), None)
    return Classifier(config, vocabulary, LABELS, params)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("untrusted")
    rows = [json.dumps({"text": f"time {i} {label}", "label": label}) for i in range(2) for label in LABELS]
    for split in ("train", "valid", "test"):
        (folder / f"{split}.jsonl").write_text("\ufeff" * (split == "test") + "\r\n".join(rows), encoding="utf-8")
    bundle.save(folder / "bundle", untrained(), {"history": [{"loss": 1.0, "accuracy": 0.5}, {"loss": None}]})
    bundle.save(folder / "causal", untrained(causal=True), {})
    return folder


def has_control_characters(out):
    """Return whether a terminal would interpret a part of the output."""
    return any(not c.isprintable() and c not in "\n\t\u0378" for c in out)


def test_labels_are_shown_literally(folder, capsys, monkeypatch):
    monkeypatch.setattr(console, "width", 300)
    arguments = ["--data", str(folder), "--bundle", str(folder / "bundle"), "--rows", "99"]
    assert main(["evaluate", *arguments]) == 0
    out = capsys.readouterr().out
    assert not has_control_characters(out)
    assert [label for label in LABELS if printable(label)[:79] not in out] == []
    assert json.loads((folder / "bundle" / "report" / "report.json").read_text())["intents"]
    for arguments in (["predict", "time"], ["predict", "time", "--json"], ["explain", "time $x$ $ \x1b", "--json"]):
        assert main([*arguments, "--bundle", str(folder / "bundle")]) == 0
        assert not has_control_characters(capsys.readouterr().out)
    picture = folder / "explain.png"
    assert main(["explain", "time $x$ $ \x1b", "--bundle", str(folder / "bundle"), "--out", str(picture)]) == 0


LINES = [
    (b"\xef\xbb\xbfwhat time is it ?\r\n", None),
    (b"\n", "got 0"),
    ("\u200b\n".encode(), "got 0"),
    (b"word " * 3000 + b"\n", "got 3000"),
    (b"y" * 40_000 + b"\n", "32768 characters"),
    (b"\xff\xfe\n", "not UTF-8"),
    (b"a\x00b time\n", None),
    (b'{"text": ""}\n', "got 0"),
    (b'{"text": "\\ud800"}\n', "needs {"),
    (b'{"text": 3}\n', "needs {"),
    (b"{\n", "needs {"),
    (b"[" * 50_000 + b"\n", "32768 characters"),
    (b'{"a":' * 50_000 + b"\n", "needs {"),
    (b"y" * (3 * lines.MAX_LINE_BYTES) + b"\n", "1048576 bytes at most"),
    (b'{"label": "x", "text": "lights \\u001b[2J on"}\n', None),
    (b"the last, without an end", None),
]


@pytest.mark.parametrize("flags", [[], ["--json"], ["--stream", "--bundle", "causal"]])
def test_every_line_has_a_prediction_or_an_error(folder, capsys, monkeypatch, flags):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"".join(line for line, _ in LINES))))
    assert main(["predict", "--bundle", "bundle", *flags]) == 2
    out, err = capsys.readouterr()
    starts = [f"invalid: line {number}: " for number, (_, reason) in enumerate(LINES, start=1) if reason]
    *errors, last = err.splitlines()
    assert all(line.startswith(start) for line, start in zip(errors, starts, strict=True))
    reasons = [reason for _, reason in LINES if reason]
    assert all(reason in line for line, reason in zip(errors, reasons, strict=True))
    assert last == f"error: {len(starts)} of {len(LINES)} texts are invalid"
    assert all(len(line) < 300 for line in errors)
    assert not has_control_characters(out + err)
    if "--stream" not in flags:
        assert len(out.splitlines()) == len(LINES) - len(starts)
    if "--json" in flags:
        answered = [number for number, (_, reason) in enumerate(LINES, start=1) if not reason]
        assert [json.loads(line)["number"] for line in out.splitlines()] == answered


def test_the_exit_status_is_0_if_every_line_is_valid(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"time\nit")))
    assert main(["predict", "--bundle", str(folder / "bundle")]) == 0
    assert main(["predict", "--stream", "time", "--bundle", str(folder / "bundle")]) == 2
    assert "--causal" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["word " * 3000, "y" * 40_000])
def test_a_text_of_a_corpus_that_is_too_long_is_reported(tmp_path, text):
    rows = [*[("time", "a"), ("lights", "b"), ("time it", "a"), ("the lights", "b")] * 3, (text, "a")]
    (tmp_path / "train.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in rows))
    with pytest.raises(UserError, match=r"train\.tsv:13: a text must have"):
        data.load(tmp_path)
    assert any("train.tsv:13" in warning for warning in data.load(tmp_path, skip_bad_lines=True).warnings)


def test_an_invalid_classifier_is_not_saved(tmp_path):
    classifier = untrained()
    broken = classifier.params._replace(model=jax.tree.map(lambda a: a + 1e6, classifier.params.model))
    for changes in (
        {"params": broken},
        {"labels": ("twice",) * len(LABELS)},
    ):
        with pytest.raises(UserError, match="cannot be saved"):
            bundle.save(tmp_path / "b", dataclasses.replace(classifier, **changes), {})
        assert not (tmp_path / "b").exists()
