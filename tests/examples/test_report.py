"""The report of an evaluation, and the command `benchmark`."""

import collections
import json

import numpy as np
import pytest

from examples.intent import data
from examples.intent.__main__ import main
from examples.intent.calibration import Calibration
from examples.intent.report import Report, most_confused
from examples.intent.scores import IntentScores, Scores

PNG = b"\x89PNG\r\n\x1a\n"
LINES = [("what time is it", "time"), ("tell me the time", "time"), ("lights on", "lights"), ("the lamp", "lights")]
TINY = [
    "--steps",
    "12",
    "--min-epochs",
    "6",
    "--batch-size",
    "4",
    "--groups",
    "1",
    "--features",
    "8",
    "--hidden",
    "8",
]


class Constant:
    """A classifier that always predicts time, with more confidence for longer texts."""

    labels = ("lights", "time")

    calibration = Calibration(threshold=2.0)
    tagger = None
    encode = staticmethod(len)

    def forward(self, lengths):
        return np.array([[0.0, length / 4] for length in lengths]), [[] for _ in lengths]

    def logits(self, texts):
        return self.forward([len(text) for text in texts])[0]


def write(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid", "test"):
        (folder / f"{split}.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in LINES))
    return folder


def test_a_report_counts_mistakes_and_writes_plots(tmp_path):
    corpus = data.load(write(tmp_path / "corpus"))
    corpus.out_of_scope = corpus.test[:1]
    report = Report.of(Constant(), corpus)
    assert report.scores.accuracy == 0.5
    assert [mistake.text for mistake in report.mistakes] == ["lights on", "the lamp"]
    assert report.confusions == {("lights", "time"): 2}
    history = [{"train_loss": 2.0, "loss": 1.5, "train_accuracy": 0.5, "accuracy": 0.6}] * 2
    report.save(tmp_path / "report", {"history": history})
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert written["mistakes"][0]["prediction"] == "time"
    assert written["out_of_scope"]["oos_recall"] == 0
    for name in ("confusion", "reliability", "learning"):
        assert (tmp_path / "report" / f"{name}.png").read_bytes().startswith(PNG)


def test_a_report_without_mistakes_writes_plots_too(tmp_path):
    corpus = data.load(write(tmp_path / "corpus"))
    corpus.test = corpus.test[:2]
    Report.of(Constant(), corpus).save(tmp_path / "report", {})
    assert (tmp_path / "report" / "confusion.png").read_bytes().startswith(PNG)


def test_confused_intents_are_adjacent_in_the_matrix():
    confusions = collections.Counter({("a", "z"): 3, ("z", "a"): 2, ("b", "c"): 1, ("m", "n"): 4})
    rows = tuple(IntentScores(name, 0.5, 0.5, 0.5, 10, "") for name in "abcmnz")
    order = most_confused(Report(Scores(0.5, 0.5, rows), [], [], None, confusions), count=4)
    assert sorted(order) == ["a", "m", "n", "z"]
    assert abs(order.index("a") - order.index("z")) == 1


def test_benchmark_runs_on_every_data_set_of_a_folder_and_skips_others(tmp_path, capsys):
    write(tmp_path / "all" / "one")
    (tmp_path / "all" / "other").mkdir()
    file = tmp_path / "result.json"
    flags = ["--data", str(tmp_path / "all"), "--seeds", "2", "--json", str(file), "--no-progress", *TINY]
    assert main(["benchmark", *flags]) == 0
    out = capsys.readouterr().out
    assert "skipped" in out
    assert "other" in out
    (row,) = json.loads(file.read_text())
    keys = ("accuracy", "accuracy_std", "svm_accuracy", "macro_f1", "ece", "train_seconds", "model_bytes", "latency_ms")
    assert row["dataset"] == "one"
    assert all(isinstance(row[key], int | float) for key in keys)
    assert row["svm_accuracy"] == 100
    assert main(["benchmark", "--data", str(tmp_path / "all" / "other")]) == 2
    assert "no data set found" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--seeds", "0"], ["--data", "nowhere"]])
def test_benchmark_rejects_invalid_flags(tmp_path, capsys, flags):
    assert main(["benchmark", "--data", str(tmp_path), *flags]) == 2
    assert capsys.readouterr().err.startswith("error: ")
