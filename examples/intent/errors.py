"""The one error that is the user's to mend: it is printed as a line, without a traceback."""

from __future__ import annotations

import math


class UserError(ValueError):
    """What is wrong with the data, the bundle or the text, and what to do."""


def at_least(least: float, **values: float) -> None:
    """Raise UserError for the first value that is less, or not finite."""
    for name, value in values.items():
        if not least <= value < math.inf:
            raise UserError(f"{_flag(name)} must be {least:g} or more; got {value:g}")


def rate(**values: float) -> None:
    """Raise UserError for the first value that is not in [0, 1)."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise UserError(f"{_flag(name)} must be 0 or more and less than 1; got {value:g}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
