"""Training in 16 bits at tiny sizes: what is cast, what is trained on, rows and the page."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import timing, train_dtypes
from benchmarks.result import read
from benchmarks.train_dtypes import TrainDtypes, characters, intent

TEXT = "the quick brown fox jumps over the lazy dog. " * 40


@pytest.fixture(scope="module")
def course():
    return characters(TEXT, hidden=6, batch=3, window=5, steps=20, seed=0)


def test_only_the_recurrent_layers_are_cast(course):
    params = course.cast(course.params, "bfloat16")
    assert {a.dtype for a in jax.tree.leaves(params.layers)} == {jnp.dtype("bfloat16")}
    assert {a.dtype for a in jax.tree.leaves((params.embed, params.readout))} == {jnp.dtype("float32")}
    loss = course.loss_in("bfloat16")
    grads = jax.grad(lambda p: loss.loss(p, loss.initial(p), course.batches[0], None)[1])(course.params)
    assert {a.dtype for a in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    assert all(np.any(a) for a in jax.tree.leaves(grads))


def test_the_intent_model_is_cast_likewise():
    course = intent(epochs=1, seed=0)
    params = course.cast(course.params, "float16").model
    assert {a.dtype for a in jax.tree.leaves(params.layers)} == {jnp.dtype("float16")}
    assert {a.dtype for a in jax.tree.leaves((params.embed, params.readout))} == {jnp.dtype("float32")}
    assert sum(map(course.samples, course.batches)) == 2660


def test_windows_follow_each_other_and_the_test_is_held_out(course):
    ids, labels = course.batches[0].xs
    following = course.batches[1].xs[0]
    assert ids.shape == labels.shape == (5, 3)
    np.testing.assert_array_equal(labels[:-1], ids[1:])
    np.testing.assert_array_equal(labels[-1], following[0])
    assert [bool(b.resets.any()) for b in course.batches] == [True, *[False] * 19]
    known = sorted(set(TEXT))
    held_out = TEXT[int(0.9 * len(TEXT)) :][: len(TEXT) // 10 // 3]  # the first of three rows
    first = "".join(known[i] for window in course.test() for i in window.xs[0][:, 0])
    assert held_out.startswith(first)
    assert {tuple(window.lengths) for window in course.test()} == {(5, 5, 5)}


def test_rows_and_page(monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "SETTLE", 0.0)
    path, text = tmp_path / "train_dtypes.json", tmp_path / "text.txt"
    text.write_text(TEXT)
    sizes = {"steps": 25, "hidden": 6, "batch": 3, "window": 5}
    TrainDtypes(epochs=0, text=text, **sizes, json=path)()
    result = read(path)
    absent, full, short = result.rows
    assert absent["absent"] == "left out: --epochs 0"
    assert (full["name"], short["name"], full["steps"], full["skipped"]) == ("float32", "bfloat16", 25, 0)
    assert full["ratio"]["median"] == 1
    assert (
        full["samples_per_second"]["samples"] == short["samples_per_second"]["samples"] == 2
    )  # the last turn is one step
    assert short["loss"] == pytest.approx(full["loss"], rel=0.02)
    assert 0 < full["loss"] < np.log(len(set(TEXT)))
    page = train_dtypes.page(result)
    assert "**characters, LSTM of 6 units**, 25 steps" in page
    assert f"| bfloat16, seed 0 | {train_dtypes.figure(short['samples_per_second']['median'])} |" in page


def test_what_is_missing_is_named(tmp_path):
    path = tmp_path / "train_dtypes.json"
    TrainDtypes(epochs=0, text=tmp_path / "none.txt", json=path)()
    assert "none.txt: name a text with --text" in read(path).rows[1]["absent"]


def test_steps_that_are_too_short_to_be_timed(monkeypatch, course):
    monkeypatch.setattr(timing, "SETTLE", 1e3)
    with pytest.raises(ValueError, match=r"characters, LSTM of 6 units: no turn of 12 steps lasts 1000.0 s"):
        train_dtypes.measure(course, ("float32",), 0)
