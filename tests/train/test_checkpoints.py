"""Checkpoints: exact, verified bit for bit, complete or absent; and a restart that changes nothing."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrnn.train import Checkpoints, EarlyStopping, fit
from jaxrnn.train import _manifest as manifest

KEY = jax.random.key(3)
TREE = {
    "w": jnp.array([1.0, jnp.nan, -0.0]),
    "half": jnp.arange(4, dtype=jnp.bfloat16),
    "nested": (optax.EmptyState(), [jnp.array(7), jnp.array(True)]),
    "key": KEY,
}


def bits(tree):
    plain = lambda a: jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a
    return [(np.asarray(plain(a)).tobytes(), plain(a).dtype, plain(a).shape) for a in jax.tree.leaves(tree)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    checkpoints = Checkpoints(tmp_path_factory.mktemp("saved"))
    checkpoints.save(1, TREE, {"loss": 0.1, "nan": float("nan")})
    return checkpoints


@pytest.fixture
def theirs(saved, tmp_path):
    """Return a copy that a test may damage."""
    shutil.copytree(saved.directory, tmp_path / "copy")
    return Checkpoints(tmp_path / "copy")


def files(checkpoints):
    root = checkpoints.directory / "epoch-000001"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_restore_returns_what_was_saved_bit_for_bit(saved):
    tree, record = saved.restore(jax.tree.map(jnp.zeros_like, TREE))
    assert bits(tree) == bits(TREE)
    assert jax.tree.structure(tree) == jax.tree.structure(TREE)
    assert record["loss"] == 0.1
    assert np.isnan(record["nan"])
    assert not [name for name in files(saved) if "pickle" in name or name.endswith(".pkl")]


def test_a_flipped_bit_in_any_file_raises_with_its_name(theirs):
    names = files(theirs)
    assert len(names) > 3
    for name in names:
        path = theirs.directory / "epoch-000001" / name
        whole = path.read_bytes()
        if not whole:
            continue
        for place in {0, len(whole) // 2, len(whole) - 1}:
            for bit in (0, 5):
                damaged = bytearray(whole)
                damaged[place] ^= 1 << bit
                path.write_bytes(bytes(damaged))
                named = name if name != manifest.NAME else "epoch-000001"
                with pytest.raises(ValueError, match=named.replace("+", r"\+")):
                    manifest.verify(path.parents[len(name.split("/")) - 1])
        path.write_bytes(whole)
    theirs.restore(TREE)


def test_restore_verifies(theirs):
    path = next(p for p in theirs.directory.rglob("*") if p.is_file() and p.parent.name == "d")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=path.name):
        theirs.restore(TREE)


def test_missing_and_added_files_raise(theirs):
    root = theirs.directory / "epoch-000001"
    (root / "more").write_text("x")
    with pytest.raises(ValueError, match="more is not listed"):
        theirs.restore(TREE)
    (root / "more").unlink()
    (root / "record.json").unlink()
    with pytest.raises(ValueError, match=r"record\.json is missing"):
        theirs.restore(TREE)
    (root / manifest.NAME).unlink()
    with pytest.raises(ValueError, match="SHA256SUMS is missing"):
        theirs.restore(TREE)


def test_another_tree_raises(saved):
    with pytest.raises(ValueError, match=r"\['w'\] is float32\[3\] in the checkpoint, but float32\[2\] in the tree"):
        saved.restore({**TREE, "w": jnp.zeros(2)})
    with pytest.raises(ValueError, match="is missing in the checkpoint"):
        saved.restore({**TREE, "v": jnp.zeros(2)})
    with pytest.raises(ValueError, match="requested 9"):
        saved.restore(TREE, 9)
    with pytest.raises(ValueError, match="already exists"):
        saved.save(1, TREE)


def test_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new", keep=2)
    assert checkpoints.latest() is None
    for epoch in (1, 2, 3):
        checkpoints.save(epoch, {"w": jnp.full(2, epoch)})
    assert checkpoints.epochs() == [2, 3]
    assert checkpoints.restore({"w": jnp.zeros(2, jnp.int32)})[0]["w"].tolist() == [3, 3]
    assert checkpoints.restore({"w": jnp.zeros(2, jnp.int32)}, 2)[0]["w"].tolist() == [2, 2]
    with pytest.raises(ValueError, match="keep must be"):
        Checkpoints(tmp_path, keep=0)


def stop(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "where", ["jaxrnn.train._manifest.write", "pathlib.Path.rename", "orbax.checkpoint.StandardCheckpointer.save"]
)
def test_an_interrupted_save_leaves_no_checkpoint(where, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        if where != "pathlib.Path.rename":
            patch.setattr(where, stop)
        else:
            patch.setattr("jaxrnn.train._checkpoints.Path.rename", interrupted_rename)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(1, {"w": jnp.ones(2)})
    assert checkpoints.latest() is None
    with pytest.raises(ValueError, match="requested the newest"):
        checkpoints.restore({"w": jnp.ones(2)})
    checkpoints.save(1, {"w": jnp.ones(2)})
    assert checkpoints.epochs() == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "epoch-000001"]


def interrupted_rename(path, target):
    if path.name.startswith("unfinished-"):
        raise KeyboardInterrupt
    path.replace(target)


def loss(w, batch, key):
    noise = jax.random.normal(key, batch.shape)
    return jnp.mean((batch + 0.1 * noise - w) ** 2), {}


def batches(epoch):
    rng = np.random.default_rng((0, epoch))
    return [rng.normal(size=(4, 2)).astype(np.float32) for _ in range(3)]


def train(epochs, checkpoints=None, **options):
    evaluate = lambda w: {"loss": float(jnp.abs(w - 0.1).sum())}
    settings = {"evaluate": evaluate, "key": KEY, "progress": False, **options}
    return fit(
        loss, jnp.ones(2), batches, optimizer=optax.adam(0.1), epochs=epochs, checkpoints=checkpoints, **settings
    )


def without_seconds(history):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


@pytest.mark.optimised
def test_a_restart_resumes_bit_for_bit(tmp_path):
    straight = train(4)
    train(2, Checkpoints(tmp_path))
    resumed = train(4, Checkpoints(tmp_path), key=jax.random.key(99))  # the saved key is used
    assert bits((straight.params, straight.state)) == bits((resumed.params, resumed.state))
    assert without_seconds(straight.history) == without_seconds(resumed.history)
    assert Checkpoints(tmp_path).epochs() == [2, 3, 4]
    again = train(4, Checkpoints(tmp_path))
    assert bits(again.params) == bits(straight.params)
    with pytest.raises(ValueError, match="does not fit"):
        train(5, Checkpoints(tmp_path), evaluate=None)
    with pytest.raises(ValueError, match="best params by"):
        train(5, Checkpoints(tmp_path), early_stopping=EarlyStopping(mode="max"))
