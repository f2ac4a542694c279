"""The bound is the formula in `Limit`; the command measures, and writes what it measured."""

import json

import pytest

from benchmarks import limit, machine
from benchmarks.machine import Level, Machine
from benchmarks.workload import Workload

LEVELS = (Level("L2", 2**20, 100e9), Level("L3", 2**25, 50e9), Level("memory", None, 10e9))
ABLE = Machine({"float32": {"jax": 100e9, "torch": 200e9}}, LEVELS, 1e-6)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(machine, "GEMM", {"cpu": 32})
    monkeypatch.setattr(machine, "ARRAYS", {"L2": 2**12, "L3": 2**13, "memory": 2**14})
    monkeypatch.setattr(machine, "PASS", 2**15)
    monkeypatch.setattr(machine, "STEPS", 10)


def test_the_bound_by_hand():
    forward, gradient = (Workload("lstm", 128, 32, 64, 128, gradient=which) for which in (False, True))
    projection, step = 2 * 4 * 32 * 128 * 128 * 64 / 200e9, 2 * 4 * 32 * 128**2 / 200e9
    assert limit.bound_seconds(forward, ABLE) == pytest.approx(projection + 128 * step)
    assert limit.bound_seconds(gradient, ABLE) == pytest.approx(3 * (projection + 128 * step))


def test_a_batch_of_one_is_limited_by_its_weights():
    workload = Workload("gru", 100, 1, 8, 2048)
    steps = limit.step_seconds(workload, ABLE)
    assert max(steps, key=steps.get) == "weights"
    assert steps["weights"] == pytest.approx(3 * 2048**2 * 4 / 10e9)  # 50 MB: in no cache


def test_heads_divide_the_recurrent_work():
    whole, parts = (Workload("lstm", 8, 4, 16, 64, heads=heads) for heads in (1, 4))
    assert limit.recurrent_flops(parts) * 4 == limit.recurrent_flops(whole)
    assert limit.weight_bytes(parts) * 4 == limit.weight_bytes(whole)
    for workload in (whole, parts):
        total = workload.time * limit.recurrent_flops(workload) + limit.projection_flops(workload)
        assert total == workload.flops


def test_the_better_of_two_measurements():
    slow = Machine({"float32": {"jax": 300e9, "torch": 1.0}}, tuple(Level(*level[:2], 1.0) for level in flat()), 2e-6)
    both = machine.best(ABLE, slow)
    assert both.gemm == {"float32": {"jax": 300e9, "torch": 200e9}}
    assert both.levels == LEVELS
    assert both.scan_step == 1e-6


def flat():
    return [(level.name, level.capacity) for level in LEVELS]


def test_on_chip_weights_cost_nothing():
    able = Machine(ABLE.gemm, (Level("on chip", 2**25, None), Level("memory", None, 1e12)), 1e-6)
    assert able.move(2**20) == 0.0
    assert able.move(2**26) == 2**26 / 1e12


def test_the_command(small, tmp_path, capsys):
    path = tmp_path / "limit.json"
    workloads = tuple(Workload("elman", 4, 2, 3, 5, gradient=gradient) for gradient in (False, True))
    names = ("jaxrnn select", "jax.experimental.rnn")
    limit.Limit(workloads=workloads, names=names, budget=0.01, json=path)()
    written = json.loads(path.read_text())
    assert written["machine"]["gemm"]["float32"]["jax"] > 0
    assert [level["name"] for level in written["machine"]["levels"]] == ["L2", "L3", "memory"]
    assert [row["name"] for row in written["rows"]] == [*names, *names]
    for measured, absent in zip(written["rows"][::2], written["rows"][1::2], strict=True):
        assert measured["percent"] == pytest.approx(100 * measured["bound_seconds"] / measured["seconds"]["median"])
        assert absent["absent"] == "needs a GPU"
    assert "GFLOP/s through jax" in capsys.readouterr().out


def test_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"'naive lax.scan'.*got 'pytorch'"):
        limit.Limit(names=("pytorch",))()
    with pytest.raises(ValueError, match=r"quick.*got 'long'"):
        limit.Limit(suite="long")()
