"""`python -m examples.intent COMMAND`, see `--help`; alone it trains on the bundled corpus."""

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
    """Run a command; a user's error is a line, not a traceback."""
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
    import tyro  # here, so that a package that is not installed is a user's error

    from .benchmark import Benchmark
    from .commands import Evaluate, Explain, Export, Predict, Serve, Train

    commands = Train | Evaluate | Predict | Explain | Export | Serve | Benchmark
    helps = arguments[:1] in (["-h"], ["--help"])
    if not arguments or (arguments[0].startswith("-") and not helps):
        arguments = ["train", *arguments]
    tyro.cli(commands, args=arguments, prog=PROGRAM, description=ABOUT)()


def _keep_compiled() -> None:
    """Cache what is compiled in the home directory, so that the next start finds it; warn where that is impossible."""
    try:
        folder = Path.home() / ".cache" / "jaxrnn-intent"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written")
    except (OSError, RuntimeError) as error:  # a RuntimeError where there is no home
        print(f"note: every start compiles again, since there is no place for a cache: {error}", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):  # a text may hold what the terminal's encoding lacks
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if jax.config.jax_compilation_cache_dir is None:
        _keep_compiled()
    sys.exit(main(sys.argv[1:]))
