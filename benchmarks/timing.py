"""Time implementations in turn, A B A B, so that a noisy moment affects them all.

A turn first makes calls that are not timed (the previous one leaves caches and spinning threads behind), then
times calls until the clock resolves the turn; its sample is their mean. Ratios are taken round by
round. Memory that is freed is kept (`keep_memory`): otherwise glibc returns it to the system at
unpredictable moments, and the next allocation pays for new pages, up to half of the time of a call.
"""

from __future__ import annotations

import ctypes
import math
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence

Call = Callable[[], object]
"""A call of an implementation, which returns when the answer is there."""

WARM_UP = 2  # calls of a short one before it is timed
ROUNDS = 20  # that are enough
LEAST = 3  # rounds of the slowest
SETTLED_BELOW, SETTLE = 0.02, 0.002  # seconds: a call below SETTLED_BELOW is settled in first
AFTER_SPINNING = 0.02  # seconds that torch's threads spin on, about: whoever came next took 1.6 times as long
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


def turn(call: Call, guess: float, settle: float) -> float:
    """Return the mean seconds a call, of one turn, after `settle` seconds of calls that do not count."""
    for _ in range(math.ceil(settle / guess)):
        call()
    count = max(1, math.ceil(TURN / guess))
    return seconds(lambda: [call() for _ in range(count)]) / count


def interleave(
    calls: Mapping[str, Call], budget: float = 10.0, rounds: int = ROUNDS, spinning: Collection[str] = ()
) -> dict[str, list[float]]:
    """Return seconds a call, a sample a round: `rounds` of them, or as many as `budget` seconds allow, at least 3.

    Each call has been made once before, so that nothing is left to load or compile. One so slow that three of it
    outlast the budget is timed once, in the first round, and left out of the others. The threads of those that are
    `spinning` go on for a while when they are done: who comes next is given as long before it is timed.
    """
    names = [*calls]
    after = {name for name, before in zip(names[1:] + names[:1], names, strict=True) if before in spinning}
    samples: dict[str, list[float]] = {}
    guesses: dict[str, float] = {}
    end = time.perf_counter() + budget

    def settle(name: str) -> float:
        return AFTER_SPINNING if name in after else SETTLE if guesses[name] < SETTLED_BELOW else 0.0

    for name, call in calls.items():
        first = seconds(call)
        if first < SETTLED_BELOW:
            guesses[name] = max(min(seconds(call) for _ in range(WARM_UP)), 1e-7)
            samples[name] = [turn(call, guesses[name], settle(name))]
        else:
            samples[name] = [seconds(call) if name in after else first]
            if LEAST * first <= budget:
                guesses[name] = first
    for done in range(1, rounds):
        if done >= LEAST and time.perf_counter() > end:
            break
        for name, guess in guesses.items():
            samples[name].append(turn(calls[name], guess, settle(name)))
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
