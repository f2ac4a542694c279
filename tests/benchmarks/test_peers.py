"""Every peer computes what it is compared on, outputs and gradients; where it cannot, it says why."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.peers import PEERS, installed
from benchmarks.peers.cudnn import packed
from benchmarks.workload import Workload, draw, error, reference

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


def test_names_differ():
    assert len({peer.name for peer in PEERS}) == len(PEERS)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_heads_are_ours_alone(platform):
    workload = Workload("lstm", **SHAPE, heads=2)
    absent = {"cpu": ("jaxrnn Native", "jaxrnn Fused"), "gpu": ("jaxrnn Native",)}[platform]
    assert {peer.name for peer in PEERS if peer.lacks(workload, platform) is None} == {
        peer.name for peer in PEERS if peer.package == "jaxrnn" and peer.name not in absent
    }


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
