"""What is compared, in the order of the tables: loops, jaxrnn's drivers, then other libraries, imported when used."""

from __future__ import annotations

from . import cudnn, equinox, flax, haiku, keras, onnxruntime
from .own import BASELINES, IN_FLOAT32, OWN
from .peer import Peer, Program, Supports, installed
from .torch import TORCH

PEERS: tuple[Peer, ...] = (
    *BASELINES,
    *OWN,
    IN_FLOAT32,
    Peer("flax nnx.RNN", "flax", flax.make_nnx),
    Peer("flax linen.RNN", "flax", flax.make_linen),
    Peer("haiku", "haiku", haiku.make, equations=haiku.EQUATIONS),
    Peer("equinox", "equinox", equinox.make, Supports(cells=("gru", "lstm"))),
    Peer("keras", "keras", keras.make, Supports(reason=keras.unsupported_on_gpu)),
    *TORCH,
    Peer("onnxruntime", "onnxruntime", onnxruntime.make, onnxruntime.SUPPORTS),
    Peer("jax.experimental.rnn", "jax", cudnn.make, Supports(("gpu",), ("lstm",), ("float32",))),
)
"""Every peer, whether it is installed here or not."""


def choose(names: tuple[str, ...], peers: tuple[Peer, ...] = PEERS) -> list[Peer]:
    """Return the peers of these names, all where there are none."""
    known = {peer.name: peer for peer in peers}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"names are of {', '.join(map(repr, known))}; got {', '.join(map(repr, unknown))}")
    return [known[name] for name in names or known]


__all__ = ["PEERS", "Peer", "Program", "choose", "installed"]
