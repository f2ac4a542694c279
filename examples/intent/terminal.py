"""The console. Labels and texts come from data, so they are printed with control characters escaped."""

from __future__ import annotations

import re

from rich.console import Console

console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, bidirectional overrides, lone surrogates."""


def printable(text: str) -> str:
    r"""Return the text with control characters as JSON escapes, which are also valid within JSON.

    >>> printable("lights\x1b[2J\n")
    'lights\\u001b[2J\\u000a'
    """
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def truncate(name: str, length: int = 12) -> str:
    """Return a name of at most `length` characters; an ellipsis replaces the rest."""
    return name if len(name) <= length else name[: length - 1] + "…"
