"""Texts from standard input, one per line. A malformed line is an error of that line only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from .errors import UserError

MAX_LINE_BYTES = 1 << 20


class Row(msgspec.Struct):
    """The JSON object of a line that begins with {; other fields are ignored."""

    text: str


def iter_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield lines. A line that is too long is truncated to one byte more than the maximum."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES)
        yield line


def parse_line(line: bytes) -> str:
    """Return the text of a line, plain or {"text": ...}. Raise UserError if it is malformed."""
    if len(line) > MAX_LINE_BYTES:
        raise UserError(f"a line must have {MAX_LINE_BYTES} bytes at most")
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
