"""Checkpoints in the format of Orbax, with a SHA-256 of every file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from .._core.extras import extra
from ._checkpoint_files import (
    MAX_RECORD_BYTES,
    CheckpointError,
    DamagedCheckpointError,
    Target,
    brief,
    damage,
    read,
    write,
)
from ._interrupts import HeldInterrupts
from ._leaves import describe, has_elements, named_leaves, to_json, to_stored

Tree = TypeVar("Tree")

UNFINISHED = "unfinished-"  # the prefix of directories that are no checkpoints yet, or no more
LOCK = ".lock"


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """A directory of checkpoints, `epoch-000001` and so on, of which the newest `keep` are kept.

    A checkpoint is written under another name, with a manifest, and then renamed, so an interrupted save never leaves
    an incomplete checkpoint. `restore` returns exactly what was saved, or raises an error. Pickle is not used.

    With several processes (`jax.distributed`), each writes its shards of the arrays, and the first process writes the
    rest; all must share the directory. Arrays are restored with the requested shardings, on any number of devices.
    Two runs cannot save to one directory at the same time: `save` holds `lock`, and `fit` holds it until it returns.

    Args:
        directory: a path; the directory is created if it does not exist.
        keep: the number of checkpoints to keep, at least 1; None keeps all.
        skip_damaged: if False, a damaged newest checkpoint is an error. If True, `restore` warns and restores the
            newest undamaged one, and `save` replaces damaged ones.

    >>> import tempfile
    >>> checkpoints = Checkpoints(tempfile.mkdtemp())
    >>> _ = checkpoints.save(1, {"w": jnp.arange(3.0)}, {"note": "first"})
    >>> tree, record = checkpoints.restore({"w": jnp.zeros(3)})
    >>> tree["w"].tolist(), record
    ([0.0, 1.0, 2.0], {'note': 'first'})
    """

    directory: str | os.PathLike[str]
    keep: int | None = 3
    skip_damaged: bool = False

    def __post_init__(self) -> None:
        """Check the fields."""
        if not isinstance(self.directory, str | os.PathLike) or not os.fspath(self.directory):
            raise TypeError(f"directory must be a path; got {self.directory!r}")
        if self.keep is not None and (not isinstance(self.keep, int) or self.keep < 1):
            raise ValueError(f"keep must be at least 1, or None for all; got {self.keep!r}")

    def epochs(self) -> list[int]:
        """Return the epochs of the saved checkpoints, oldest first."""
        root = self._root()
        names = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
        numbers = [int(name[6:]) for name in names if name.startswith("epoch-") and name[6:].isdecimal()]
        return sorted(number for number in set(numbers) if self._path(number).name in names)

    def latest(self) -> int | None:
        """Return the epoch of the newest checkpoint, or None if there is none."""
        return max(self.epochs(), default=None)

    def save(self, epoch: int, tree: Any, record: Mapping[str, Any] | None = None) -> Path:
        """Save a pytree and a record; return the path of the checkpoint.

        Args:
            epoch: an integer of at least 0, for which the directory has no checkpoint.
            tree: a pytree of JAX and NumPy arrays of numbers, random keys and Python numbers.
            record: a dict of numbers (scalars of NumPy and JAX are saved as Python numbers), strings, None, lists and
                dicts with string keys.

        Raises:
            TypeError: for a leaf or a value of an unsupported type, before anything is written.
            ValueError: for a tree that cannot be restored exactly, before anything is written.
            CheckpointError: a ValueError, if the epoch is already saved, or another run holds the lock.
            KeyboardInterrupt: if Ctrl-C was pressed during the save, after the checkpoint is complete.
            OSError: if the checkpoint cannot be written; earlier ones are not changed.
        """
        target = self._path(epoch)
        leaves, _ = named_leaves(tree)
        descriptions = {name: describe(name, leaf) for name, leaf in leaves.items()}
        if abstract := [name for name, leaf in leaves.items() if isinstance(leaf, jax.ShapeDtypeStruct)]:
            raise TypeError(
                f"{abstract[0]} is a ShapeDtypeStruct, which has no values to save: only restore accepts it"
            )
        arrays = [to_stored(name, leaf) for name, leaf in leaves.items() if has_elements(leaf)]
        if not isinstance(record, Mapping | None):
            raise TypeError(f"record must be a dict; got a {type(record).__name__}")
        text = json.dumps({"leaves": descriptions, "record": to_json(record or {})})
        if len(text) > MAX_RECORD_BYTES:
            raise ValueError(f"the record is {len(text)} bytes, more than {MAX_RECORD_BYTES}: put arrays into the tree")
        if target.exists() and not (self.skip_damaged and damage(target)):
            raise CheckpointError(f"{target} already exists. Choose another directory, or remove it.")
        with self.lock(), HeldInterrupts():
            self._write(target, arrays, text)
        return target

    def restore(self, like: Tree, epoch: int | None = None) -> tuple[Tree, dict[str, Any]]:
        """Return the saved tree and its record.

        Args:
            like: a tree with the structure, shapes, dtypes and shardings to restore, of arrays or
                `jax.ShapeDtypeStruct`; its values are not used.
            epoch: the epoch to restore; None is the newest.

        Raises:
            CheckpointError: a ValueError, if there is no such checkpoint, or its tree differs from `like`.
            DamagedCheckpointError: a CheckpointError, if a file was changed or has contents that `save` does not write;
                the message contains its name.
        """
        leaves, structure = named_leaves(like)
        saved = self.epochs()
        candidates = saved[::-1] if epoch is None else [number for number in saved if number == epoch]
        if not candidates:
            wanted = "the newest" if epoch is None else epoch
            raise CheckpointError(f"{self._root()} holds the checkpoints {saved[-9:]}; requested {wanted}")
        for number in candidates:
            before = [other for other in saved if other < number]
            try:
                values, record = read(self._path(number), leaves)
            except DamagedCheckpointError as error:
                if epoch is not None or not self.skip_damaged or not before:
                    raise DamagedCheckpointError(f"{error}.{_hint(before)}") from error
                warnings.warn(f"{error}. Skipped: trying epoch {before[-1]}", stacklevel=2)
            else:
                return jax.tree.unflatten(structure, values), record
        raise AssertionError("the oldest candidate returns or raises")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the directory for this run; locks may be nested.

        The operating system releases the lock when the process ends. With several processes, the first holds the lock
        for all of them.

        Raises:
            CheckpointError: if another run holds the lock.
        """
        with extra("train"):
            import filelock

        root = self._root()
        lock = filelock.FileLock(root / LOCK, timeout=0, is_singleton=True)
        with contextlib.ExitStack() as stack:
            with _all_or_none("lock"):
                if jax.process_index() == 0:
                    root.mkdir(parents=True, exist_ok=True)
                    try:
                        stack.enter_context(lock)
                    except filelock.Timeout:
                        raise CheckpointError(
                            f"another run saves checkpoints to {root}. Wait until it ends, or choose another directory."
                        ) from None
            yield

    def _write(self, target: Path, arrays: list[Target], text: str) -> None:
        """Write a checkpoint under another name, and rename it when it is complete."""
        draft = self._root() / f"{UNFINISHED}{target.name}"
        first = jax.process_index() == 0
        try:
            with _all_or_none("draft"):
                if first:
                    self._remove_unfinished()
                    draft.mkdir(parents=True)
            with _all_or_none("write"):
                write(draft, arrays, text)
        except (OSError, ValueError) as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise OSError(f"{target} was not saved: {brief(error)}. Saved before: {self.epochs()[-9:]}") from error
        with _all_or_none("rename"):
            if first:
                self._remove(target)
                draft.rename(target)
                self._remove_old()

    def _root(self) -> Path:
        return Path(self.directory).absolute()

    def _path(self, epoch: int) -> Path:
        if not isinstance(epoch, int | np.integer) or isinstance(epoch, bool) or epoch < 0:
            raise ValueError(f"an epoch is an integer of at least 0; got {epoch!r}")
        return self._root() / f"epoch-{epoch:06d}"

    def _remove_old(self) -> None:
        """Remove all checkpoints but the newest `keep`."""
        if self.keep is not None:
            for epoch in self.epochs()[: -self.keep]:
                self._remove(self._path(epoch))

    def _remove(self, path: Path) -> None:
        """Remove a checkpoint if it exists. It is renamed first, so no incomplete one is left."""
        if path.exists():
            renamed = path.rename(self._root() / f"{UNFINISHED}old-{path.name}")
            shutil.rmtree(renamed)

    def _remove_unfinished(self) -> None:
        """Remove the files of interrupted saves."""
        for path in self._root().glob(f"{UNFINISHED}*"):
            shutil.rmtree(path)


@contextlib.contextmanager
def _all_or_none(part: str) -> Iterator[None]:
    """Run a part of a save that succeeds in all processes, or raises in all."""
    problem: Exception | None = None
    try:
        yield
    except Exception as error:
        problem = error
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        failed = np.flatnonzero(multihost_utils.process_allgather(np.array(problem is not None)))
        if len(failed) and problem is None:
            raise OSError(f"the {part} of a checkpoint failed in process {failed[0]}")
    if problem is not None:
        raise problem


def _hint(before: list[int]) -> str:
    """Return the end of the message about a damaged checkpoint: how to resume from an earlier one."""
    if not before:
        return " There is no undamaged checkpoint before it."
    return f" To resume from epoch {before[-1]}, the one before: Checkpoints(..., skip_damaged=True)."
