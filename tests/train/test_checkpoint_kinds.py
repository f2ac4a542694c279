"""Every supported tree is restored exactly; any other raises before anything is written."""

import enum
import json
import os
import random
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import tensorstore

import jaxrnn
from jaxrnn.train import CheckpointError, Checkpoints, DamagedCheckpointError
from jaxrnn.train import _manifest as manifest

KEY = jax.random.key(1)
TREES = {
    "bfloat16": jnp.ones(3, jnp.bfloat16),
    "every dtype": [np.arange(3).astype(t) for t in "?bhiqBHIQefdFD"] + [np.ones(2, ml_dtypes.int4)],
    "big-endian": np.array([1.0, 2.0], ">f4"),
    "numpy without dimensions": np.array(2.5),
    "scalars": [np.float64(1 / 3), np.int64(2**60), jnp.float32(0.1), jnp.array(True)],
    "numbers of Python": {"a": 1 / 3, "b": -7, "c": True, "d": 1j, "e": float("nan")},
    "keys": [KEY, jax.random.PRNGKey(1), jax.random.split(KEY, 3), jax.random.key(1, impl="rbg")],
    "names": {"a/b": jnp.ones(2), "a|b": jnp.zeros(2), "a.b": 1, "..": 2, "": 3, "a']['b": 4, "a": {"b": 5}, "层\n": 6},
    "long names": {"x" * 400: jnp.ones(2)},
    "integers as keys": {1: jnp.ones(2), 10: jnp.zeros(2), -1: jnp.ones(())},
    "no elements": [jnp.zeros((0, 3)), np.zeros((2, 0), np.int8), jax.random.split(KEY, 0)],
    "empty containers": {"a": (), "b": [], "c": {}, "d": None, "e": optax.EmptyState(), "f": jnp.ones(1)},
    "a cell": jaxrnn.LRU(3).init(KEY, 2),
}


class Colour(enum.IntEnum):
    RED = 1


UNSUPPORTED = {
    "longdouble": ({"w": np.ones(2, np.longdouble)}, r"\['w'\] is"),
    "strings": ({"w": np.array(["a"])}, r"\['w'\] is str"),
    "objects": ({"w": np.array([None])}, r"\['w'\] is object\[1\]"),
    "dates": ({"w": np.zeros(1, "datetime64[s]")}, r"\['w'\] is datetime64"),
    "records": ({"w": np.zeros(1, [("a", int)])}, r"\['w'\] is void"),
    "masked": ({"w": np.ma.array([1.0])}, r"\['w'\] is a MaskedArray"),
    "a string": ({"w": "text"}, r"\['w'\] is a str"),
    "a function": ({"w": len}, r"\['w'\] is a builtin"),
    "an enum": ({"w": Colour.RED}, r"\['w'\] is a Colour"),
    "a long integer": ({"w": 2**70}, "64 bits"),
    "no numbers": ({"w": jax.ShapeDtypeStruct((2,), jnp.float32)}, "ShapeDtypeStruct"),
    "keys of two types": ({1: jnp.ones(2), "1": jnp.zeros(2)}, "must be of one type"),
    "objects as keys": ({object(): jnp.ones(2)}, "use str or int"),
}
UNSUPPORTED_RECORDS = {
    "array": ({"a": [1, np.ones(2)]}, r"record\['a'\]\[1\] is a ndarray"),
    "complex": ({"a": 1j}, r"record\['a'\] is a complex"),
    "bytes": ({"a": b"x"}, r"record\['a'\] is a bytes"),
    "int keys": ({"a": {1: 2}}, r"record\['a'\] is a dict with keys that are not strings"),
    "no dict": ([1], "record must be a dict"),
}


def same(a, b):
    assert type(a) is type(b)
    if not isinstance(a, jax.Array | np.ndarray | np.generic):
        assert a == b or a != a
        return
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture(scope="module")
def restored(tmp_path_factory):
    checkpoints = Checkpoints(tmp_path_factory.mktemp("kinds"))
    checkpoints.save(1, TREES)
    return checkpoints.restore(TREES)[0]


