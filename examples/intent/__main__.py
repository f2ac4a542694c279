"""`python -m examples.intent COMMAND`, see `--help`. Without a command it trains on the bundled corpus."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jax

from jaxrnn.extend import extra
from jaxrnn.train import CheckpointError

from . import PROGRAM
from .errors import UserError
from .terminal import printable

ABOUT = "Name the intent of an utterance. Without a command: train on the bundled corpus. Each command has --help."


def main(arguments: list[str]) -> int:
    """Run a command and return its exit status. Print an expected error as one message, without a traceback."""
    try:
        with extra("examples"):
            _run(arguments)
    except (UserError, CheckpointError, OSError, ModuleNotFoundError) as error:
        print("error: " + "\n".join(map(printable, str(error).split("\n"))), file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "stopped", file=sys.stderr)
        return 130
    return 0


def _run(arguments: list[str]) -> None:
    import tyro  # imported here so that `main` reports a missing package

    from .benchmark import Benchmark
    from .commands import Evaluate, Explain, Export, Predict, Serve, Train

    commands = Train | Evaluate | Predict | Explain | Export | Serve | Benchmark
    asks_help = arguments[:1] in (["-h"], ["--help"])
    if not arguments or (arguments[0].startswith("-") and not asks_help):
        arguments = ["train", *arguments]
    tyro.cli(commands, args=arguments, prog=PROGRAM, description=ABOUT)()


def _enable_compilation_cache() -> None:
    """Cache compiled programs in the home directory for the next start. Warn if the folder cannot be written."""
    try:
        folder = Path.home() / ".cache" / "jaxrnn-intent"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written")
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        print(f"note: every start compiles again, since there is no cache folder: {error}", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):  # a text may have characters that the terminal cannot encode
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if jax.config.jax_compilation_cache_dir is None:
        _enable_compilation_cache()
    sys.exit(main(sys.argv[1:]))
