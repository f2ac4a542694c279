"""The intent classifier: a short training, its predictions, the bundle and the commands."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from examples.intent import baseline, bundle, data, scores
from examples.intent.__main__ import main
from examples.intent.classifier import Config, build, init
from examples.intent.errors import UserError
from examples.intent.fonts import escape_missing_glyphs
from examples.intent.formats import Example
from examples.intent.text import tokenize
from examples.intent.train import Recipe, train

from .test_data import LINES, write_tsv

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n\x1a\n"
SMALL = Config(16, 16, 0.1, 0.1)
TINY = Recipe(30, 12, batch_size=8, groups=1, learning_rate=3e-2, rejection_rate=0, word_dropout=0.1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder of data with a bundle, the classifier, and the result of `fit`."""
    root = tmp_path_factory.mktemp("intent")
    rows = LINES.items()
    for split in ("train", "valid", "test"):
        write_tsv(root / f"{split}.tsv", rows)
    classifier, fitted = train(data.load(root), SMALL, TINY, seed=0, progress=False)
    bundle.save(root / "bundle", classifier, {"seed": 0})
    return root, classifier, fitted


def test_training_learns(trained):
    root, classifier, fitted = trained
    assert fitted.history[-1]["train_loss"] < 0.7 * fitted.history[0]["train_loss"]
    corpus = data.load(root)
    texts = [e.text for e in corpus.test]
    predictions = [classifier.labels[i] for i in classifier.probabilities(texts).argmax(-1)]
    assert scores.score([e.label for e in corpus.test], predictions).accuracy >= 0.8


def test_prefixes_leave_one_out_and_jacobian_norms(trained):
    text = "what time is it ?"
    _, classifier, _ = trained
    assert np.allclose(classifier.prefix_probabilities(text)[-1], classifier.probabilities([text])[0], atol=1e-5)
    assert np.allclose(classifier.prefix_probabilities(text)[1], classifier.probabilities(["what time"])[0], atol=1e-5)
    assert np.allclose(classifier.leave_one_out(text)[0], classifier.probabilities(["time is it ?"])[0], atol=1e-5)
    assert classifier.leave_one_out("time").shape == (1, 3)
    norms = classifier.jacobian_norms(text)
    assert norms.shape == (5, 5)
    assert (norms >= 0).all()
    assert norms.diagonal().min() > 0


