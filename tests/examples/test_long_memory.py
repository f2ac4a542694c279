"""The long-memory example: its problems, and a short run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.long_memory import LENGTH, SYMBOLS, Main, Problem


def test_the_target_of_adding_is_the_sum_of_two_numbers():
    xs, targets = Problem("adding", 50, 6).draw(jax.random.key(0))
    numbers, flags = np.asarray(xs[..., 0]), np.asarray(xs[..., 1])
    assert (flags.sum(axis=0) == 2).all()
    assert (flags[:25].sum(axis=0) == 1).all()
    np.testing.assert_allclose((numbers * flags).sum(axis=0), targets, rtol=1e-6)


def test_the_target_of_copy_is_the_first_symbols():
    problem = Problem("copy", 50, 6)
    xs, targets = problem.draw(jax.random.key(0))
    np.testing.assert_array_equal(xs[:LENGTH].argmax(axis=-1), targets)
    assert (xs[LENGTH:-LENGTH].argmax(axis=-1) == SYMBOLS).all()
    loss, accuracy = problem.loss(jnp.zeros((50, 6, SYMBOLS)), targets)
    assert float(loss) == pytest.approx(problem.memoryless_loss)
    assert 0 <= accuracy < 0.5


@pytest.mark.parametrize("problem", ["adding", "copy"])
def test_the_command_writes_results_and_a_plot(tmp_path, capsys, problem):
    cells = ("lru", "gru") if problem == "adding" else ("rg_lru",)
    Main(problem, time=40, batch=4, hidden=8, steps=12, cells=cells, out=tmp_path / "picture.png")()
    found = json.loads((tmp_path / "picture.json").read_text())
    assert set(found["cells"]) == set(cells)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert all(f"{name}: " in capsys.readouterr().out for name in cells[:1])
