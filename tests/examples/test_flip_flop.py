"""The three-bit flip-flop, trained for a few steps."""

import json

import pytest

from examples.flip_flop import Main


def test_it_trains_searches_and_draws(tmp_path):
    picture, numbers = tmp_path / "flip-flop.png", tmp_path / "rows.json"
    Main(cell="elman", hidden=8, steps=3, batch=2, length=10, candidates=8, out=picture, json=numbers)()
    (row,) = json.loads(numbers.read_text())
    assert row["stable"] + row["saddles"] >= 1
    assert picture.stat().st_size > 10_000
    with pytest.raises(SystemExit, match="--cell is one of gru, elman"):
        Main(cell="lstm")()
