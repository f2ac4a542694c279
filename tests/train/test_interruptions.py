"""Interruptions of training: damaged checkpoints, a second run, a full disk, Ctrl-C."""

import errno
import json
import os
import signal

import filelock
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from examples.intent import commands
from examples.intent.__main__ import main
from jaxrnn.train import CheckpointError, Checkpoints, DamagedCheckpointError, fit
from jaxrnn.train import _manifest as manifest

W = {"w": jnp.ones(2)}


@pytest.fixture
def three(tmp_path):
    """Return three checkpoints, of which the newest is damaged."""
    checkpoints = Checkpoints(tmp_path / "c")
    for epoch in (1, 2, 3):
        checkpoints.save(epoch, {"w": jnp.full(2, epoch * 1.0)})
    (tmp_path / "c" / "epoch-000003" / "record.json").write_text("{}")
    return checkpoints


def test_the_error_of_a_damaged_newest_checkpoint_says_how_to_resume(three):
    with pytest.raises(DamagedCheckpointError, match=r"record\.json was changed.*epoch 2.*skip_damaged=True") as caught:
        three.restore(W)
    assert len(str(caught.value)) < 300 + len(str(three.directory))
    skipping = Checkpoints(three.directory, skip_damaged=True)
    with pytest.warns(UserWarning, match=r"record\.json was changed.*Skipped: trying epoch 2"):
        tree, _ = skipping.restore(W)
    assert tree["w"].tolist() == [2, 2]
    with pytest.raises(DamagedCheckpointError, match="skip_damaged"):
        skipping.restore(W, 3)  # by number
    with pytest.raises(CheckpointError, match="already exists"):
        skipping.save(2, W)  # it is undamaged
    with pytest.raises(CheckpointError, match="already exists"):
        three.save(3, W)
    skipping.save(3, W)
    assert three.restore(W)[0]["w"].tolist() == [1, 1]
    assert three.epochs() == [1, 2, 3]


def test_if_all_are_damaged_restore_raises(three):
    for epoch in (1, 2):
        (three.directory / f"epoch-00000{epoch}" / "record.json").write_text("{}")
    with (
        pytest.warns(UserWarning, match="Skipped"),
        pytest.raises(DamagedCheckpointError, match=r"epoch-000001.* There is no undamaged checkpoint before it"),
    ):
        Checkpoints(three.directory, skip_damaged=True).restore(W)


