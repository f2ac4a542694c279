"""The command `train`: what it compares computes the same, and every row is written."""

import importlib.util
import json

import pytest

from examples.intent.benchmarks import latency, throughput
from examples.intent.benchmarks.train import Train
from examples.intent.classifier import Config
from examples.intent.train import Recipe

LINES = ["what time is it\ttime", "现在几点了\ttime", "lights on\tlights", "turn on the lights in here\tlights"]
TINY = {"budget": 0.01, "batches": 3, "utterances": 5, "config": Config(8, 8), "recipe": Recipe(batch_size=8, groups=1)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of data."""
    folder = tmp_path_factory.mktemp("train")
    for split, count in (("train", 5), ("valid", 1), ("test", 2)):
        (folder / f"{split}.tsv").write_text("\n".join(LINES * count) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def rows(folder):
    """The rows of a tiny run."""
    Train(data=folder, json=folder / "train.json", **TINY)()
    return json.loads((folder / "train.json").read_text())["rows"]


def test_every_implementation_is_measured_and_computes_the_same(rows):
    entries = (*throughput.ENTRIES, *latency.ENTRIES)
    parts = ["train"] * len(throughput.ENTRIES) + ["latency"] * len(latency.ENTRIES)
    assert [(row["part"], row["name"]) for row in rows] == [*zip(parts, (e.name for e in entries), strict=True)]
    for row, entry in zip(rows, entries, strict=True):
        packages = (entry.package,) if isinstance(entry, throughput.Entry) else entry.packages
        assert ("absent" in row) == any(importlib.util.find_spec(package) is None for package in packages)
        if "absent" in row:
            continue
        assert row["error"] < 1e-4
        if row["part"] == "train":
            assert row["samples_per_second"]["median"] > 0
            assert row["ratio"] is None or row["ratio"]["median"] > 0  # None: slow enough to be timed once
            assert 0 < row["loss"] < 2
            assert (row["compile_seconds"] is None) == (row["library"] == "torch")
        else:
            assert 0 < row["median_ms"] <= row["p99_ms"]


def test_what_is_not_installed_is_named(monkeypatch, capsys, folder, tmp_path):
    """Nothing is left out silently."""
    monkeypatch.setattr(throughput, "ENTRIES", (throughput.Entry("other", "no_such_package", None),))
    monkeypatch.setattr(latency, "ENTRIES", (latency.Entry("other", ("no_such_package",), ".other"),))
    Train(data=folder, json=tmp_path / "train.json", **TINY)()
    assert capsys.readouterr().out.count("no_such_package is not installed") == 2
    found = json.loads((tmp_path / "train.json").read_text())["rows"]
    assert [row["absent"] for row in found] == ["no_such_package is not installed"] * 2
