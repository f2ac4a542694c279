"""Two processes that train the intent model over gloo: equal to one process, also after kills (JAXRNN_KILLS=20)."""

import os
import pathlib
import random
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

WORKER = pathlib.Path(__file__).parent / "worker.py"
KILLS = int(os.environ.get("JAXRNN_KILLS", "1"))
EPOCHS = 5
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("XLA_FLAGS", "JAX_"))}
ENVIRONMENT["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # compilation takes most of the time of these tests


def start(folder, count):
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, str(WORKER)]
    return [
        subprocess.Popen(
            [*command, str(index), str(count), port, str(folder), str(EPOCHS)],
            env={**ENVIRONMENT, "PYTHONPATH": str(WORKER.parents[2])},
            stderr=subprocess.PIPE,
        )
        for index in range(count)
    ]


def finish(processes):
    for process in processes:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors.decode()[-2000:]


def params(folder):
    with np.load(folder / "params.npz") as saved:
        return [saved[name] for name in saved]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Return the folder of two processes that are not killed, and how many seconds they take."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    start_time = time.perf_counter()
    finish(start(folder, 2))
    return folder, time.perf_counter() - start_time


def test_two_processes_train_like_one(uninterrupted, tmp_path):
    finish(start(tmp_path, 1))
    losses = [np.array(f.joinpath("losses.txt").read_text().split(), float) for f in (uninterrupted[0], tmp_path)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for ours, theirs in zip(params(uninterrupted[0]), params(tmp_path), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_killed_process_resumes_from_the_checkpoint(uninterrupted, tmp_path, kill):
    want, seconds = uninterrupted
    processes = start(tmp_path, 2)
    time.sleep(random.Random(kill).uniform(0.3, 1.0) * seconds)
    processes[kill % 2].kill()
    try:
        processes[1 - kill % 2].wait(2)
    except subprocess.TimeoutExpired:
        processes[1 - kill % 2].kill()  # it waits for the other; a scheduler would kill it
    for process in processes:
        process.communicate()
    finish(start(tmp_path, 2))
    for ours, theirs in zip(params(tmp_path), params(want), strict=True):
        np.testing.assert_array_equal(ours, theirs)
