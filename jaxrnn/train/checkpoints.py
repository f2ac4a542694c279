"""Checkpoints through Orbax, every file under a SHA-256: what is restored is what was saved, or an error."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..extras import extra
from . import manifest

UNFINISHED = "unfinished-"  # no name of a checkpoint begins so


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """A directory of checkpoints, `epoch-000001` and on, the newest `keep` of them.

    A checkpoint is written under another name, given its manifest, and renamed last: a save that is interrupted
    leaves nothing that is taken for a checkpoint. No pickle is written or read.

    Of several processes (`jax.distributed`) each writes its own parts of the arrays, and the first all else; the
    directory must be one that all of them see. What is restored is laid out as asked, on however many devices.

    Args:
        directory: made if it is not there.
        keep: how many to keep, at least 1; None keeps all.

    >>> import tempfile
    >>> checkpoints = Checkpoints(tempfile.mkdtemp())
    >>> _ = checkpoints.save(1, {"w": jnp.arange(3.0)}, {"note": "first"})
    >>> tree, record = checkpoints.restore({"w": jnp.zeros(3)})
    >>> tree["w"].tolist(), record
    ([0.0, 1.0, 2.0], {'note': 'first'})
    """

    directory: str | os.PathLike[str]
    keep: int | None = 3

    def __post_init__(self) -> None:
        """Check `keep`."""
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"keep must be at least 1, or None for all; got {self.keep}")

    def epochs(self) -> list[int]:
        """List the checkpoints that are there, oldest first."""
        root = self._root()
        names = [path.name for path in root.iterdir()] if root.is_dir() else []
        return sorted(int(name[6:]) for name in names if re.fullmatch(r"epoch-\d{6,}", name))

    def latest(self) -> int | None:
        """Give the newest, None if there is none."""
        return max(self.epochs(), default=None)

    def save(self, epoch: int, tree: Any, record: Mapping[str, Any] | None = None) -> Path:
        """Save a pytree of arrays (random keys too), and a record of what JSON can hold; give where.

        Raises ValueError if there is a checkpoint of this epoch.
        """
        with extra("train"):
            import orbax.checkpoint as ocp

        target = self._path(epoch)
        if target.exists():
            raise ValueError(f"{target} is there already. Choose another directory, or take it away.")
        _together("begin")  # everybody has looked
        draft = self._root() / f"{UNFINISHED}{target.name}"
        arrays = {name: _plain(leaf) for name, leaf in _named(tree).items()}
        if jax.process_index() == 0:
            self._sweep()
            draft.mkdir(parents=True)
        _together("draft")
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(draft / "arrays", arrays)
        if jax.process_index() == 0:
            kinds = {name: _kind(array) for name, array in arrays.items()}
            (draft / "record.json").write_text(json.dumps({"arrays": kinds, "record": dict(record or {})}))
            manifest.write(draft)
            draft.rename(target)
            self._forget()
        _together("end")
        return target

    def restore(self, like: Any, epoch: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Give back the tree, laid out as `like` (structure, shapes, dtypes, shardings), and the record.

        Args:
            like: a tree as the one saved, of arrays; its values do not matter.
            epoch: which; None takes the newest.

        Raises:
            ValueError: if there is none, if a file was changed (naming it), or if `like` is another kind of tree.
        """
        with extra("train"):
            import orbax.checkpoint as ocp

        epoch = self.latest() if epoch is None else epoch
        path = None if epoch is None else self._path(epoch)
        if path is None or not path.is_dir():
            raise ValueError(f"{self._root()} holds the checkpoints {self.epochs()}; asked for {epoch or 'the newest'}")
        manifest.verify(path)
        saved = json.loads((path / "record.json").read_text())
        leaves = _named(like)
        arrays = {name: _plain(leaf) for name, leaf in leaves.items()}
        _check(path, saved["arrays"], {name: _kind(array) for name, array in arrays.items()})
        with ocp.StandardCheckpointer() as checkpointer:
            read = checkpointer.restore(path / "arrays", jax.tree.map(ocp.utils.to_shape_dtype_struct, arrays))
        restored = [_like(read[name], leaf) for name, leaf in leaves.items()]
        return jax.tree.unflatten(jax.tree.structure(like), restored), saved["record"]

    def _root(self) -> Path:
        return Path(self.directory).absolute()

    def _path(self, epoch: int) -> Path:
        return self._root() / f"epoch-{epoch:06d}"

    def _forget(self) -> None:
        """Take away all but the newest, each renamed first: a checkpoint is there whole or not at all."""
        if self.keep is None:
            return
        for epoch in self.epochs()[: -self.keep]:
            self._path(epoch).rename(self._root() / f"{UNFINISHED}{self._path(epoch).name}")
        self._sweep()

    def _sweep(self) -> None:
        """Take away what an interrupted save left."""
        for path in self._root().glob(f"{UNFINISHED}*"):
            shutil.rmtree(path)


def _together(name: str) -> None:
    """Wait for the other processes, if there are any."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(f"jaxrnn checkpoint {name}")


def _named(tree: Any) -> dict[str, Any]:
    """Give every leaf under the path to it."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path).replace("/", "|") or "tree": leaf for path, leaf in leaves}


def _plain(leaf: Any) -> jax.Array:
    """Give a random key's data; other arrays as they are."""
    leaf = jnp.asarray(leaf)
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _like(array: jax.Array, leaf: Any) -> jax.Array:
    """Make a random key of its data where `leaf` is one, and bind it to a device only where `leaf` is."""
    if not (isinstance(leaf, jax.Array) and leaf.committed):
        array = jnp.asarray(np.asarray(array))
    if not jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key):
        return array
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf))


def _kind(array: jax.Array) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _check(path: Path, saved: dict[str, str], asked: dict[str, str]) -> None:
    """Raise what differs."""
    for name in sorted(saved.keys() | asked.keys()):
        if saved.get(name) != asked.get(name):
            old, new = saved.get(name, "not there"), asked.get(name, "nothing")
            raise ValueError(
                f"{path} does not fit: {name} is {old} in it, and {new} was asked for. The model, the optimizer and "
                "evaluate must be those that it was saved with."
            )
