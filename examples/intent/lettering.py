"""Text in pictures: what comes from data is drawn as it stands, or escaped where no font here can."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from .terminal import printable

BOXES = "Last Resort"  # a font that has a box for everything


def lettered(families: Sequence[str]) -> AbstractContextManager[None]:
    """Return the context to draw in: these fonts, and no text is a formula."""
    return matplotlib.rc_context({"font.family": list(families), "font.size": 10, "text.parse_math": False})


def legible(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return font families that have every character, and the texts.

    Control characters are escaped, and so is what no font here has, of which a warning tells.
    """
    texts = [printable(text) for text in texts]
    needed = {ord(character) for text in texts for character in text}
    family = matplotlib.rcParamsDefault["font.sans-serif"][0]
    covered = _characters(font_manager.findfont(family))
    families = [family]
    if needed - covered:
        for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: (entry.weight != 400, entry.name)):
            found = set() if entry.name.startswith(BOXES) else _characters(entry.fname) & (needed - covered)
            if found:
                families.append(entry.name)
                covered |= found
            if not needed - covered:
                break
    missing = needed - covered
    if missing:
        some = " ".join(f"U+{code:04X}" for code in sorted(missing)[:6])
        print(f"warning: no font here has {some}: escaped in the picture. Fonts: apt install fonts-noto-cjk",
              file=sys.stderr)  # fmt: skip
    escapes = {code: f"U+{code:04X} " for code in missing}
    return families, [text.translate(escapes).strip() for text in texts]


def _characters(font: str) -> set[int]:
    """Return the characters that a font file has; none if this matplotlib cannot draw with it (colour emoji)."""
    try:
        return set(FT2Font(font).get_charmap())
    except RuntimeError:
        return set()
