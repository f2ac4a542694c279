"""The files of one checkpoint: arrays in the format of Orbax, a record in JSON, and a manifest of both."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np

from .._core.extras import extra
from . import _manifest as manifest
from ._leaves import Leaf, StoredArray, describe, empty_leaf, from_stored, has_elements, to_stored

if TYPE_CHECKING:
    from tensorstore import TensorStore

Target: TypeAlias = StoredArray | jax.ShapeDtypeStruct
"""An array as the one to read: its shape, dtype and sharding, not its values."""

MAX_RECORD_BYTES = 64 << 20
EXTRA_BYTES = 1 << 30  # the files may be larger than twice the arrays, which are compressed, by at most this


class CheckpointError(ValueError):
    """A checkpoint cannot be saved or restored; the message contains the reason."""


class DamagedCheckpointError(CheckpointError):
    """The files of a checkpoint were changed after it was saved, or have other contents than a checkpoint."""


def write(path: Path, arrays: list[Target], record: str) -> None:
    """Write a checkpoint to the directory `path`; with several processes, each writes its shards of the arrays."""
    with extra("train"):
        import orbax.checkpoint as ocp

    if arrays:
        with _without_logs(), ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path / "arrays", {str(number): array for number, array in enumerate(arrays)})
    if jax.process_index() == 0:
        (path / "record.json").write_text(record)
        manifest.write(path)


def read(path: Path, like: dict[str, Leaf]) -> tuple[list[Leaf], dict[str, Any]]:
    """Read a checkpoint: return its leaves, of the types and shardings of those of `like`, and its record.

    Raises:
        DamagedCheckpointError: if the files were changed, or have other contents.
        CheckpointError: if the checkpoint holds a tree that differs from `like`.
    """
    targets = {name: to_stored(name, leaf) for name, leaf in like.items() if has_elements(leaf)}
    expected = sum(target.size * target.dtype.itemsize for target in targets.values())
    if problem := damage(path, 2 * expected + EXTRA_BYTES):
        raise DamagedCheckpointError(problem)
    saved = _record(path)
    _check_same(path, saved["leaves"], {name: describe(name, leaf) for name, leaf in like.items()})
    arrays = dict(zip(targets, _arrays(path, list(targets.values())), strict=True))
    leaves = [from_stored(arrays[name], leaf) if name in arrays else empty_leaf(leaf) for name, leaf in like.items()]
    return leaves, saved["record"]


def damage(path: Path, max_bytes: int | None = None) -> str | None:
    """Return a message if the files of a checkpoint are damaged or exceed `max_bytes`, else None."""
    try:
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if max_bytes is not None and size > max_bytes:
            return f"{path} is damaged, or of another model: it has {size} bytes, more than the expected {max_bytes}"
        manifest.verify(path)
    except (ValueError, OSError) as error:
        return str(error)
    return None


def _record(path: Path) -> dict[str, Any]:
    """Read record.json, which is not trusted: it may have any contents."""
    try:
        if (path / "record.json").stat().st_size > MAX_RECORD_BYTES:
            raise ValueError(f"more than {MAX_RECORD_BYTES} bytes")
        saved = json.loads((path / "record.json").read_text(encoding="utf-8"))
        if not isinstance(saved, dict) or not all(isinstance(saved.get(name), dict) for name in ("leaves", "record")):
            raise ValueError('it needs objects named "leaves" and "record"')
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedCheckpointError(f"{path / 'record.json'} is damaged: {brief(error)}") from error
    return saved


def _check_same(path: Path, saved: dict[str, Any], expected: dict[str, str]) -> None:
    """Raise CheckpointError if a leaf differs; the message contains the name of the first one."""
    for name in sorted(saved.keys() | expected.keys()):
        if saved.get(name) != expected.get(name):
            old, new = saved.get(name, "missing"), expected.get(name, "missing")
            raise CheckpointError(
                f"{path} does not fit: {name:.80} is {old!s:.60} in the checkpoint, but {new} in the tree to restore. "
                "The model, the optimizer and evaluate must be those that it was saved with."
            )


def _arrays(path: Path, targets: list[Target]) -> list[StoredArray]:
    """Read the arrays of a checkpoint, which must have the shapes and dtypes of `targets`, with their shardings.

    They are read through TensorStore, which Orbax writes with, because it raises one error where Orbax logs several.
    """
    with extra("train"):
        import tensorstore

    base = {"driver": "file", "path": f"{path / 'arrays'}/"}
    try:
        read: list[StoredArray] = []
        for number, target in enumerate(targets):
            store = {"driver": "ocdbt", "base": base, "path": f"{number}/"}
            array = tensorstore.open({"driver": "auto", "kvstore": store}, open=True).result()
            if (array.shape, array.dtype.numpy_dtype) != (target.shape, target.dtype):
                found, needed = (f"{one.dtype.name}{list(one.shape)}" for one in (array, target))
                raise ValueError(f"{found} in place of {needed}")
            chunk = array.chunk_layout.read_chunk.shape or ()  # None for a scalar
            if any(one is None or one > size for one, size in zip(chunk, target.shape, strict=True)):
                raise ValueError(
                    f"chunks {list(chunk)} of an array {list(target.shape)}"
                )  # TensorStore would allocate them
            read.append(_read_sharded(array, target))
    except (ValueError, TypeError, OSError) as error:
        raise DamagedCheckpointError(f"{path / 'arrays'} is damaged: {brief(error)}") from error
    return read


def _read_sharded(stored: TensorStore, target: Target) -> StoredArray:
    """Read an array with the sharding of `target`, of which each process reads its shards; without one, to NumPy."""
    sharding = None if isinstance(target, np.ndarray) or not getattr(target, "committed", True) else target.sharding
    if sharding is None:
        array: np.ndarray = stored.read().result()
        return array
    shard = lambda index: stored[index].read().result()
    return jax.make_array_from_callback(target.shape, sharding, shard)


def brief(error: BaseException) -> str:
    """Return the message of an error in one short line, that of the operating system if it has a code."""
    code = getattr(error, "errno", None) or re.search(r"os_error_code='(\d+)'", str(error))
    if code:
        return os.strerror(code if isinstance(code, int) else int(code[1]))
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """Suppress the logs of Orbax, which logs the traceback of an error that it also raises."""
    logger, drop = logging.getLogger("absl"), lambda record: False
    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)