@pytest.mark.parametrize("name", TREES)
def test_every_tree_that_is_saved_is_restored_exactly(name, restored):
    assert jax.tree.structure(restored[name]) == jax.tree.structure(TREES[name])
    jax.tree.map(same, restored[name], TREES[name])


@pytest.mark.parametrize("tree", [None, 3.5, jnp.ones(2)], ids=["None", "a number", "an array"])
def test_a_tree_may_be_one_leaf(tree, tmp_path):
    Checkpoints(tmp_path).save(1, tree)
    jax.tree.map(same, Checkpoints(tmp_path).restore(tree)[0], tree)


def test_restore_accepts_shapes_without_values(tmp_path):
    tree = {"w": jnp.arange(3.0), "k": KEY, "none": jnp.zeros((0, 2))}
    Checkpoints(tmp_path).save(1, tree)
    jax.tree.map(same, Checkpoints(tmp_path).restore(jax.eval_shape(lambda: tree))[0], tree)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_unsupported_tree_raises_before_anything_is_written(name, tmp_path):
    tree, match = UNSUPPORTED[name]
    with pytest.raises((TypeError, ValueError), match=match):
        Checkpoints(tmp_path).save(1, tree)
    assert os.listdir(tmp_path) == []


def test_a_donated_array_raises_with_its_name(tmp_path):
    w = jnp.ones(2)
    w.delete()
    with pytest.raises(ValueError, match=r"\['w'\] was deleted"):
        Checkpoints(tmp_path).save(1, {"w": w})


def test_scalars_of_a_record_are_restored_as_numbers(tmp_path):
    record = {"a": np.float32(0.5), "b": jnp.float32(0.25), "c": [np.int64(3), (np.bool_(True), None)], "d": "层"}
    record["nested"] = {"e": float("inf"), "f": jnp.bfloat16(2), "g": np.array(1.5)}
    Checkpoints(tmp_path).save(1, {"w": jnp.ones(2)}, {**record, "nan": np.float64("nan")})
    read = Checkpoints(tmp_path).restore({"w": jnp.ones(2)})[1]
    assert np.isnan(read.pop("nan"))
    assert read == {"a": 0.5, "b": 0.25, "c": [3, [True, None]], "d": "层", "nested": {"e": np.inf, "f": 2, "g": 1.5}}


@pytest.mark.parametrize("name", UNSUPPORTED_RECORDS)
def test_an_unsupported_record_raises_before_anything_is_written(name, tmp_path):
    record, match = UNSUPPORTED_RECORDS[name]
    with pytest.raises(TypeError, match=match):
        Checkpoints(tmp_path).save(1, {"w": jnp.ones(2)}, record)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("other", [{"a": {}}, {"a": None}, {"a": [()]}, {"a": 0}, {}])
def test_another_type_of_empty_container_raises(other, tmp_path):
    Checkpoints(tmp_path).save(1, {"a": ()})
    with pytest.raises(CheckpointError, match=r"\['a'\]"):
        Checkpoints(tmp_path).restore(other)


@pytest.mark.parametrize("epoch", [-1, 1.0, "1", True])
def test_an_epoch_is_an_integer_of_at_least_0(epoch, tmp_path):
    with pytest.raises(ValueError, match="an epoch is an integer"):
        Checkpoints(tmp_path).save(epoch, {})


def test_epochs_ignores_other_files(tmp_path):
    Checkpoints(tmp_path).save(np.int32(3), {"w": jnp.ones(2)})
    for name in ("epoch-4", "epoch-0000005", "epoch-six", "epoch-٠٠٠٠٠٧"):
        (tmp_path / name).mkdir()
    (tmp_path / "epoch-000008").write_text("a file")
    assert Checkpoints(tmp_path).epochs() == [3]


