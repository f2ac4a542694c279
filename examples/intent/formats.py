"""File formats. Each reader converts a file to examples, and reports bad lines with file and line number."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .errors import UserError
from .text import MAX_CHARACTERS, MAX_TOKENS, tokenize

TEXTS = ("text", "utterance", "utt", "query", "sentence")
"""Names of the column or field of the text, in any case."""

LABELS = ("label", "category", "intent", "class")
"""Names of the column or field of the label, in any case."""

DELIMITERS = ",;\t|"
"""Possible delimiters of a table. The reader takes the most frequent one of the header."""

TAG = re.compile(r"O|[BI]-\S+")
"""The tag of a word."""


class Example(NamedTuple):
    """An utterance with its intent.

    Attributes:
        text: the words, separated by single spaces.
        label: the intent.
        where: its file and line.
        tags: the tag of each word, O, B-x or I-x; () if the corpus has no slots.
    """

    text: str
    label: str
    where: str
    tags: tuple[str, ...] = ()


OnBadLine = Callable[[str], None]
"""A callback that raises or counts the error of a bad line."""


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, without line ends."""
    return _read_text(path).removesuffix("\n").split("\n")


def read_tsv(path: Path, on_bad_line: OnBadLine) -> Iterator[Example]:
    """Read `text<TAB>label` lines with literal quotes, or a table if the first line is a header; skip blank lines."""
    lines = read_lines(path)
    delimiter = "\t" if "\t" in _first(lines) else _delimiter(lines)
    if _is_header(lines, delimiter):
        yield from _read_table(path, delimiter, on_bad_line)
        return
    for number, line in enumerate(lines, start=1):
        fields, where = line.split("\t"), f"{path}:{number}"
        if not line.strip():
            continue
        if len(fields) != 2:
            on_bad_line(f"{where}: needs text<TAB>label, two fields; got {len(fields)}")
            continue
        yield from _checked_example(fields[0], fields[1], where, on_bad_line)


def read_csv(path: Path, on_bad_line: OnBadLine) -> Iterator[Example]:
    """Read a table with a header and any of the `DELIMITERS`; spreadsheets write commas or semicolons."""
    return _read_table(path, _delimiter(read_lines(path)), on_bad_line)


def _first(lines: list[str]) -> str:
    return next((line for line in lines if line.strip()), "")


def _delimiter(lines: list[str]) -> str:
    """Return the most frequent delimiter of the first line."""
    return max(DELIMITERS, key=_first(lines).count)


def _is_header(lines: list[str], delimiter: str) -> bool:
    """Return whether the first line is a header: it names text and label, or a label that no other line has."""
    first = _first(lines).split(delimiter)
    if any(_normalize(field) in TEXTS for field in first) and any(_normalize(field) in LABELS for field in first):
        return True
    return _normalize(first[-1]) in LABELS and sum(line.endswith(f"{delimiter}{first[-1]}") for line in lines) == 1


def _read_table(path: Path, delimiter: str, on_bad_line: OnBadLine) -> Iterator[Example]:
    """Read a table with a header that names the columns of text and label. Quoted texts may contain newlines."""
    rows = csv.reader(io.StringIO(_read_text(path)), delimiter=delimiter, strict=True)
    start = 1
    try:
        header = next(filter(None, rows), [])
        text, label = _columns(header, f"{path}:1")
        if text is None or label is None:
            needed = f"one of {', '.join(TEXTS)} and one of {', '.join(LABELS)}"
            raise UserError(f"{path}:1: needs a header that names {needed}; got {header!s:.200}")
        start = rows.line_num + 1
        for row in rows:
            where, start = f"{path}:{start}", rows.line_num + 1
            if not any(field.strip() for field in row):
                continue
            if row == header:
                on_bad_line(f"{where}: repeats the header")
            elif len(row) != len(header):
                on_bad_line(f"{where}: needs {len(header)} fields as in the header; got {len(row)}")
            else:
                yield from _checked_example(row[text], row[label], where, on_bad_line)
    except csv.Error as error:
        raise UserError(f"{path}:{start}: invalid CSV: {error}") from error


def _columns(header: list[str], where: str) -> list[int | None]:
    """Return the indices of the columns of text and label, None for a missing one."""
    indices: list[int | None] = []
    for names in (TEXTS, LABELS):
        found = [index for index, name in enumerate(header) if _normalize(name) in names]
        if len(found) > 1:
            candidates = " or ".join(header[index] for index in found)
            raise UserError(f"{where}: ambiguous columns: {candidates}. Keep one, or rename the others.")
        indices.append(found[0] if found else None)
    return indices


