"""`select` against the committed table: it never picks a driver that the table shows slower by more than a tenth."""

import ast
import dataclasses
import json
import pathlib

import pytest

from benchmarks.peers.own import DRIVERS

RESULTS = pathlib.Path(__file__).parents[2] / "benchmarks" / "results"


def is_driver(text, driver):
    """Whether a driver's repr in a result file is this driver: its type and the fields that both have."""
    call = ast.parse(text, mode="eval").body
    fields = {field.name for field in dataclasses.fields(driver)}
    recorded = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg in fields}
    same = all(ast.unparse(value) == repr(getattr(driver, name)) for name, value in recorded.items())
    return call.func.id == type(driver).__name__ and same


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/peers.json")), ids=lambda path: path.parent.name)
def test_select_picks_a_driver_within_a_tenth_of_the_best(path):
    """Its pick is timed twice, as `select` and under its own name: one program, of which the faster time counts."""
    rows = [row for row in json.loads(path.read_text())["rows"] if row["name"] in DRIVERS and "seconds" in row]
    picks = {str(row["workload"]): row["driver"] for row in rows if row["name"] == "jaxrnn select"}
    picked, best = {}, {}
    for row in rows:
        workload, took, driver = str(row["workload"]), row["seconds"]["median"], DRIVERS[row["name"]]
        best[workload] = min(took, best.get(workload, took))
        if driver is None or is_driver(picks[workload], driver):
            picked[workload] = min(took, picked.get(workload, took))
    assert picks
    assert picks.keys() == picked.keys()
    assert {w: picked[w] / best[w] for w in picks if picked[w] > 1.1 * best[w]} == {}


def test_a_recorded_driver_is_recognized_by_the_fields_that_exist():
    bptt, keep = DRIVERS["jaxrnn BPTT"], DRIVERS["jaxrnn BPTT keep_gates"]
    assert is_driver("BPTT(chunk=32, keep_gates=False, removed=1)", bptt)
    assert not is_driver("BPTT(chunk=32, keep_gates=False)", keep)
    assert not is_driver("Scan()", bptt)