def damaged(data, rng):
    """Return data with some bytes changed, inserted or cut off, or with another number in place of one."""
    at = rng.randrange(len(data) + 1)
    noise = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
    digits = list(re.finditer(rb"\d+", data))
    number = rng.choice(digits).span() if digits else (at, at)
    other = rng.choice([b"-1", b"99999999999999999999", b"1e999", b"null", b'"x"', b"[]", b"[" * 99_999])
    ways = [data[:at], data[:at] + noise + data[at:], data[:at] + noise + data[at + len(noise) :]]
    return rng.choice([*ways, data[: number[0]] + other + data[number[1] :]])


def test_a_damaged_checkpoint_raises_or_is_the_same_even_with_a_new_manifest(tmp_path, capfd):
    tree = {"w": jnp.arange(6.0), "k": KEY, "n": 3, "e": ()}
    checkpoints, rng, raised = Checkpoints(tmp_path), random.Random(0), 0
    path = checkpoints.save(1, tree, {"note": [1.5, "x"]})
    files = sorted(file for file in path.rglob("*") if file.is_file())
    for round in range(120):
        file = files[round % len(files)]
        whole = {name: name.read_bytes() for name in (file, path / manifest.NAME)}
        file.write_bytes(damaged(whole[file], rng))
        if file.name != manifest.NAME:
            manifest.write(path)
        message = ""
        try:
            jax.tree.map(same, checkpoints.restore(tree)[0], tree)
        except CheckpointError as error:
            message = str(error).replace(str(path), "")
        assert len(message) < 300
        assert "version" not in message
        raised += message != ""
        for name, data in whole.items():
            name.write_bytes(data)
    assert raised > 20
    assert "Traceback" not in "".join(capfd.readouterr())
    checkpoints.restore(tree)


@pytest.mark.parametrize("other", [{"w": jnp.zeros(3, jnp.int32)}, {"w": jnp.zeros(2)}, {"w": jnp.full(4, jnp.nan)}])
def test_arrays_of_another_checkpoint_with_a_new_manifest_raise(other, tmp_path):
    ours, theirs = Checkpoints(tmp_path / "ours"), Checkpoints(tmp_path / "theirs")
    ours.save(1, {"w": jnp.ones(3)})
    theirs.save(1, other)
    arrays = tmp_path / "ours" / "epoch-000001" / "arrays"
    arrays.rename(tmp_path / "old")
    (tmp_path / "theirs" / "epoch-000001" / "arrays").rename(arrays)
    manifest.write(arrays.parent)
    with pytest.raises(DamagedCheckpointError, match=r"in place of float32\[3\]"):
        ours.restore({"w": jnp.zeros(3)})


@pytest.mark.parametrize("change", [{"chunks": [10**10]}, {"shape": [10**12]}, {"dtype": "<i4"}, {"compressor": None}])
def test_an_array_with_other_metadata_raises_before_it_is_allocated(change, tmp_path):
    path = Checkpoints(tmp_path).save(1, {"w": jnp.ones(3)})
    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{path}/arrays/"}}
    files = tensorstore.KvStore.open(store).result()
    description = {**json.loads(files.read(b"0/.zarray").result().value), **change}
    files.write(b"0/.zarray", json.dumps(description).encode()).result()
    manifest.write(path)
    with pytest.raises(DamagedCheckpointError, match="arrays is damaged"):
        Checkpoints(tmp_path).restore({"w": jnp.ones(3)})


def test_a_huge_file_is_not_read(tmp_path):
    path = Checkpoints(tmp_path).save(1, {"w": jnp.ones(3)})
    with open(path / "record.json", "ab") as file:
        file.truncate(1 << 40)  # sparse: it takes no space
    with pytest.raises(DamagedCheckpointError, match="more than"):
        Checkpoints(tmp_path).restore({"w": jnp.ones(3)})
