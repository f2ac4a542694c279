"""File formats: each function reads one into examples, and says of a bad line in which file and line it stands."""

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
from .text import MOST_CHARACTERS, MOST_TOKENS, tokenize

TEXTS = ("text", "utterance", "utt", "query", "sentence")
"""Names of the column or field that holds the text, in any case."""

LABELS = ("label", "category", "intent", "class")
"""Names of the column or field that holds the label, in any case."""

DELIMITERS = ",;\t|"
"""What may separate the columns of a table; the header shows which one does."""

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
    """Return the lines of a text file, without their ends."""
    return _decoded(path).removesuffix("\n").split("\n")


def read_tsv(path: Path, report: Report) -> Iterator[Example]:
    """Read `text<TAB>label` lines, quotes as they stand, or a table if the first line is a header; skip blank lines."""
    lines = read_lines(path)
    delimiter = "\t" if "\t" in _first(lines) else _delimiter(lines)
    if _is_header(lines, delimiter):
        yield from _read_table(path, delimiter, report)
        return
    for number, line in enumerate(lines, start=1):
        fields, where = line.split("\t"), f"{path}:{number}"
        if not line.strip():
            continue
        if len(fields) != 2:
            report(f"{where}: needs text<TAB>label, two fields; got {len(fields)}")
            continue
        yield from _checked(fields[0], fields[1], where, report)


def read_csv(path: Path, report: Report) -> Iterator[Example]:
    """Read a table with a header whose columns are separated by a comma, or a semicolon as spreadsheets write it."""
    return _read_table(path, _delimiter(read_lines(path)), report)


def _first(lines: list[str]) -> str:
    return next((line for line in lines if line.strip()), "")


def _delimiter(lines: list[str]) -> str:
    """Return what separates the columns of the first line."""
    return max(DELIMITERS, key=_first(lines).count)


def _is_header(lines: list[str], delimiter: str) -> bool:
    """Return whether the first line names columns: text and label, or the label alone if no other line has that one."""
    first = _first(lines).split(delimiter)
    if any(_plain(field) in TEXTS for field in first) and any(_plain(field) in LABELS for field in first):
        return True
    return _plain(first[-1]) in LABELS and sum(line.endswith(f"{delimiter}{first[-1]}") for line in lines) == 1


def _read_table(path: Path, delimiter: str, report: Report) -> Iterator[Example]:
    """Read rows below a header that names the columns of text and label; a quoted text may hold newlines."""
    rows = csv.reader(io.StringIO(_decoded(path)), delimiter=delimiter, strict=True)
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
                report(f"{where}: the header once more")
            elif len(row) != len(header):
                report(f"{where}: needs {len(header)} fields as in the header; got {len(row)}")
            else:
                yield from _checked(row[text], row[label], where, report)
    except csv.Error as error:
        raise UserError(f"{path}:{start}: no CSV: {error}") from error


def _columns(header: list[str], where: str) -> list[int | None]:
    """Return the place of the text and that of the label, None where nothing has such a name."""
    places: list[int | None] = []
    for names in (TEXTS, LABELS):
        found = [place for place, name in enumerate(header) if _plain(name) in names]
        if len(found) > 1:
            both = " or ".join(header[place] for place in found)
            raise UserError(f"{where}: which one is it, {both}? Leave one, or rename the others.")
        places.append(found[0] if found else None)
    return places


def _plain(name: str) -> str:
    """Return a column's name without quotes and spaces around it, in lower case."""
    return name.strip().strip('"').strip().casefold()


def read_jsonl(path: Path, report: Report) -> Iterator[Example]:
    """Read an object a line, with `text`, one of the label, and `tags`, a list of one a word, where there are slots."""
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            report(f"{where}: no JSON: {error}")
            continue
        values = list(row.values()) if isinstance(row, dict) else []
        text, label = _columns(list(row), where) if values else (None, None)
        if text is None or label is None:
            report(f'{where}: needs {{"text": ..., "label": ...}}; got {line[:80]}')
            continue
        yield from _checked(values[text], values[label], where, report, row.get("tags"))


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
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no JSON: {error}") from error
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
    """Read a file of UTF-8, or of UTF-16 with a byte order mark, with any line ends."""
    try:
        data = path.read_bytes()
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        content = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8: byte {data[error.start]:#04x}. Save it as UTF-8.") from error
    content = content.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in content:
        line = content[: content.index("\0")].count("\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8: it holds a NUL character. Save it as UTF-8.")
    return content


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
