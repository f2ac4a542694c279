"""Long sequences at tiny sizes: rows, and the page made of them."""

from benchmarks import tables
from benchmarks.long import Long
from benchmarks.plots import pictures
from benchmarks.result import read


def test_long_writes_rows_and_a_page_of_them(tmp_path):
    path = tmp_path / "long.json"
    sizes = {"shapes": ((70, 2, 4),), "units": (2,), "batches": (3,), "times": (9,), "error_times": (70,)}
    Long(cells=("min_gru", "lru"), **sizes, budget=0.01, json=path)()
    result = read(path)
    names = {"Scan()", "Associative()", "lax.associative_scan", "select"}
    for cell, found in (("min_gru", names | {"Native()"}), ("lru", names)):
        for gradient in (False, True):
            rows = [row for row in result.rows if (row["cell"], row.get("gradient")) == (cell, gradient)]
            assert {row["name"] for row in rows} == found
    newton = [row for row in result.rows if row["part"] == "newton" and "iterations" in row]
    assert all(row["converged"] and 1 < row["iterations"] < 20 for row in newton)
    errors = [row for row in result.rows if row["part"] == "error"]
    assert all(row["error"] < 1e-5 for row in errors)
    page = tables.long(result)
    assert "min_gru (70, 2, 4) forward+backward" in page
    assert "T=70" in page
    assert len(pictures(result)) == 1
