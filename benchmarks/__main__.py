"""`python -m benchmarks COMMAND`: what is measured, and how, is in docs/benchmarking.md."""

from __future__ import annotations

import tyro

from .agree import Agree
from .compare import Peers
from .limit import Limit
from .memory import Memory
from .report import Report
from .scaling import Scaling
from .train import Train

if __name__ == "__main__":
    tyro.cli(Peers | Agree | Scaling | Memory | Train | Limit | Report, prog="python -m benchmarks")()
