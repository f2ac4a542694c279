"""The files of one checkpoint: Orbax's arrays, a record in JSON, and the manifest over both."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from .._core.extras import extra
from . import _manifest as manifest
from ._leaves import empty, has_numbers, kind, plain, restored

MOST_RECORD_BYTES = 64 << 20
SPARE_BYTES = 1 << 30  # what all files may take beyond twice the arrays, which are written compressed


class CheckpointError(ValueError):
    """A checkpoint cannot be saved or restored as asked; the message says why."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint's files are not those that were saved, or do not hold what a checkpoint holds."""


def write(path: Path, arrays: list[Any], record: str) -> None:
    """Write a checkpoint into the directory `path`; of several processes each writes its parts of the arrays."""
    with extra("train"):
        import orbax.checkpoint as ocp

    if arrays:
        with _without_logs(), ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path / "arrays", {str(number): array for number, array in enumerate(arrays)})
    if jax.process_index() == 0:
        (path / "record.json").write_text(record)
        manifest.write(path)


def read(path: Path, like: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the leaves of a checkpoint, as those of `like` by name, and its record.

    Raises:
        DamagedCheckpointError: if the files were changed, or hold something else.
        CheckpointError: if the checkpoint is of another tree than `like`.
    """
    targets = {name: plain(name, leaf) for name, leaf in like.items() if has_numbers(leaf)}
    expected = sum(target.size * target.dtype.itemsize for target in targets.values())
    if problem := damage(path, 2 * expected + SPARE_BYTES):
        raise DamagedCheckpointError(problem)
    saved = _record(path)
    _check_same(path, saved["leaves"], {name: kind(name, leaf) for name, leaf in like.items()})
    arrays = dict(zip(targets, _arrays(path, list(targets.values())), strict=True))
    return [restored(arrays[name], leaf) if name in arrays else empty(leaf) for name, leaf in like.items()], saved[
        "record"
    ]


def damage(path: Path, most: int | None = None) -> str | None:
    """Return what is wrong with the files of a checkpoint of at most `most` bytes, None if nothing is."""
    try:
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if most is not None and size > most:
            return f"{path} is damaged, or of another model: its {size} bytes are more than the {most} expected at most"
        manifest.verify(path)
    except (ValueError, OSError) as error:
        return str(error)
    return None


def _record(path: Path) -> dict[str, Any]:
    """Read record.json, which may hold anything."""
    try:
        if (path / "record.json").stat().st_size > MOST_RECORD_BYTES:
            raise ValueError(f"more than {MOST_RECORD_BYTES} bytes")
        saved = json.loads((path / "record.json").read_text(encoding="utf-8"))
        if not isinstance(saved, dict) or not all(isinstance(saved.get(name), dict) for name in ("leaves", "record")):
            raise ValueError('it needs objects named "leaves" and "record"')
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedCheckpointError(f"{path / 'record.json'} is damaged: {brief(error)}") from error
    return saved


def _check_same(path: Path, saved: dict[str, Any], asked: dict[str, str]) -> None:
    """Raise CheckpointError, naming the first leaf that differs."""
    for name in sorted(saved.keys() | asked.keys()):
        if saved.get(name) != asked.get(name):
            old, new = saved.get(name, "not there"), asked.get(name, "nothing")
            raise CheckpointError(
                f"{path} does not fit: {name:.80} is {old!s:.60} in it, and {new} was asked for. The model, the "
                "optimizer and evaluate must be those that it was saved with."
            )


def _arrays(path: Path, targets: list[Any]) -> list[Any]:
    """Read the arrays of a checkpoint, which must have the shapes and dtypes of `targets`, and lie where those do.

    What Orbax writes is read through its own storage, TensorStore, which raises an error where Orbax logs several.
    """
    with extra("train"):
        import tensorstore

    base = {"driver": "file", "path": f"{path / 'arrays'}/"}
    try:
        read = []
        for number, target in enumerate(targets):
            store = {"driver": "ocdbt", "base": base, "path": f"{number}/"}
            array = tensorstore.open({"driver": "auto", "kvstore": store}, open=True).result()
            if (array.shape, array.dtype.numpy_dtype) != (target.shape, target.dtype):
                found, needed = (f"{one.dtype.name}{list(one.shape)}" for one in (array, target))
                raise ValueError(f"{found} in place of {needed}")
            chunk = array.chunk_layout.read_chunk.shape or ()  # None of a scalar
            if any(one is None or one > size for one, size in zip(chunk, target.shape, strict=True)):
                raise ValueError(f"chunks {list(chunk)} of an array {list(target.shape)}")  # they would be allocated
            read.append(_placed(array, target))
    except (ValueError, TypeError, OSError) as error:
        raise DamagedCheckpointError(f"{path / 'arrays'} is damaged: {brief(error)}") from error
    return read


def _placed(stored: Any, target: Any) -> Any:
    """Read an array to where `target` lies, of which each process reads its part; without a place, to NumPy."""
    bound = target.committed if isinstance(target, jax.Array) else getattr(target, "sharding", None) is not None
    if not bound:
        return stored.read().result()
    part = lambda index: stored[index].read().result()
    return jax.make_array_from_callback(target.shape, target.sharding, part)


def brief(error: BaseException) -> str:
    """Return an error's message in one short line: what the operating system says, where it said it."""
    code = getattr(error, "errno", None) or re.search(r"os_error_code='(\d+)'", str(error))
    if code:
        return os.strerror(code if isinstance(code, int) else int(code[1]))
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """Keep Orbax from logging the traceback of an error that is raised too."""
    logger, drop = logging.getLogger("absl"), lambda record: False
    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)
