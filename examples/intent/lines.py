"""Texts from standard input, one a line: a line that cannot be read is one without a text, not the end of them all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from .errors import UserError

MOST_BYTES = 1 << 20  # of a line


class Row(msgspec.Struct):
    """What a line that begins with { holds; other fields are passed over."""

    text: str


def lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines, each cut after one byte more than it may have."""
    while line := stream.readline(MOST_BYTES + 1):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(MOST_BYTES)
        yield line


def text_of(line: bytes) -> str:
    """Return the text of a line, plain or {"text": ...}; raises UserError for one that cannot be read."""
    if len(line) > MOST_BYTES:
        raise UserError(f"a line must have {MOST_BYTES} bytes at most")
    try:
        text = line.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8: byte {line[error.start]:#04x} at position {error.start}") from error
    if not text.startswith("{"):
        return text
    try:
        return msgspec.json.decode(text, type=Row).text
    except (ValueError, RecursionError) as error:
        raise UserError(f'needs {{"text": "..."}}; got {text[:60]!r}: {str(error)[:100]}') from error
