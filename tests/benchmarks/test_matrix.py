"""Matrix memories at tiny sizes: the rows and the page, not the times."""

import json

import pytest

from benchmarks import matrix, result
from benchmarks.matrix import Matrix


def test_matrix_writes_a_row_for_each_driver_and_what_the_page_shows(tmp_path):
    path = tmp_path / "matrix.json"
    Matrix(("KDA",), ("Chunkwise()", "Scan()"), ((9, 2, 1, 2, 3),), 12, 20, 0.01, path)()
    rows = json.loads(path.read_text())["rows"]
    timed = [row for row in rows if "seconds" in row]
    assert len(timed) == 2 * 2
    assert all(row["percent"] > 0 and row["scan_over"]["median"] > 0 for row in timed)
    assert [row["finite"] for row in rows if "finite" in row] == [True]
    assert all(row["float32 Chunkwise"] < 1e-5 for row in rows if "float32 Chunkwise" in row)
    page = matrix.page(result.read(path))
    assert "T=9 B=2 N=1 K=2 V=3" in page
    assert "KDA, Chunkwise()" in page


def test_flops_of_the_chunked_form():
    assert matrix.flops("Mamba2", (1, 1, 1, 64, 64)) == 2 * 64 * 128 + 4 * 64 * 64
    assert matrix.flops("GatedDeltaNet", (2, 3, 4, 64, 64)) == 24 * (4 * 64 * 128 + 6 * 64 * 64)


def test_matrix_names_what_it_knows():
    with pytest.raises(ValueError, match="cells are of MLSTM"):
        Matrix(cells=("LSTM",))()
