"""Stacks of blocks next to an LSTM at tiny sizes."""

import json

import pytest

from benchmarks import blocks, result
from benchmarks.blocks import Blocks


def test_blocks_trains_each_stack_and_an_lstm_of_as_many_params(tmp_path):
    text, path = tmp_path / "text.txt", tmp_path / "blocks.json"
    text.write_text("what time is it ? " * 60)
    Blocks(("mamba2,s5",), features=32, seconds=0.02, batch=2, window=16, text=text, json=path)()
    rows = json.loads(path.read_text())["rows"]
    assert [row["name"].split()[0] for row in rows] == ["mamba2,s5", "LSTM"]
    assert 0.9 < rows[1]["params"] / rows[0]["params"] < 1.2
    assert "mamba2, s5" in blocks.page(result.read(path))


def test_blocks_names_what_it_knows(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("a" * 50)
    with pytest.raises(SystemExit, match="stacks are of griffin"):
        Blocks(("transformer",), text=text)()
    with pytest.raises(SystemExit, match="name a text with --text"):
        Blocks(text=tmp_path / "none.txt")()
