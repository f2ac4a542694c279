"""Fonts of plots: text from data is drawn literally, and characters that no installed font has are escaped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from .terminal import printable

FALLBACK_FONT = "Last Resort"  # draws a box for every character


def font_context(families: Sequence[str]) -> AbstractContextManager[None]:
    """Return a context that uses these fonts, and never parses text as a formula."""
    return matplotlib.rc_context({"font.family": list(families), "font.size": 10, "text.parse_math": False})


def escape_missing_glyphs(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return font families that cover the texts, and the texts with escapes for what no font covers.

    Control characters are escaped too. A warning lists characters without a font.
    """
    texts = [printable(text) for text in texts]
    needed = {ord(character) for text in texts for character in text}
    family = matplotlib.rcParamsDefault["font.sans-serif"][0]
    covered = _characters(font_manager.findfont(family))
    families = [family]
    if needed - covered:
        for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: (entry.weight != 400, entry.name)):
            is_fallback = entry.name.startswith(FALLBACK_FONT)
            found = set() if is_fallback else _characters(entry.fname) & (needed - covered)
            if found:
                families.append(entry.name)
                covered |= found
            if not needed - covered:
                break
    missing = needed - covered
    if missing:
        listed = " ".join(f"U+{code:04X}" for code in sorted(missing)[:6])
        advice = "To install fonts: apt install fonts-noto-cjk"
        print(f"warning: no installed font has {listed}: escaped in the plot. {advice}", file=sys.stderr)
    escapes = {code: f"U+{code:04X} " for code in missing}
    return families, [text.translate(escapes).strip() for text in texts]


def _characters(font: str) -> set[int]:
    """Return the characters that a font file has; none if matplotlib cannot draw with it (color emoji)."""
    try:
        return set(FT2Font(font).get_charmap())
    except RuntimeError:
        return set()