def test_a_text_without_a_known_word_is_rejected_by_every_command(trained, tmp_path, capsys):
    root, classifier, _ = trained
    (prediction,) = classifier.predict(["!!! \U0001f600"])
    assert prediction.intent is None
    assert prediction.probability == pytest.approx(1 / 3, abs=1e-4)
    assert prediction.reason == "the text has no known word"
    assert main(["predict", "!!!", "--bundle", str(root / "bundle")]) == 0
    assert capsys.readouterr().out.startswith("none: the text has no known word")
    assert main(["explain", "!!!", "--bundle", str(root / "bundle"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["intent"] is None
    assert classifier.prefix_probabilities("!! time")[:2] == pytest.approx(1 / 3)
    assert np.allclose(classifier.leave_one_out("time !!")[0], 1 / 3)
    for split in ("valid", "test"):
        write_tsv(tmp_path / f"{split}.tsv", [("time", ["!!!", "time please"])])
    write_tsv(tmp_path / "train.tsv", LINES.items())
    assert main(["evaluate", "--data", str(tmp_path), "--bundle", str(root / "bundle")]) == 0
    assert "rejected as none: 50.00%; accuracy on the others 100.00%" in capsys.readouterr().out


@pytest.mark.parametrize("causal", [False, True])
def test_exports_equal_the_classifier(trained, tmp_path, capsys, causal):
    root, classifier, _ = trained
    folder = root / "bundle"
    if causal:
        config = dataclasses.replace(SMALL, causal=True)
        params = init(jax.random.key(0), build(config, len(classifier.vocabulary), 3), None)
        folder = tmp_path / "causal"
        bundle.save(folder, dataclasses.replace(classifier, config=config, params=params), {})
    pytest.importorskip("onnxruntime", reason="onnxruntime is an optional peer: pip install jaxrnn[peers]")
    assert main(["export", "--bundle", str(folder), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert out.count("maximum error of its logits") == 2
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"intent.onnx", "intent.jax"}


def test_streaming_equals_the_prediction_for_each_prefix(trained):
    root, bidirectional, _ = trained
    classifier, _ = train(data.load(root), dataclasses.replace(SMALL, causal=True), TINY, seed=0, progress=False)
    tokens = tokenize("what time is it ?")
    for end, streamed in enumerate(classifier.stream(iter(tokens)), start=1):
        expected = classifier.predict([" ".join(tokens[:end])])[0]
        assert [name for name, _ in streamed.best] == [name for name, _ in expected.best]
        assert np.allclose([p for _, p in streamed.best], [p for _, p in expected.best], atol=2e-4)
    assert [p.intent for p in classifier.stream(["!", "😀"])] == [None, None]
    with pytest.raises(UserError, match="--causal"):
        next(bidirectional.stream(tokens))


def test_a_bundle_is_loaded_and_changed_files_are_reported(trained, tmp_path):
    _, classifier, _ = trained
    bundle.save(tmp_path / "b", classifier, {"note": 1})
    loaded, about = bundle.load(tmp_path / "b")
    assert about == {"note": 1}
    assert np.array_equal(loaded.probabilities(["开灯"]), classifier.probabilities(["开灯"]))
    for name in bundle.FILES:
        file = tmp_path / "b" / name
        content = file.read_bytes()
        file.write_bytes(content[:-2] + b" " + content[-1:])
        with pytest.raises(UserError, match=f"{name}: changed"):
            bundle.load(tmp_path / "b")
        file.unlink()
        with pytest.raises(UserError, match=f"{name}: missing"):
            bundle.load(tmp_path / "b")
        file.write_bytes(content)
    bundle.load(tmp_path / "b")
    with pytest.raises(UserError, match="no bundle there"):
        bundle.load(tmp_path / "nowhere")


def test_commands(trained, capsys, tmp_path):
    root, _, _ = trained
    folder = str(root / "bundle")
    assert main(["predict", "what time is it ?", "--bundle", folder]) == 0
    assert capsys.readouterr().out.startswith("time ")
    assert main(["evaluate", "--data", str(root), "--bundle", folder]) == 0
    assert "macro F1" in capsys.readouterr().out
    assert main(["predict", "what time is it ?", "--bundle", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] is None
    out = tmp_path / "picture.png"
    assert main(["explain", "现在 $x$ 几点\u0378", "--bundle", folder, "--out", str(out)]) == 0
    assert "U+0378" in capsys.readouterr().err
    assert out.read_bytes().startswith(PNG)
    assert main(["explain", "what time is it ?", "--bundle", folder, "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [step["token"] for step in steps] == ["what", "time", "is", "it", "?"]
    assert all(len(step["jacobian_norms"]) == 5 and len(step["best"]) == 3 for step in steps)
    assert main(["predict", " ", "--bundle", folder]) == 2
    assert capsys.readouterr().err.startswith("invalid: text 1: a text must have 1 to")


def test_the_train_command_is_reproducible_and_reports_baselines(trained, capsys, tmp_path):
    root, classifier, _ = trained
    options = {**dataclasses.asdict(TINY), **dataclasses.asdict(SMALL)}
    del options["causal"]
    flags = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["--data", str(root), "--bundle", str(tmp_path / "b"), "--no-progress", *flags]) == 0
    out = capsys.readouterr().out
    for words in (
        "majority class",
        "linear SVM",
        "recurrent network",
        "what-time-is-it.png",
        '"what time is it ?" ->',
    ):
        assert words in out
    assert (tmp_path / "b" / "pictures" / "what-time-is-it.png").read_bytes().startswith(PNG)
    again, about = bundle.load(tmp_path / "b")
    assert np.array_equal(again.probabilities(["开灯"]), classifier.probabilities(["开灯"]))
    assert about["seed"] == 0


def test_the_command_line_in_a_separate_process(trained):
    root, _, _ = trained
    command = [sys.executable, "-m", "examples.intent", "predict", "--bundle", str(root / "bundle"), "--json"]
    lines = 'lights on\n\n{"text": "放首歌"}\n{"words": 1}\n'
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONIOENCODING": "utf-8"}
    ran = subprocess.run(
        command, input=lines, capture_output=True, encoding="utf-8", cwd=ROOT, env=environment, check=False
    )
    rows = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [(row["number"], row["text"]) for row in rows] == [(1, "lights on"), (3, "放首歌")]
    assert set(rows[0]) == {"number", "text", "intent", "probability", "next", "reason", "slots"}
    assert ran.returncode == 2
    assert ran.stderr.startswith("invalid: line 2: a text must have 1 to")
    assert 'invalid: line 4: needs {"text": "..."}' in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--hidden 0", "--hidden must be 1 or more"),
        ("--input-dropout 1", "must be 0 or more and less than 1"),
        ("--learning-rate nan", "--learning-rate must be"),
        ("--max-epochs 3", "--max-epochs 3 is less"),
        ("--seed -1", "--seed must be from 0"),
        ("--data {0}/no", "no such file or folder"),
        ("--data {0}", "train.tsv: cannot be read: Is a directory"),
        ("--bundle {0}/file", "it is a file"),
        ("--bundle {0}/file/b", "cannot save a bundle there: Not a directory"),
        ("--bundle {0}", "has file and is not a bundle"),
    ],
)
def test_train_rejects_invalid_flags_before_training(tmp_path, capsys, flags, message):
    (tmp_path / "file").touch()
    (tmp_path / "train.tsv").mkdir()
    try:
        status = main(["train", *flags.format(tmp_path).split()])
    except SystemExit as error:  # raised by tyro, which draws a box around the message
        status = error.code
    printed = capsys.readouterr()
    assert status == 2
    assert message in " ".join((printed.out + printed.err).replace("│", " ").split())
    assert not (tmp_path / "manifest.json").exists()


def test_train_raises_if_no_validation_text_has_a_known_word(tmp_path):
    write_tsv(tmp_path / "train.tsv", LINES.items())
    for split in ("valid", "test"):
        (tmp_path / f"{split}.tsv").write_text("!!!\ttime\n")
    with pytest.raises(UserError, match="no validation text has a word of train"):
        train(data.load(tmp_path), SMALL, TINY, seed=0, progress=False)


def test_the_baseline_fits_a_corpus_of_emoji():
    examples = [
        Example(text, label, "") for text, label in (("👍👍", "yes"), ("👍", "yes"), ("👎", "no"), ("👎👎", "no"))
    ]
    assert baseline.linear_svm(data.Corpus("", examples, [], examples)) == 1


def test_scores():
    found = scores.score(["a", "a", "b", "b"], ["a", "b", "b", "b"])
    assert found.accuracy == 0.75
    assert found.macro_f1 == pytest.approx((2 / 3 + 0.8) / 2)
    assert found.rows[0].most_confused_with == "b"
    assert scores.majority(["b", "b", "a"], ["a", "b"]) == 0.5
    assert scores.auroc(np.array([0.9, 0.5]), np.array([0.5, 0.1])) == 0.875


def test_characters_without_a_font_are_escaped(capsys):
    assert escape_missing_glyphs(["plain"])[1] == ["plain"]
    assert capsys.readouterr().err == ""
    assert escape_missing_glyphs(["a\u0378b"])[1] == ["aU+0378 b"]
    assert "no installed font has U+0378" in capsys.readouterr().err
