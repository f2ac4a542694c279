"""The search for fixed points and Lyapunov exponents at tiny sizes."""

import json

import pytest

from benchmarks import dynamics, result
from benchmarks.dynamics import Dynamics


@pytest.mark.filterwarnings("ignore:pkg_resources")
def test_dynamics_writes_a_row_for_each_method(tmp_path):
    path = tmp_path / "dynamics.json"
    Dynamics(hidden=3, candidates=4, adam=20, training=2, exponents=2, steps=40, json=path)()
    rows = json.loads(path.read_text())["rows"]
    assert [row["what"] for row in rows] == ["fixed points"] * 3 + ["Lyapunov exponents"] * 2
    assert all("absent" not in row for row in rows if row["name"] in ("jaxrnn", "Adam alone, JAX"))
    assert "fixed points: jaxrnn" in dynamics.page(result.read(path))
