"""Time implementations in turn, A B A B, so that a noisy moment affects them all.

Every turn begins with `SETTLE` seconds of calls that are not timed: the previous implementation leaves caches behind,
and threads that spin (torch's for some 20 ms, in which another program takes up to 1.6 times as long). Then calls are
timed until the clock resolves the turn; its sample is their mean. Ratios are taken round by
round. Memory that is freed is kept (`keep_memory`): otherwise glibc returns it to the system at
unpredictable moments, and the next allocation pays for new pages, up to half of the time of a call.
"""

from __future__ import annotations

import ctypes
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Call = Callable[[], object]
"""A call of an implementation, which returns when the answer is there."""

SETTLE = 0.03  # seconds of calls that are not timed, at the beginning of every turn
WARM_UP = 2  # calls of a short one, from which its turns are planned
ROUNDS = 20  # that are enough
LEAST = 3  # rounds of the slowest
TURN = 0.006  # seconds that a turn lasts at least
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h


def keep_memory() -> None:
    """Tell glibc to keep freed memory for the next call, in this process and for all alike; elsewhere do nothing.

    To be called before there are threads. What `MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0
    MALLOC_TRIM_THRESHOLD_=2147483647` in the environment does for any program.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def seconds(call: Call) -> float:
    """Return what one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def settle(call: Call, done: float = 0.0) -> None:
    """Call without timing for `SETTLE` seconds, of which some are done."""
    end = time.perf_counter() + SETTLE - done
    while time.perf_counter() < end:
        call()


def turn(call: Call, guess: float, done: float = 0.0) -> float:
    """Return the mean seconds a call, of one turn, after calls that are not timed, `done` seconds of which were made.

    The turn is planned for a call that takes `guess` seconds.
    """
    settle(call, done)
    count = max(1, math.ceil(TURN / guess))
    return seconds(lambda: [call() for _ in range(count)]) / count


def interleave(calls: Mapping[str, Call], budget: float = 10.0, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Return seconds a call, a sample a round: `rounds` of them, or as many as `budget` seconds allow, at least 3.

    Each call has been made once before, so that nothing is left to load or compile. One so slow that three of it
    outlast the budget is timed once, in the first round, and left out of the others.
    """
    samples: dict[str, list[float]] = {}
    guesses: dict[str, float] = {}
    end = time.perf_counter() + budget
    for name, call in calls.items():
        first = seconds(call)
        guess = first if first >= SETTLE else max(min(seconds(call) for _ in range(WARM_UP)), 1e-7)
        samples[name] = [turn(call, guess, done=first)]
        guess = min(guess, *samples[name])
        if LEAST * guess <= budget:
            guesses[name] = guess
    for done in range(1, rounds):
        if done >= LEAST and time.perf_counter() > end:
            break
        for name, guess in guesses.items():
            samples[name].append(turn(calls[name], guess))
    return samples


def spread(samples: Sequence[float]) -> dict[str, float]:
    """Return the median, the quartiles and how many samples they stand on."""
    if len(samples) < 2:
        return {"median": samples[0], "low": samples[0], "high": samples[0], "samples": len(samples)}
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high, "samples": len(samples)}


def ratio(samples: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Return samples over base, taken round by round (over the base's median where the two were not in turn)."""
    if len(samples) != len(base):
        base = [statistics.median(base)] * len(samples)
    return spread([s / b for s, b in zip(samples, base, strict=True)])
