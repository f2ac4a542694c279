"""The commands `scaling` and `memory` at tiny shapes: the rows they write, not how long anything took."""

import pytest

from benchmarks import record
from benchmarks.memory import Memory
from benchmarks.peers.own import BASELINES
from benchmarks.scaling import Scaling, expect, flatness
from benchmarks.workload import Workload, draw, error, reference

LOOP, JITTED, NAIVE = (peer.name for peer in BASELINES)
SCAN, SELECT = "jaxrnn Scan", "jaxrnn select"
QUICK = {"budget": 0.02, "batches": (), "hiddens": (), "loop": ()}


def test_scaling_writes_a_row_for_each_axis_workload_and_name(tmp_path):
    path = tmp_path / "scaling.json"
    Scaling(names=(NAIVE, SCAN), times=(4,), batches=(2,), hiddens=(8,), budget=0.02, loop=(4, 2, 3, 8), json=path)()
    rows = record.read(path)["rows"]
    each = [(row["axis"], row["workload"]["gradient"], row["name"]) for row in rows if row["axis"] != "loop"]
    assert each == [(axis, gradient, name) for gradient in (False, True) for axis in "TBH" for name in (NAIVE, SCAN)]
    for row in rows:
        assert row["seconds"]["median"] == pytest.approx(row["seconds_per_step"] * row["workload"]["time"])
        assert row["rounds"] == row["seconds"]["samples"] >= 1
        assert (row["compile_seconds"] is None) == (row["temporary_bytes"] is None) == row["name"].startswith("Python")
    ratios = {row["name"]: row["ratio"]["median"] for row in rows if row["axis"] == "loop"}
    assert list(ratios) == [LOOP, JITTED, SELECT]
    assert ratios[SELECT] == 1


def test_scaling_stops_a_python_loop_that_would_pass_the_limit(tmp_path):
    path = tmp_path / "scaling.json"
    Scaling(names=(LOOP, SCAN), times=(8, 2), limit=1e-9, json=path, **QUICK)()
    rows = record.read(path)["rows"]
    stopped = [(row["workload"]["time"], row["name"]) for row in rows if "stopped" in row]
    assert stopped == [(8, LOOP), (8, LOOP)]
    assert [row["rounds"] for row in rows if row["name"] == LOOP and "stopped" not in row] == [1, 1]


def test_a_loop_is_expected_in_proportion_to_its_steps():
    assert expect(None, 64) == 0
    assert expect((16, 2.0), 64) == 8


def test_flatness_is_of_scan_and_bptt_from_64_steps_on():
    def row(name, time, seconds, axis="T"):
        workload = {"cell": "lstm", "time": time, "gradient": False}
        return {"axis": axis, "name": name, "workload": workload, "seconds_per_step": seconds, "compile_seconds": time}

    rows = [row(SCAN, 16, 9.0), row(SCAN, 64, 2.0), row(SCAN, 256, 3.0), row(NAIVE, 64, 7.0), row(SCAN, 128, 8.0, "B")]
    (found,) = flatness(rows)
    assert (found["smallest"], found["largest"], found["ratio"]) == (2, 3, 1.5)
    assert found["times"] == found["compile_seconds"] == [64, 256]


def test_scaling_names_what_it_knows():
    with pytest.raises(ValueError, match=r"'jaxrnn Scan'.* got 'jaxrnn Scam'"):
        Scaling(names=("jaxrnn Scam",))()


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("loop", BASELINES[:2], ids=lambda peer: peer.name)
def test_python_loops_compute_the_workload(loop, gradient):
    workload = Workload("lstm", 5, 2, 3, 4, gradient)
    program = loop.make(workload, draw(workload))
    assert error(program.answer(program.call()), reference(workload)) < 1e-5


def test_memory_writes_a_row_for_each_driver(tmp_path):
    path = tmp_path / "memory.json"
    Memory(("gru",), ("BPTT()", "torch float32"), 40, 2, 3, 8, budget=0.02, json=path)()
    ours, torch = record.read(path)["rows"]
    assert ours["workload"]["cell"] == "gru"
    assert ours["arrays"] == pytest.approx(ours["temporary_bytes"] / (40 * 2 * 8 * 4))
    assert ours["process_bytes"] >= 0
    assert ours["seconds"]["median"] > 0
    assert "absent" in torch or torch["process_bytes"] > 0


def test_memory_names_what_it_knows():
    with pytest.raises(ValueError, match=r"'Scan\(\)', .* got 'Scam\(\)'"):
        Memory(names=("Scam()",))()