def test_a_second_run_raises_and_locks_nest(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with checkpoints.lock(), Checkpoints(tmp_path).lock():
        checkpoints.save(1, W)
    (tmp_path / "unfinished-epoch-000002").mkdir()  # of the other run
    with filelock.FileLock(tmp_path / ".lock"):
        with pytest.raises(CheckpointError, match="another run saves checkpoints"):
            checkpoints.save(2, W)
        with pytest.raises(CheckpointError, match="another run saves checkpoints"):
            train(1, checkpoints)
        assert checkpoints.restore(W)[0]["w"].tolist() == [1, 1]  # reading needs no lock
        assert (tmp_path / "unfinished-epoch-000002").is_dir()
    checkpoints.save(2, W)
    assert checkpoints.epochs() == [1, 2]


FULL = [
    OSError(errno.ENOSPC, "No space left on device", "/a/path"),
    ValueError("RESOURCE_EXHAUSTED: Error writing ... [os_error_code='28']"),  # from TensorStore
]


@pytest.mark.parametrize("error", FULL)
def test_a_full_disk_raises_one_sentence_and_keeps_earlier_checkpoints(error, tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, W)

    def full(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write", full)
        with pytest.raises(OSError, match="No space left on device") as caught:
            checkpoints.save(2, W)
    assert str(caught.value) == f"{tmp_path}/epoch-000002 was not saved: No space left on device. Saved before: [1]"
    assert sorted(os.listdir(tmp_path)) == [".lock", "epoch-000001"]
    assert checkpoints.restore(W)[0]["w"].tolist() == [1, 1]
    checkpoints.save(2, W)
    assert checkpoints.epochs() == [2]


def loss(w, batch, key):
    return jnp.mean((batch - w) ** 2), {}


def batches(epoch):
    return [np.random.default_rng((epoch, i)).normal(size=(4, 2)).astype(np.float32) for i in range(3)]


def train(epochs, checkpoints=None, batches=batches, **options):
    settings = {"optimizer": optax.sgd(0.1), "epochs": epochs, "key": jax.random.key(0), "progress": False, **options}
    return fit(loss, jnp.zeros(2), batches, checkpoints=checkpoints, **settings)


def interrupted(epoch, times=1):
    """Return batches during which Ctrl-C is pressed."""

    def pressed(now):
        for i, batch in enumerate(batches(now)):
            for _ in range(times if (now, i) == (epoch, 1) else 0):
                signal.raise_signal(signal.SIGINT)
            yield batch

    return pressed


def test_ctrl_c_stops_training_with_one_sentence_and_the_same_call_resumes(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(KeyboardInterrupt, match=r"^training stopped before its first epoch was saved"):
        train(4, checkpoints, interrupted(0))
    with pytest.raises(
        KeyboardInterrupt, match=r"^training stopped; epoch 2 is saved in .*: the same training resumes"
    ):
        train(4, checkpoints, interrupted(2))
    with pytest.raises(KeyboardInterrupt, match="without checkpoints nothing"):
        train(4, batches=interrupted(2))
    assert signal.getsignal(signal.SIGINT) is before
    assert train(4, checkpoints).params.tolist() == train(4).params.tolist()


def test_a_second_ctrl_c_takes_effect_at_once(tmp_path):
    taken = []

    def slow(epoch):
        signal.raise_signal(signal.SIGINT)
        taken.append("first")
        signal.raise_signal(signal.SIGINT)
        taken.append("second")
        return batches(epoch)

    with pytest.raises(KeyboardInterrupt):
        train(1, batches=slow)
    assert taken == ["first"]


def test_ctrl_c_during_a_save_takes_effect_after_it(tmp_path, monkeypatch):
    write = manifest.write

    def pressed(path):
        signal.raise_signal(signal.SIGINT)
        write(path)

    monkeypatch.setattr(manifest, "write", pressed)
    with pytest.raises(KeyboardInterrupt):
        Checkpoints(tmp_path).save(1, W)
    with pytest.raises(KeyboardInterrupt, match="epoch 1 is saved"):
        train(2, Checkpoints(tmp_path / "fit"))
    assert Checkpoints(tmp_path).restore(W)[0]["w"].tolist() == [1, 1]


HISTORIES = [
    None,
    [1],
    [{}],
    [{"epoch": 0, "skipped": 0, "seconds": "1"}],
    [{"epoch": 0, "skipped": 0, "seconds": 10**400}],
    [{"epoch": 1, "skipped": 0, "seconds": 1.0}],
]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    checkpoints = Checkpoints(tmp_path_factory.mktemp("one"))
    train(1, checkpoints)
    return checkpoints


@pytest.mark.parametrize("history", HISTORIES)
def test_a_record_that_is_no_history_raises(history, one):
    path = one.directory / "epoch-000001"
    saved = json.loads((path / "record.json").read_text())
    saved["record"]["history"] = history
    (path / "record.json").write_text(json.dumps(saved))
    manifest.write(path)
    with pytest.raises(DamagedCheckpointError, match="no history of epochs"):
        train(2, one)


def test_saved_params_that_are_nan_raise(tmp_path):
    result = train(1, Checkpoints(tmp_path))
    state = result.state._replace(params=jnp.array([1.0, jnp.nan]))
    Checkpoints(tmp_path).save(2, (state, ()), {"history": result.history, "best": ["loss", "min"]})
    with pytest.raises(DamagedCheckpointError, match="NaN"):
        train(3, Checkpoints(tmp_path))


def test_ctrl_c_ends_the_command_with_one_line_and_exit_status_130(tmp_path, monkeypatch, capsys):
    def stopped(*_, checkpoints, **__):
        train(1, checkpoints, interrupted(0))

    monkeypatch.setattr(commands, "train", stopped)
    arguments = ["train", "--checkpoints", str(tmp_path / "c"), "--bundle", str(tmp_path / "b")]
    assert main(arguments) == 130
    assert capsys.readouterr().err == f"training stopped before its first epoch was saved to {tmp_path / 'c'}\n"
    with filelock.FileLock(tmp_path / "c" / ".lock"):
        assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: another run saves checkpoints")
