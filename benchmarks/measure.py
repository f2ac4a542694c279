"""What the measuring commands share: prepare programs, check them, time them in turn, and print tables."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Collection, Mapping, Sequence

import jax

from jaxrnn import select

from . import timing
from .peers import Peer, Program, choose, installed
from .result import SELECT, Row
from .suites import NAMES, SUITES
from .workload import Workload, draw, error, reference

FAR = {"float32": 0.1, "bfloat16": 0.3, "float16": 0.3}
"""Larger than any rounding error, also of TF32 and of a relu that grows."""
APART = ("Python loop", "Python loop, jitted step", "onnxruntime")
"""Measured after the others, since they slow the next one for longer than it settles: garbage, spinning threads."""


def suite(name: str) -> tuple[Workload, ...]:
    """Return the workloads of a suite."""
    if name not in SUITES:
        raise ValueError(f"suite is one of {', '.join(SUITES)}; got {name!r}")
    return tuple(SUITES[name]())


def peers_of(suite: str, names: tuple[str, ...]) -> list[Peer]:
    """Return the peers of these names; where there are none, those of the suite, or all."""
    return choose(names or NAMES.get(suite, ()))


def compare(
    workload: Workload,
    peers: Sequence[Peer],
    budget: float,
    rounds: int = timing.ROUNDS,
    *,
    check: bool = False,
    apart: Collection[str] = APART,
) -> list[Row]:
    """Return a row for every peer: its measurements, or why it is absent.

    Args:
        workload: what is computed.
        peers: the implementations.
        budget: seconds of timing.
        rounds: the most rounds.
        check: whether each answer is compared with float64.
        apart: names of the peers that have separate rounds, after the others.
    """
    rows, programs = prepare(workload, peers, check=check)
    calls = {name: program.call for name, program in programs.items()}
    last = {name: calls.pop(name) for name in apart if name in calls}
    samples = timing.interleave(calls, budget, rounds) | timing.interleave(last, budget / 4, rounds)
    base = samples.get(SELECT, [])
    for row in rows:
        if taken := samples.get(row["name"]):
            row["seconds"] = timing.spread(taken)
            if base:
                in_turn = row["name"] not in last
                row["over_select"] = timing.ratio(taken, base if in_turn else [statistics.median(base)])
    return rows


def prepare(workload: Workload, peers: Sequence[Peer], *, check: bool = False) -> tuple[list[Row], dict[str, Program]]:
    """Return a row for every peer, and the programs of those that compute the workload, each called once."""
    data, rows, programs = draw(workload), [], {}
    for peer in peers:
        row: Row = {"workload": dataclasses.asdict(workload), "name": peer.name}
        try:
            if reason := absent(peer, workload):
                rows.append(row | {"absent": reason})
                continue
            program = peer.make(workload, data)
            rows.append(row | _call(peer, program, workload, check))
            programs[peer.name] = program
        except Exception as failure:  # any error of a library, such as out of memory, becomes its reason
            rows.append(row | {"absent": f"failed: {failure}"[:300]})
            print(f"{peer.name} {rows[-1]['absent']}")
    return rows, programs


def absent(peer: Peer, workload: Workload) -> str | None:
    """Return why a peer cannot compute a workload here; None where it can."""
    if not installed(peer):
        return f"{peer.package} is not installed"
    return peer.lacks(workload, jax.default_backend())


def _call(peer: Peer, program: Program, workload: Workload, check: bool) -> Row:
    """Call a program once, check what it computes, and return what is known of it."""
    equation = peer.equations.get(workload.cell)
    row: Row = {"equation": equation, "compile_seconds": program.compile_seconds}
    row |= {"temporary_bytes": program.temporary_bytes, "driver": _driver(workload) if peer.name == SELECT else None}
    results: list[object] = []
    row["first_seconds"] = timing.seconds(lambda: results.append(program.call()))
    if check:
        row["error"] = error(program.answer(results[0]), reference(workload, equation))
        row["tolerance"] = workload.tolerance
        if not row["error"] < FAR[workload.dtype]:
            raise ValueError(f"off by {row['error']:.1e} from float64: it computes another function")
    return row


def _driver(workload: Workload) -> str:
    """Return the driver that `select` chooses."""
    shape = (workload.time, workload.batch, workload.inputs)
    return str(select(workload.own_cell(), shape, workload.dtype, jax.default_backend()))


def show(title: str, lines: Sequence[Mapping[str, str]]) -> None:
    """Print a table: a line for each mapping, a column for each of its keys, the first one aligned to the left."""
    heads = list(dict.fromkeys(head for line in lines for head in line))
    texts = [heads, *([line.get(head, "") for head in heads] for line in lines)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    print(f"\n{title}")
    for first, *rest in texts:
        cells = (text.rjust(width) for text, width in zip(rest, widths[1:], strict=True))
        print("  ".join((first.ljust(widths[0]), *cells)).rstrip())


def milliseconds(row: Row) -> str:
    """Write the median time of a row; a dash where it has none."""
    return f"{1e3 * row['seconds']['median']:.3f}" if "seconds" in row else "-"
