"""What is compared, in the order of the tables: loops, our drivers, then other libraries, each imported when made."""

from .cudnn import CuDNN
from .equinox import Equinox
from .flax import FLAX
from .haiku import Haiku
from .keras import Keras
from .onnxruntime import OnnxRuntime
from .own import BASELINES, OWN
from .peer import Peer, Program, installed
from .torch import TORCH

PEERS: tuple[Peer, ...] = (
    *BASELINES,
    *OWN,
    *FLAX,
    Haiku(),
    Equinox(),
    Keras(),
    *TORCH,
    OnnxRuntime(),
    CuDNN(),
)
"""Every peer, whether it is installed here or not."""

__all__ = ["PEERS", "Peer", "Program", "installed"]
