"""Every peer computes what it is compared on, outputs and gradients; where it cannot, it says why."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.measure import absent, suite
from benchmarks.peers import PEERS, installed, own
from benchmarks.peers.cudnn import packed
from benchmarks.suites import NAMES, SUITES
from benchmarks.workload import Workload, draw, error, reference
from jaxrnn import available_drivers

SHAPE = {"time": 5, "batch": 3, "inputs": 4, "hidden": 6}
WORKLOADS = [
    Workload(cell, **SHAPE, gradient=gradient) for cell in ("elman", "gru", "lstm") for gradient in (False, True)
]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: f"{workload.cell}-{workload.kind}")
def test_agrees(workload, peer):
    reason = peer.lacks(workload, "cpu")
    if reason is not None:
        assert isinstance(reason, str)
        assert reason
        return
    if not installed(peer):
        pytest.skip(f"{peer.package} is an optional peer: pip install 'jaxrnn[peers]'")
    program = peer.make(workload, draw(workload))
    assert error(program.answer(program.call()), reference(workload, peer.equations.get(workload.cell))) < 1e-5


PEERS_OF_16_BITS = [peer for peer in PEERS if peer.name in NAMES["bfloat16"]]


@pytest.mark.parametrize("peer", PEERS_OF_16_BITS, ids=lambda peer: peer.name)
@pytest.mark.parametrize(
    ("cell", "gradient", "dtype"),
    [("elman", True, "bfloat16"), ("gru", True, "bfloat16"), ("lstm", True, "bfloat16"), ("lstm", False, "float16")],
)
def test_agrees_in_16_bits(cell, gradient, dtype, peer):
    workload = Workload(cell, **SHAPE, gradient=gradient, dtype=dtype)
    if reason := absent(peer, workload):
        pytest.skip(reason)
    program = peer.make(workload, draw(workload))
    result = program.call()
    kept = "float32" if peer.name == "jaxrnn float32" else dtype
    assert {str(a.dtype).removeprefix("torch.") for a in jax.tree.leaves(result)} == {kept}
    found = error(program.answer(result), reference(workload))
    assert found < (1e-5 if kept == "float32" else workload.tolerance)


def test_what_is_handed_out_has_16_bits():
    workload = Workload("gru", **SHAPE, dtype="bfloat16")
    for array in jax.tree.leaves(draw(workload)):
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, array.astype(jnp.bfloat16).astype(np.float32))


def test_float32_is_beside_16_bits_alone():
    (peer,) = [peer for peer in PEERS if peer.name == "jaxrnn float32"]
    assert peer.lacks(Workload("lstm", **SHAPE), "cpu") == "bfloat16 and float16 only"


def test_native_itself_says_what_it_does_not_take(monkeypatch):
    if reason := available_drivers()["Native"]:
        pytest.skip(reason)

    def refuse(*args, driver):
        raise ValueError(f"{type(driver).__name__} has no kernel for this")

    workload = Workload("lstm", **SHAPE)
    assert own.native_lacks(workload, "cpu") is None
    monkeypatch.setattr(own.jaxrnn, "unroll", refuse)
    assert own.native_lacks(workload, "cpu") == "Native has no kernel for this"


@pytest.mark.parametrize("name", SUITES)
def test_suites_name_peers_and_workloads(name):
    workloads = suite(name)
    assert len(set(workloads)) == len(workloads)
    assert set(NAMES.get(name, ())) <= {peer.name for peer in PEERS}
    if name == "bfloat16":
        assert {(w.dtype, w.hidden >= 128) for w in workloads} == {("bfloat16", True)}
        standard = {w for w in suite("standard") if w.hidden >= 128}
        assert {dataclasses.replace(w, dtype="float32") for w in workloads} == standard


def test_names_differ():
    assert len({peer.name for peer in PEERS}) == len(PEERS)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_heads_are_ours_alone(platform):
    workload = Workload("lstm", **SHAPE, heads=2)
    able = {peer.name for peer in PEERS if peer.lacks(workload, platform) is None}
    assert able >= {"jaxrnn select", "jaxrnn Scan", "jaxrnn BPTT", "Python loop"}
    assert able <= {peer.name for peer in PEERS if peer.package == "jaxrnn"}


def test_packed_for_cudnn():
    """Its weights are in order: `jax.experimental.rnn` has a reference that needs no GPU."""
    from jax.experimental import rnn

    workload = Workload("lstm", **SHAPE)
    params, xs = draw(workload)
    sizes = (SHAPE["inputs"], SHAPE["hidden"], 1)
    weights = rnn.unpack_lstm_weights(packed(jax.tree.map(jnp.asarray, params)), *sizes, False)
    zeros = jnp.zeros((1, SHAPE["batch"], SHAPE["hidden"]))
    lengths = jnp.full((SHAPE["batch"],), SHAPE["time"], jnp.int32)
    ys = rnn.lstm_ref(jnp.asarray(xs.swapaxes(0, 1)), zeros, zeros, *weights, lengths, *sizes, 0.0, False)[0]
    np.testing.assert_allclose(ys.swapaxes(0, 1), reference(workload).ys, atol=1e-5)
