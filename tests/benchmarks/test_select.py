"""`select` against the committed table: it never picks a driver that the table shows slower by more than a tenth."""

import ast
import dataclasses

import pytest

from benchmarks.peers.own import DRIVERS
from benchmarks.record import RESULTS
from benchmarks.result import SELECT, read
from jaxrnn import available_drivers, select


def is_driver(text, driver):
    """Whether a driver's repr in a result file is this driver: its type and the fields that both have."""
    call = ast.parse(text, mode="eval").body
    fields = {field.name for field in dataclasses.fields(driver)}
    recorded = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg in fields}
    same = all(ast.unparse(value) == repr(getattr(driver, name)) for name, value in recorded.items())
    return call.func.id == type(driver).__name__ and same


FILES = sorted(path for name in ("peers", "bfloat16") for path in RESULTS.glob(f"*/{name}.json"))


def measured(path):
    """Return for each workload the drivers that a result file has timed, as texts or drivers, with their seconds."""
    found = {}
    for row in read(path).timed:
        if row["name"] in DRIVERS:
            driver = row["driver"] if row["name"] == SELECT else DRIVERS[row["name"]]
            found.setdefault(row["workload"], []).append((driver, row["seconds"]["median"]))
    return found


def over_best(pick, timed):
    """Return the time of a driver over that of the fastest; None where it was not timed.

    A driver may have been timed twice, as `select` and under its own name: one program; the faster counts.
    """
    same = [seconds for driver, seconds in timed if is_same(driver, pick)]
    return min(same) / min(seconds for _, seconds in timed) if same else None


def is_same(one, other):
    """Whether two drivers are the same; each is a driver, or its repr in a result file."""
    if isinstance(one, str) and isinstance(other, str):
        return one == other
    if isinstance(other, str):
        one, other = other, one
    return is_driver(one, other) if isinstance(one, str) else one == other


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_select_picks_a_driver_within_a_tenth_of_the_best(path):
    """Both what it picked when the file was written, on that machine, and what it picks now, where that was timed."""
    if reason := available_drivers()["Native"]:
        pytest.skip(f"select chooses without Native: {reason}")
    platform = read(path).head["hardware"]["platform"]
    then, now = {}, {}
    for workload, timed in measured(path).items():
        shape = (workload.time, workload.batch, workload.inputs)
        pick = select(workload.own_cell(), shape, workload.dtype, platform)
        now[workload] = over_best(pick, timed)
        (recorded,) = [driver for driver, _ in timed if isinstance(driver, str)]
        then[workload] = over_best(recorded, timed)
    now = {workload: ratio for workload, ratio in now.items() if ratio is not None}
    assert now
    assert {workload: ratio for workload, ratio in (*then.items(), *now.items()) if ratio > 1.1} == {}


def test_a_driver_that_was_not_timed_is_not_judged():
    timed = [("Native()", 1.0), (DRIVERS["jaxrnn Scan"], 3.0), (DRIVERS["jaxrnn Native"], 2.0)]
    assert over_best(DRIVERS["jaxrnn BPTT"], timed) is None
    assert over_best(DRIVERS["jaxrnn Scan"], timed) == 3.0
    assert over_best(DRIVERS["jaxrnn Native"], timed) == 1.0


def test_a_recorded_driver_is_recognized_by_the_fields_that_exist():
    bptt, keep = DRIVERS["jaxrnn BPTT"], DRIVERS["jaxrnn BPTT keep_gates"]
    assert is_driver("BPTT(chunk=32, keep_gates=False, removed=1)", bptt)
    assert not is_driver("BPTT(chunk=32, keep_gates=False)", keep)
    assert not is_driver("Scan()", bptt)
