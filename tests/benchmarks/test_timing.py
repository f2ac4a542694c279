"""Turns on a clock that the calls themselves advance."""

import pytest

from benchmarks import timing
from benchmarks.timing import SETTLE, TURN, interleave


@pytest.fixture
def calls(monkeypatch):
    """Return a function from the seconds of named calls to the calls, and the log of (name, start, end)."""
    now, log = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def make(**durations):
        def call(name):
            log.append((name, now[0], now[0] + durations[name]))
            now[0] += durations[name]

        return {name: lambda name=name: call(name) for name in durations}, log

    return make


def blocks(log):
    """Return the name and the seconds of calls that follow each other."""
    found = []
    for name, start, end in log:
        if found and found[-1][0] == name:
            found[-1][1] += end - start
        else:
            found.append([name, end - start])
    return found


@pytest.mark.parametrize("durations", [{"short": 1e-4, "other": 2e-3}, {"short": 4e-3, "long": 0.2}])
def test_every_turn_begins_with_calls_that_are_not_timed(calls, durations):
    programs, log = calls(**durations)
    samples = interleave(programs, budget=100.0, rounds=4)
    assert {name: len(taken) for name, taken in samples.items()} == dict.fromkeys(durations, 4)
    assert all(s == pytest.approx(durations[name]) for name, taken in samples.items() for s in taken)
    found = blocks(log)
    assert [name for name, _ in found] == [*durations] * 4
    for name, seconds in found:
        timed = max(TURN, durations[name])
        assert seconds >= SETTLE + timed - durations[name]


def test_a_slow_call_is_timed_once_after_one_that_is_not(calls):
    programs, log = calls(short=1e-3, slow=3.0)
    samples = interleave(programs, budget=6.0, rounds=5)
    assert samples["slow"] == [pytest.approx(3.0)]
    assert len(samples["short"]) == 3
    assert sum(name == "slow" for name, _, _ in log) == 2


def test_a_first_call_that_was_held_up_does_not_plan_later_turns(calls):
    durations = {"held up": 1.0, "steady": 1e-3}
    programs, log = calls(**durations)
    first = iter([programs["held up"]])
    interleave({"steady": lambda: next(first, programs["steady"])()}, budget=100.0, rounds=3)
    counts = [name for name, _, _ in log].count("steady")
    assert counts >= 1 + 2 * (SETTLE + TURN) / durations["steady"]


def test_rounds_end_with_the_budget(calls):
    programs, _ = calls(one=0.125)
    assert len(interleave(programs, budget=1.1, rounds=50)["one"]) == 5
