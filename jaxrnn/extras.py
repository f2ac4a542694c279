"""Packages that only some modules need: where one is missing, the error names the command that installs it."""

import contextlib
import traceback
from collections.abc import Iterator


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Name the extra of jaxrnn that installs a package, where an import of it fails inside this context.

    The error of a package that is there, and lacks another one itself, is left as it is.

    >>> with extra("train"):
    ...     import a_package_that_is_not_installed
    Traceback (most recent call last):
    ModuleNotFoundError: No module named 'a_package_that_is_not_installed'. Install it with: pip install "jaxrnn[train]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if len([*traceback.walk_tb(error.__traceback__)]) > 2:  # deeper than this frame and that of the import
            raise
        raise ModuleNotFoundError(f'{error}. Install it with: pip install "jaxrnn[{name}]"', name=error.name) from error
