"""`python -m examples.intent COMMAND`, see `--help`; alone it trains on the bundled corpus."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import tyro

from .benchmark import Benchmark
from .commands import Evaluate, Explain, Export, Predict, Serve, Train
from .errors import UserError

COMMANDS = Train | Evaluate | Predict | Explain | Export | Serve | Benchmark


def main(arguments: list[str]) -> int:
    """Run a command; a user's error is a line, not a traceback."""
    helps = arguments[:1] in (["-h"], ["--help"])
    if not arguments or (arguments[0].startswith("-") and not helps):
        arguments = ["train", *arguments]
    about = "Name the intent of an utterance. Without a command: train on the bundled corpus. Each command has --help."
    command = tyro.cli(COMMANDS, args=arguments, prog="python -m examples.intent", description=about)
    try:
        command()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    if jax.config.jax_compilation_cache_dir is None:  # what is compiled once is there at the next start
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "jaxrnn-intent"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    sys.exit(main(sys.argv[1:]))
