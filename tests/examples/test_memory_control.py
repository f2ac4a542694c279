"""Memory control at a tiny size: the mazes, the advantages, the stored state, and the files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples import maze, memory_control, ppo
from examples.memory_control import Main, policy
from examples.ppo import Learner

SIZES = {"mazes": 4, "steps": 12, "length": 3, "windows": 6, "rate": 1e-3, "seed": 0}


def test_a_maze_shows_its_sign_once_and_pays_for_the_right_turn():
    mazes = maze.start(jax.random.key(0), 8)
    xs = maze.observe(mazes, 2)
    np.testing.assert_array_equal(xs[:, :2].argmax(-1) + 1, mazes.goal)
    key, forward = jax.random.key(1), jnp.zeros(8, jnp.int32)
    for at in range(2):
        mazes, outcome = maze.move(mazes, forward, key, 2)
        assert not outcome.done.any()
        assert not maze.observe(mazes, 2)[:, :2].any()
        np.testing.assert_array_equal(maze.observe(mazes, 2)[:, 3], at == 1)
    turn = jnp.where(jnp.arange(8) < 4, mazes.goal, 3 - mazes.goal)
    mazes, outcome = maze.move(mazes, turn, key, 2)
    assert outcome.done.all()
    np.testing.assert_array_equal(outcome.reward, [1] * 4 + [-1] * 4)
    np.testing.assert_array_equal(outcome.right, jnp.arange(8) < 4)
    assert not mazes.time.any()
    for _ in range(6):
        mazes, outcome = maze.move(mazes, forward + 1, key, 2)
    assert outcome.done.all()
    assert not outcome.right.any()


def test_a_window_stores_the_state_before_it():
    """The outputs of a window, run again from its state, are those of the play; resets are done, one step later."""
    learner = Learner(policy("LSTM"), **SIZES)
    params = learner.train.params
    given = learner.carry
    for seed in range(2):
        given, window, (advantages, returns) = ppo.play(learner.policy, params, given, jax.random.key(seed), 12, 3)
        _, ys = learner.policy.run(learner.policy.layers, params, window.xs, window.state, resets=window.resets)
        np.testing.assert_allclose(ys[..., -1], window.values, atol=1e-5)
        np.testing.assert_allclose(ppo.log_prob(ys, window.actions), window.log_probs, atol=1e-5)
        np.testing.assert_array_equal(window.resets[1:], window.outcome.done[:-1])
    assert window.outcome.done.any()
    t, b = jnp.argwhere(window.outcome.done)[0]
    assert returns[t, b] == pytest.approx(float(window.outcome.reward[t, b]), abs=1e-5)


def test_parts_are_all_rows_once():
    learner = Learner(policy("GRU"), **SIZES)
    _, window, targets = ppo.play(learner.policy, learner.train.params, learner.carry, jax.random.key(0), 12, 3)
    found = ppo.parts(window, targets, jax.random.key(1))
    assert len(found) == ppo.PARTS
    assert sorted(float(part.values[0, 0]) for part, *_ in found) == sorted(np.asarray(window.values[0]).tolist())
    assert found[0][0].state[1].shape == (1, memory_control.HIDDEN)


def test_it_trains_compares_and_writes(tmp_path, capsys):
    out = tmp_path / "out"
    Main(length=3, mazes=4, steps=8, windows=5, memories=("no memory",), compare=True, out=out)()
    results = json.loads((out / "results.json").read_text())
    assert [*results] == ["no memory", "steps per second"]
    assert [*results["steps per second"]] == ["jaxrnn", "flax.linen"]
    assert (out / "right.png").stat().st_size > 10_000
    assert (out / "no-memory" / "weights.safetensors").exists()
    assert "steps per second" in capsys.readouterr().out


def test_errors_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="takes names of GRU"):
        Main(memories=("transformer",))()
    with pytest.raises(SystemExit, match="a multiple of 4"):
        Main(mazes=6)()
    (tmp_path / "file").touch()
    monkeypatch.setattr("sys.argv", ["memory_control", "--out", str(tmp_path / "file")])
    with pytest.raises(SystemExit, match="cannot write there"):
        memory_control.main()
