"""A few workloads through pytest-benchmark: `pytest benchmarks --benchmark-only`, then `--benchmark-compare`."""

import pytest

from .peers.own import OWN
from .workload import Workload, draw, error, reference

SHAPES = [(128, 1, 64, 64), (128, 32, 64, 128)]
WORKLOADS = [
    Workload(cell, *shape, gradient=g) for cell in ("elman", "gru", "lstm") for shape in SHAPES for g in (0, 1)
]


@pytest.mark.parametrize("peer", [OWN[0], OWN[1]], ids=lambda peer: peer.name)
@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
def test_workload(benchmark, workload, peer):
    """Time one driver; what it computes is checked."""
    benchmark.group = str(workload)
    program = peer.make(workload, draw(workload))
    assert error(program.answer(program.call()), reference(workload)) < 1e-4
    benchmark.pedantic(program.call, warmup_rounds=3, rounds=20, iterations=3)
