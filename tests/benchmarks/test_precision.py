"""Accuracy by dtype and precision, and the slowdown by other processes, at tiny sizes: rows and pages."""

import numpy as np
import pytest

from benchmarks import oversubscription, precision
from benchmarks.oversubscription import Oversubscription
from benchmarks.precision import SETTINGS, Precision
from benchmarks.result import read
from benchmarks.workload import Answer
from jaxrnn import available_drivers

TINY = {"cells": ("gru",), "time": 6, "batch": 2, "inputs": 3, "hidden": 4, "budget": 0.01}


def test_errors_are_relative_to_the_largest_entry_of_the_worst_array():
    truth = Answer(None, np.array([1.0, -4.0]), np.array([2.0, 0.0]), None, None)
    found = precision.errors(Answer(None, np.array([1.0, -3.0]), np.array([2.0, 1.0]), None, None), truth)
    assert found == {"error": 0.5, "rms": pytest.approx(0.5 / 2**0.5)}


def test_precision_writes_a_row_for_each_setting_and_a_page(tmp_path):
    path = tmp_path / "precision.json"
    Precision(**TINY, json=path)()
    result = read(path)
    for gradient in (False, True):
        rows = [row for row in result.rows if row["workload"].gradient == gradient]
        assert [(row["name"], row["workload"].dtype) for row in rows] == [(s.name, s.dtype) for s in SETTINGS]
        for row in rows:
            assert ("absent" in row) != ("error" in row)
            if "error" in row:
                assert 0 < row["rms"] <= row["error"] < 4e-2
                assert row["seconds"]["median"] > 0
        if not available_drivers()["Native"]:
            assert rows[0]["error"] < 1e-5
    assert result.head["units"] == precision.units()
    page = precision.page(result)
    assert page.startswith(precision.units())
    assert "**gru, forward+backward** (6, 2, 3, 4)" in page


@pytest.mark.parametrize(
    ("units", "text"),
    [(["avx2"], "has no AMX"), (["avx512f", "avx512_bf16"], "has no AMX"), (["avx512_bf16", "amx_bf16"], "has AMX")],
)
def test_a_file_says_whether_there_is_amx(monkeypatch, units, text):
    monkeypatch.setattr(precision.processor, "describe", lambda: {"vector_units": units})
    assert text in precision.units()


def test_oversubscription_writes_rows_and_a_page(tmp_path):
    path = tmp_path / "oversubscription.json"
    names = ("jaxrnn Scan", "jax.experimental.rnn")
    Oversubscription(shapes=((4, 2, 3, 5),), others=(1,), names=names, budget=0.01, json=path)()
    result = read(path)
    assert [(row["name"], row["workload"].gradient, row["others"]) for row in result.timed] == [
        ("jaxrnn Scan", gradient, others) for gradient in (False, True) for others in (0, 1)
    ]
    assert [row["absent"] for row in result.rows if "absent" in row] == ["needs a GPU"] * 2
    for row in result.timed:
        assert (row["slowdown"] == 1) or row["others"] == 1
    page = oversubscription.page(result)
    assert "| lstm T=4 B=2 I=3 H=5 forward, no other processes |" in page
    assert "| lstm T=4 B=2 I=3 H=5 forward+backward, 1 other process |" in page


def test_busy_processes_run_until_the_block_ends():
    with oversubscription.busy(2) as others:
        assert [other.poll() for other in others] == [None, None]
    assert all(other.returncode is not None for other in others)
