"""Checkpoints through Orbax, every file under a SHA-256: what is restored is what was saved, or an error."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._core.extras import extra
from ._checkpoint_files import MOST_RECORD_BYTES, CheckpointError, DamagedCheckpointError, brief, damage, read, write
from ._interrupts import HeldInterrupts
from ._leaves import as_json, has_numbers, kind, named_leaves, plain

UNFINISHED = "unfinished-"  # no name of a checkpoint begins so
LOCK = ".lock"


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """A directory of checkpoints, `epoch-000001` and on, the newest `keep` of them.

    A checkpoint is written under another name, given its manifest, and renamed last: a save that is interrupted
    leaves nothing that is taken for a checkpoint. No pickle is written or read.

    Of several processes (`jax.distributed`) each writes its own parts of the arrays, and the first all else; the
    directory must be one that all of them see. What is restored is laid out as asked, on however many devices.
    Two runs cannot save to one directory at a time: `lock` is held during every save, and by `fit` until it returns.

    Args:
        directory: made if it is not there.
        keep: how many to keep, at least 1; None keeps all.
        skip_damaged: False: a damaged newest checkpoint is an error. True: it is a warning, the newest one that is
            whole is restored, and `save` replaces the damaged ones.

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
        """Return the epochs of the checkpoints that are there, oldest first."""
        root = self._root()
        names = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
        numbers = [int(name[6:]) for name in names if name.startswith("epoch-") and name[6:].isdecimal()]
        return sorted(number for number in set(numbers) if self._path(number).name in names)

    def latest(self) -> int | None:
        """Return the newest epoch, None if there is none."""
        return max(self.epochs(), default=None)

    def save(self, epoch: int, tree: Any, record: Mapping[str, Any] | None = None) -> Path:
        """Save a pytree and a record; return the path of the checkpoint.

        Args:
            epoch: a number that no checkpoint of the directory has yet.
            tree: a pytree of arrays of numbers (JAX's or NumPy's), random keys and Python's numbers.
            record: numbers (scalars of NumPy and JAX become Python's), strings, None, lists, dicts with string keys.

        Raises:
            ValueError, TypeError: for what could not be restored, before anything is written.
            CheckpointError: a ValueError: this epoch was saved before, or another run holds the lock.
            KeyboardInterrupt: if Ctrl-C was pressed meanwhile, after the checkpoint is whole.
            OSError: if the checkpoint could not be written; those before it are as they were.
        """
        target = self._path(epoch)
        leaves, _ = named_leaves(tree)
        kinds = {name: kind(name, leaf) for name, leaf in leaves.items()}
        if abstract := [name for name, leaf in leaves.items() if isinstance(leaf, jax.ShapeDtypeStruct)]:
            raise TypeError(f"{abstract[0]} is a ShapeDtypeStruct, which has no numbers to save: only restore takes it")
        arrays = [plain(name, leaf) for name, leaf in leaves.items() if has_numbers(leaf)]
        if not isinstance(record, Mapping | None):
            raise TypeError(f"record must be a dict; got a {type(record).__name__}")
        text = json.dumps({"leaves": kinds, "record": as_json(record or {})})
        if len(text) > MOST_RECORD_BYTES:
            raise ValueError(
                f"the record is {len(text)} bytes, more than {MOST_RECORD_BYTES}: put arrays into the tree"
            )
        if target.exists() and not (self.skip_damaged and damage(target)):
            raise CheckpointError(f"{target} is there already. Choose another directory, or take it away.")
        with self.lock(), HeldInterrupts():
            self._write(target, arrays, text)
        return target

    def restore(self, like: Any, epoch: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Return the tree, laid out as `like` (structure, shapes, dtypes, shardings), and the record.

        Args:
            like: a tree as the one saved, of arrays or `jax.ShapeDtypeStruct`; its values do not matter.
            epoch: which; None takes the newest.

        Raises:
            CheckpointError: a ValueError: there is no such checkpoint, or `like` is another kind of tree.
            DamagedCheckpointError: a CheckpointError: a file was changed (it is named), or holds what `save` does not
                write.
        """
        leaves, structure = named_leaves(like)
        saved = self.epochs()
        candidates = saved[::-1] if epoch is None else [number for number in saved if number == epoch]
        if not candidates:
            asked = "the newest" if epoch is None else epoch
            raise CheckpointError(f"{self._root()} holds the checkpoints {saved[-9:]}; asked for {asked}")
        for number in candidates:
            before = [other for other in saved if other < number]
            try:
                values, record = read(self._path(number), leaves)
            except DamagedCheckpointError as error:
                if epoch is not None or not self.skip_damaged or not before:
                    raise DamagedCheckpointError(f"{error}.{_way_on(before)}") from error
                warnings.warn(f"{error}. Skipped: trying epoch {before[-1]}", stacklevel=2)
            else:
                return jax.tree.unflatten(structure, values), record
        raise AssertionError("the oldest candidate returns or raises")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory for this run; raise CheckpointError if another run holds it. It may be nested.

        The operating system releases it when the process ends, however it ends. Of several processes the first holds
        it for all.
        """
        with extra("train"):
            import filelock

        root = self._root()
        lock = filelock.FileLock(root / LOCK, timeout=0, is_singleton=True)
        with contextlib.ExitStack() as stack:
            with _together("lock"):
                if jax.process_index() == 0:
                    root.mkdir(parents=True, exist_ok=True)
                    try:
                        stack.enter_context(lock)
                    except filelock.Timeout:
                        raise CheckpointError(
                            f"another run saves checkpoints to {root}. Wait until it ends, or choose another directory."
                        ) from None
            yield

    def _write(self, target: Path, arrays: list[Any], text: str) -> None:
        """Write a checkpoint under another name, and rename it when it is whole."""
        draft = self._root() / f"{UNFINISHED}{target.name}"
        first = jax.process_index() == 0
        try:
            with _together("draft"):
                if first:
                    self._sweep()
                    draft.mkdir(parents=True)
            with _together("write"):
                write(draft, arrays, text)
        except (OSError, ValueError) as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise OSError(f"{target} was not saved: {brief(error)}. Saved before: {self.epochs()[-9:]}") from error
        with _together("rename"):
            if first:
                self._discard(target)
                draft.rename(target)
                self._forget()

    def _root(self) -> Path:
        return Path(self.directory).absolute()

    def _path(self, epoch: int) -> Path:
        if not isinstance(epoch, int | np.integer) or isinstance(epoch, bool) or epoch < 0:
            raise ValueError(f"an epoch is an integer of at least 0; got {epoch!r}")
        return self._root() / f"epoch-{epoch:06d}"

    def _forget(self) -> None:
        """Remove all but the newest `keep`."""
        if self.keep is not None:
            for epoch in self.epochs()[: -self.keep]:
                self._discard(self._path(epoch))

    def _discard(self, path: Path) -> None:
        """Remove a checkpoint if it is there, renamed first: it is there whole or not at all."""
        if path.exists():
            doomed = path.rename(self._root() / f"{UNFINISHED}old-{path.name}")
            shutil.rmtree(doomed)

    def _sweep(self) -> None:
        """Remove what an interrupted save left."""
        for path in self._root().glob(f"{UNFINISHED}*"):
            shutil.rmtree(path)


@contextlib.contextmanager
def _together(part: str) -> Iterator[None]:
    """Run a part of a save that ends in all processes, or is an error in all."""
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


def _way_on(before: list[int]) -> str:
    """Return how to go on from a damaged checkpoint."""
    if not before:
        return " No checkpoint before it is whole."
    return f" To resume from epoch {before[-1]}, the one before: Checkpoints(..., skip_damaged=True)."
