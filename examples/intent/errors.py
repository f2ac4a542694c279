"""The error that reports a mistake of the user: the command line prints its message without a traceback."""

from __future__ import annotations

import math


class UserError(ValueError):
    """A problem with the data, the bundle, a flag or a text, and how to fix it."""


def check_at_least(minimum: float, **values: float) -> None:
    """Raise UserError for the first value that is less than the minimum, or not finite."""
    for name, value in values.items():
        if not minimum <= value < math.inf:
            raise UserError(f"{_flag(name)} must be {minimum:g} or more; got {value:g}")


def check_rate(**values: float) -> None:
    """Raise UserError for the first value that is not in [0, 1)."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise UserError(f"{_flag(name)} must be 0 or more and less than 1; got {value:g}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
