"""The console. Labels and texts come from data: on a terminal they are shown, never obeyed."""

from __future__ import annotations

import re

from rich.console import Console

console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)

ACTIVE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, changes of the writing direction, lone surrogates."""


def printable(text: str) -> str:
    r"""Return the text with every character that would act on a terminal as its JSON escape, also valid within JSON.

    >>> printable("lights\x1b[2J\n")
    'lights\\u001b[2J\\u000a'
    """
    return ACTIVE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def short(name: str, most: int = 12) -> str:
    """Return a name of so many characters at most, so that a long one does not crowd its neighbours out."""
    return name if len(name) <= most else name[: most - 1] + "…"