def _normalize(name: str) -> str:
    """Return the name of a column in lower case, without surrounding quotes and spaces."""
    return name.strip().strip('"').strip().casefold()


def read_jsonl(path: Path, on_bad_line: OnBadLine) -> Iterator[Example]:
    """Read one JSON object per line: fields of text and label, and optionally `tags`, a list with a tag per word."""
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            on_bad_line(f"{where}: invalid JSON: {error}")
            continue
        values = list(row.values()) if isinstance(row, dict) else []
        text, label = _columns(list(row), where) if values else (None, None)
        if text is None or label is None:
            on_bad_line(f'{where}: needs {{"text": ..., "label": ...}}; got {line[:80]}')
            continue
        yield from _checked_example(values[text], values[label], where, on_bad_line, row.get("tags"))


def read_pairs(path: Path, document: Any, key: str, on_bad_line: OnBadLine) -> Iterator[Example]:
    """Read the list `key` of [text, label] pairs from a JSON document, as in CLINC150."""
    rows = document.get(key)
    if not isinstance(rows, list):
        raise UserError(f"{path}: needs a list {key!r} of [text, label]; it has {', '.join(map(str, document))}")
    for number, row in enumerate(rows):
        where = f"{path}: {key}[{number}]"
        if not isinstance(row, list) or len(row) != 2:
            on_bad_line(f"{where}: needs [text, label]; got {str(row)[:80]}")
            continue
        yield from _checked_example(row[0], row[1], where, on_bad_line)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON document that is an object."""
    try:
        document = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: invalid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: invalid JSON: {error}") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: needs a JSON object; got {type(document).__name__}")
    return document


def read_snips(folder: Path, on_bad_line: OnBadLine) -> Iterator[Example]:
    """Read `seq.in`, `label` and, if it exists, `seq.out` line by line, as in SNIPS."""
    texts, labels = read_lines(folder / "seq.in"), read_lines(folder / "label")
    slots = folder / "seq.out"
    tags = [line.split() for line in read_lines(slots)] if slots.exists() else [None] * len(texts)
    if not len(texts) == len(labels) == len(tags):
        counts = f"seq.in has {len(texts)} lines, label has {len(labels)}, seq.out {len(tags)}"
        raise UserError(f"{folder}: {counts}; the numbers of lines must be equal")
    for number, row in enumerate(zip(texts, labels, tags, strict=True), start=1):
        yield from _checked_example(*row[:2], f"{folder / 'seq.in'}:{number}", on_bad_line, row[2])


READERS = {".tsv": read_tsv, ".csv": read_csv, ".jsonl": read_jsonl}


def _read_text(path: Path) -> str:
    """Read a file in UTF-8, or in UTF-16 with a BOM, and convert its line ends."""
    try:
        data = path.read_bytes()
        is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        content = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8: byte {data[error.start]:#04x}. Save it as UTF-8.") from error
    content = content.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in content:
        line = content[: content.index("\0")].count("\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8: it has a NUL character. Save it as UTF-8.")
    return content


def _checked_example(text: Any, label: Any, where: str, on_bad_line: OnBadLine, tags: Any = None) -> Iterator[Example]:
    """Yield the example if it is valid; else pass the error to `on_bad_line`."""
    if not isinstance(text, str) or not isinstance(label, str):
        on_bad_line(f"{where}: text and label must be strings; got {text!r:.60} and {label!r:.60}")
    elif len(text) > MAX_CHARACTERS or len(tokens := tokenize(text)) > MAX_TOKENS:
        limit = f"{MAX_TOKENS} tokens and {MAX_CHARACTERS} characters"
        on_bad_line(f"{where}: a text must have {limit} at most; got {text[:40]!r}...")
    elif not tokens:
        on_bad_line(f"{where}: the text is empty")
    elif not label.strip():
        on_bad_line(f"{where}: the label is empty")
    elif tags is not None and not _are_tags(tags, text.split()):
        words = len(text.split())
        on_bad_line(f"{where}: needs one tag per word, each O, B-x or I-x; got {words} words, tags {tags!s:.80}")
    else:
        yield Example(" ".join(text.split()), label.strip(), where, tuple(tags or ()))


def _are_tags(tags: Any, words: list[str]) -> bool:
    """Return whether `tags` is a list of one valid tag per word."""
    return isinstance(tags, list) and len(tags) == len(words) and all(TAG.fullmatch(str(tag)) for tag in tags)
