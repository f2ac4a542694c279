"""A manifest with the SHA-256 of every file of a directory."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

NAME = "SHA256SUMS"  # in the format of the command sha256sum, so that `sha256sum -c SHA256SUMS` verifies it


def write(directory: Path) -> None:
    """Write the digests of all files below `directory` to its SHA256SUMS."""
    lines = [f"{_digest(directory / name)}  {name}\n" for name in _files(directory)]
    with open(directory / NAME, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def verify(directory: Path) -> None:
    """Raise ValueError if a file below `directory` was changed, removed or added since `write`; it names the file."""
    manifest = directory / NAME
    shown = lambda name: (
        f"{directory / name}" if len(name) < 100 and name.isprintable() else f"{directory}: {name[:60]!r}"
    )
    if not manifest.is_file():
        raise ValueError(f"{manifest} is missing: {directory} was not saved completely, or not by jaxrnn")
    try:
        listed = dict(_entry(line) for line in manifest.read_text(encoding="utf-8").splitlines(keepends=True))
    except ValueError as error:
        raise ValueError(f"{manifest} was changed since it was saved: {error}") from error
    present = _files(directory)
    for name in sorted(listed.keys() | present):
        if name not in present:
            raise ValueError(f"{shown(name)} is missing, but {NAME} lists it")
        if name not in listed:
            raise ValueError(f"{shown(name)} is not listed in {NAME}: it was added, or {NAME} was changed")
        if _digest(directory / name) != listed[name]:
            raise ValueError(f"{shown(name)} was changed since it was saved: its SHA-256 is not that in {NAME}")


def _files(directory: Path) -> list[str]:
    """Return the names of the files below `directory`, without the manifest."""
    names = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    return sorted(name for name in names if name != NAME)


def _entry(line: str) -> tuple[str, str]:
    """Return (name, digest) of a line of the manifest."""
    digest, two, name = line[:64], line[64:66], line[66:]
    if two != "  " or not name.endswith("\n") or len(name) < 2:
        raise ValueError(f"{line[:60]!r} is no line of a manifest")
    return name[:-1], digest


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
