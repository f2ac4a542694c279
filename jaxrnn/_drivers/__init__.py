"""Ways to run a cell over time, a file each."""

from .._kernels.cpu import library
from . import fused as fused
from .associative import Associative as Associative
from .bptt import BPTT as BPTT
from .chunkwise import Chunkwise as Chunkwise
from .driver import Driver as Driver
from .fused import Fused as Fused
from .linearized import DiagonalJacobian as DiagonalJacobian
from .linearized import FullJacobian as FullJacobian
from .loop import Loop as Loop
from .native import Native as Native
from .newton import Newton as Newton
from .scan import Remat as Remat
from .scan import Scan as Scan


def available_drivers() -> dict[str, str | None]:
    """Return for every driver None if it can run on this machine, or the reason why it cannot.

    "Native on AMX" says the same of the matmul units for bfloat16 of a CPU.

    >>> available_drivers()["Scan"] is None
    True
    """
    anywhere = ("Loop", "Scan", "BPTT", "Associative", "Chunkwise", "Newton")
    native = {"Native": library.unavailable_reason(), "Native on AMX": library.missing_tiles()}
    return dict.fromkeys(anywhere) | native | {"Fused": fused.unavailable_reason()}
