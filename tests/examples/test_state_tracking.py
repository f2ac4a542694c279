"""State tracking at a tiny size: the problems, and the files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples import state_tracking
from examples.state_tracking import PROBLEMS, Main


def test_swaps_are_a_group():
    """Every symbol permutes the states, and a swap undone is the state before."""
    table = PROBLEMS["swaps"]
    assert table.shape == (6, 4)
    for symbol in range(4):
        assert sorted(table[:, symbol]) == list(range(6))
        np.testing.assert_array_equal(table[table[:, symbol], symbol], np.arange(6))
    assert len(set(table[0])) == 4


def test_targets_are_the_states_so_far():
    xs, states = state_tracking.draw(jax.random.key(0), jnp.asarray(PROBLEMS["parity"]), 20, 3)
    bits = np.asarray(xs[1:, :, :2].argmax(-1))
    np.testing.assert_array_equal(states[1:], bits.cumsum(0) % 2)
    assert (np.asarray(xs[0]).argmax(-1) == 2).all()


def test_it_trains_and_writes(tmp_path):
    out = tmp_path / "plot.png"
    Main(length=8, lengths=(8, 12), batch=2, steps=8, cells=("sLSTM", "Mamba-2"), out=out)()
    results = json.loads(out.with_suffix(".json").read_text())["results"]
    assert out.stat().st_size > 10_000
    assert {name: [*rows] for name, rows in results.items()} == {name: ["sLSTM", "Mamba-2"] for name in PROBLEMS}
    with pytest.raises(SystemExit, match="takes names of sLSTM"):
        Main(cells=("transformer",))()
