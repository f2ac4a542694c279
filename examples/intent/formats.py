"""File formats: each function reads one into examples, and says of a bad line in which file and line it stands."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .errors import UserError
from .text import MOST_CHARACTERS, MOST_TOKENS, tokenize

LABELS = ("label", "category", "intent")
"""What the column or the field of the label may be called."""

TAG = re.compile(r"O|[BI]-\S+")
"""A word's tag."""


class Example(NamedTuple):
    """An utterance, its intent, and where it was read.

    Attributes:
        text: with one space between words.
        label: the intent.
        where: file and line.
        tags: of each word, O, B-x or I-x; () where the corpus has no slots.
    """

    text: str
    label: str
    where: str
    tags: tuple[str, ...] = ()


Report = Callable[[str], None]
"""What is done about a bad line: raise, or count it."""


def read_lines(path: Path) -> list[str]:
    """Give the lines of a UTF-8 file, without their ends."""
    return [line.removesuffix("\r") for line in _decoded(path).removesuffix("\n").split("\n")]


def read_tsv(path: Path, report: Report) -> Iterator[Example]:
    """Read `text<TAB>label` lines; blank ones are left out."""
    for number, line in enumerate(read_lines(path), start=1):
        fields, where = line.split("\t"), f"{path}:{number}"
        if not line.strip():
            continue
        if len(fields) != 2:
            report(f"{where}: needs text<TAB>label, two fields; got {len(fields)}")
            continue
        yield from _checked(fields[0], fields[1], where, report)


def read_csv(path: Path, report: Report) -> Iterator[Example]:
    """Read a CSV file whose header names a column `text` and one of the label; a quoted text may hold newlines."""
    rows = csv.reader(io.StringIO(_decoded(path), newline=""), strict=True)
    start = 1
    try:
        header = next(rows, [])
        label = next((header.index(name) for name in LABELS if name in header), None)
        if "text" not in header or label is None:
            raise UserError(f"{path}:1: needs a header with text and one of {', '.join(LABELS)}; got {header}")
        text, start = header.index("text"), rows.line_num + 1
        for row in rows:
            where, start = f"{path}:{start}", rows.line_num + 1
            if row and len(row) != len(header):
                report(f"{where}: needs {len(header)} fields as in the header; got {len(row)}")
            elif row:
                yield from _checked(row[text], row[label], where, report)
    except csv.Error as error:
        raise UserError(f"{path}:{start}: no CSV: {error}") from error


def read_jsonl(path: Path, report: Report) -> Iterator[Example]:
    """Read an object a line, with `text`, one of the label, and `tags`, a list of one a word, where there are slots."""
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            report(f"{where}: no JSON: {error}")
            continue
        label = next((row[name] for name in LABELS if name in row), None) if isinstance(row, dict) else None
        if label is None or "text" not in row:
            report(f'{where}: needs {{"text": ..., "label": ...}}; got {line[:80]}')
            continue
        yield from _checked(row["text"], label, where, report, row.get("tags"))


def read_pairs(path: Path, document: Any, key: str, report: Report) -> Iterator[Example]:
    """Read a list of [text, label] out of a JSON document, as CLINC150 has them."""
    rows = document.get(key)
    if not isinstance(rows, list):
        raise UserError(f"{path}: needs a list {key!r} of [text, label]; it has {', '.join(map(str, document))}")
    for number, row in enumerate(rows):
        where = f"{path}: {key}[{number}]"
        if not isinstance(row, list) or len(row) != 2:
            report(f"{where}: needs [text, label]; got {str(row)[:80]}")
            continue
        yield from _checked(row[0], row[1], where, report)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON document, an object."""
    try:
        document = json.loads(_decoded(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: no JSON: {error.msg}") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: needs a JSON object; got {type(document).__name__}")
    return document


def read_snips(folder: Path, report: Report) -> Iterator[Example]:
    """Read `seq.in`, `label` and, if it is there, `seq.out` line by line, as SNIPS has them."""
    texts, labels = read_lines(folder / "seq.in"), read_lines(folder / "label")
    slots = folder / "seq.out"
    tags = [line.split() for line in read_lines(slots)] if slots.exists() else [None] * len(texts)
    if not len(texts) == len(labels) == len(tags):
        counts = f"seq.in has {len(texts)} lines, label has {len(labels)}, seq.out {len(tags)}"
        raise UserError(f"{folder}: {counts}; they must be as many")
    for number, row in enumerate(zip(texts, labels, tags, strict=True), start=1):
        yield from _checked(*row[:2], f"{folder / 'seq.in'}:{number}", report, row[2])


READERS = {".tsv": read_tsv, ".csv": read_csv, ".jsonl": read_jsonl}


def _decoded(path: Path) -> str:
    """Read a UTF-8 file."""
    try:
        data = path.read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8: byte {data[error.start]:#04x}") from error


def _checked(text: Any, label: Any, where: str, report: Report, tags: Any = None) -> Iterator[Example]:
    """Give the example if it is one."""
    if not isinstance(text, str) or not isinstance(label, str):
        report(f"{where}: text and label must be strings; got {text!r:.60} and {label!r:.60}")
    elif len(text) > MOST_CHARACTERS or len(tokens := tokenize(text)) > MOST_TOKENS:
        most = f"{MOST_TOKENS} tokens and {MOST_CHARACTERS} characters"
        report(f"{where}: a text must have {most} at most; got {text[:40]!r}...")
    elif not tokens:
        report(f"{where}: the text is empty")
    elif not label.strip():
        report(f"{where}: the label is empty")
    elif tags is not None and not _fits(tags, text.split()):
        report(f"{where}: needs a tag a word, each O, B-x or I-x; got {len(text.split())} words, tags {tags!s:.80}")
    else:
        yield Example(" ".join(text.split()), label.strip(), where, tuple(tags or ()))


def _fits(tags: Any, words: list[str]) -> bool:
    """Say whether these are the tags of the words."""
    return isinstance(tags, list) and len(tags) == len(words) and all(TAG.fullmatch(str(tag)) for tag in tags)
