"""`python -m benchmarks COMMAND`: what is measured, and how, is in docs/benchmarking.md."""

from __future__ import annotations

from .timing import keep_memory


def main() -> None:
    """Run a command. Everything that starts threads is imported after `keep_memory`."""
    keep_memory()
    import tyro

    from examples.intent.benchmarks.load import Load
    from examples.intent.benchmarks.train import Train

    from .agree import Agree
    from .blocks import Blocks
    from .compare import Peers
    from .dynamics import Dynamics
    from .limit import Limit
    from .long import Long
    from .matrix import Matrix
    from .memory import Memory
    from .oversubscription import Oversubscription
    from .precision import Precision
    from .report import Report
    from .scaling import Scaling
    from .train_dtypes import TrainDtypes
    from .vmap import Vmap

    measured = Peers | Scaling | Memory | Precision | Limit | Long | Oversubscription | Train | TrainDtypes | Load
    tyro.cli(measured | Vmap | Matrix | Blocks | Dynamics | Agree | Report, prog="python -m benchmarks")()


if __name__ == "__main__":
    main()
