"""Optional packages: an error on a missing one names the command that installs it."""

import contextlib
import traceback
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Add the extra of jaxrnn that installs a package to the error, where its import fails inside this context.

    The error of an installed package that itself misses another one is not changed.

    >>> with extra("train"):
    ...     import a_package_that_is_not_installed
    Traceback (most recent call last):
    ModuleNotFoundError: No module named 'a_package_that_is_not_installed'. Install it with: pip install "jaxrnn[train]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        _, caller, *below = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
        if below and _package(below[-1]) != _package(caller):
            raise
        raise ModuleNotFoundError(f'{error}. Install it with: pip install "jaxrnn[{name}]"', name=error.name) from error


def _package(frame: FrameType) -> str:
    """Return the top-level package whose code a frame runs."""
    return str(frame.f_globals.get("__package__") or frame.f_globals.get("__name__")).partition(".")[0]
