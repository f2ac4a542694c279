"""`vmap` next to a batch axis at tiny sizes: the rows, not the times."""

import pytest

from benchmarks import record
from benchmarks.vmap import Vmap


def test_vmap_writes_a_row_for_each_driver_with_and_without_resets(tmp_path):
    path = tmp_path / "vmap.json"
    names = ("BPTT()", "Associative()", "Fused()")
    Vmap(names, time=6, rows=3, inputs=4, hidden=8, resets=(0.0, 0.5), budget=0.02, json=path)()
    rows = record.read(path)["rows"]
    assert [(row["name"], row["resets"]) for row in rows] == [(name, share) for share in (0.0, 0.5) for name in names]
    for row in rows:
        if "absent" in row:
            continue
        assert row["error"] < 1e-5
        assert row["memory_ratio"] == row["vmap"]["temporary_bytes"] / row["batch_axis"]["temporary_bytes"]
        assert row["vmap"]["seconds"]["median"] > 0
        assert row["time_ratio"]["samples"] >= 1


def test_vmap_names_what_it_knows():
    with pytest.raises(ValueError, match=r"BPTT\(\).*; got Scam\(\)"):
        Vmap(names=("Scam()",))()
