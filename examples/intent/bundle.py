"""A trained classifier as a folder of plain files, each with its SHA-256 in the manifest. Nothing is unpickled."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import safetensors
import safetensors.numpy

from jaxrnn.model import SequenceModel

from . import PROGRAM
from .calibration import Calibration
from .classifier import Classifier, Config, Params, build, init
from .errors import UserError
from .schema import About, Configuration, Manifest, Words
from .slots import Tagger
from .terminal import console, printable
from .text import Vocabulary

FORMAT = 4
STORED = np.dtype(np.float16)  # what weights are saved in, half the size of what is computed with
FILES = {"weights.safetensors": 1 << 30, "config.json": 1 << 26, "vocabulary.json": 1 << 26}
"""The files of a bundle, and how many bytes each may have."""

T = TypeVar("T")


def prepare(folder: Path) -> None:
    """Make the folder of a bundle; raise UserError where nothing can be written, or where other files are."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = {file.name for file in folder.iterdir()}
    except FileExistsError as error:
        raise UserError(f"{folder}: no place for a bundle: it is a file. Name another with --bundle") from error
    except OSError as error:
        raise UserError(f"{folder}: no place for a bundle: {error.strerror}. Name another with --bundle") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: no place for a bundle: it cannot be written. Name another with --bundle")
    if "manifest.json" in there:
        console.print(f"note     {printable(str(folder))} holds a bundle, which will be replaced")
    elif other := sorted(there - {*FILES, "pictures", "report"}):
        raise UserError(f"{folder}: holds {other[0]} and is no bundle. Name a new folder with --bundle")


def save(folder: Path, classifier: Classifier, about: Mapping[str, Any]) -> None:
    """Write the bundle; `about` says how it was trained. The manifest comes last: without it a bundle is no bundle.

    Raises UserError for what `load` would refuse, before anything is written.
    """
    config = {
        "model": dataclasses.asdict(classifier.config),
        "labels": classifier.labels,
        "tags": classifier.tagger and classifier.tagger.tags,
        "calibration": dataclasses.asdict(classifier.calibration),
        "about": dict(about),
    }
    try:
        contents = {
            "weights.safetensors": weights(classifier),
            "config.json": _json(msgspec.convert(config, Configuration)),
            "vocabulary.json": _json(msgspec.convert(dataclasses.asdict(classifier.vocabulary), Words)),
        }
        for name, content in contents.items():
            if len(content) > FILES[name]:
                raise ValueError(f"{name} has {len(content)} bytes, of {FILES[name]} at most")
    except ValueError as error:
        raise UserError(f"{folder}: this classifier cannot be saved: {_brief(error)}") from error
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    (folder / "manifest.json").write_bytes(_json(Manifest(FORMAT, sums)))


def weights(classifier: Classifier) -> bytes:
    """Return the weights as safetensors; raises ValueError where they are not finite."""
    with np.errstate(over="ignore"):  # what overflows is refused as infinite
        arrays = {name: a.astype(STORED) for name, a in _named(classifier.params).items()}
    _finite(arrays)
    return safetensors.numpy.save(arrays)


def rounded(params: Any) -> Any:
    """Return the params that come back after saving and loading."""
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a).astype(STORED), jnp.float32), params)


def load(folder: Path) -> tuple[Classifier, About]:
    """Read a bundle, and how it was trained; raises `UserError` that names a file missing, changed or damaged."""
    contents = _verified(folder)
    config = _decoded(folder / "config.json", contents["config.json"], Configuration)
    words = _decoded(folder / "vocabulary.json", contents["vocabulary.json"], Words)
    sizes = Config(**msgspec.structs.asdict(config.model))
    calibration = Calibration(**msgspec.structs.asdict(config.calibration))
    vocabulary, tagger = Vocabulary(**msgspec.structs.asdict(words)), config.tags and Tagger(config.tags)
    try:
        arrays = safetensors.numpy.load(contents["weights.safetensors"])
        params = _params(build(sizes, len(vocabulary), len(config.labels)), tagger or None, arrays)
    except (KeyError, ValueError, safetensors.SafetensorError) as error:
        raise _damaged(folder / "weights.safetensors", error) from error
    return Classifier(sizes, vocabulary, config.labels, params, calibration, tagger or None), config.about


def _verified(folder: Path) -> dict[str, bytes]:
    """Read every file once, and check it against the manifest."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no bundle there. Make one: {PROGRAM} train --bundle {folder}")
    try:
        manifest = _decoded(folder / "manifest.json", _read(folder / "manifest.json", 1 << 16), Manifest)
        contents = {name: _read(folder / name, most) for name, most in FILES.items()}
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: missing, so {folder} is no whole bundle. Train it again.") from error
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise UserError(f"{folder}: a bundle of format {manifest.format}; this version reads {FORMAT}. Train it again.")
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != manifest.sha256.get(name):
            raise UserError(f"{folder / name}: changed since it was saved: its SHA-256 is not the manifest's")
    return contents


def _read(path: Path, most: int) -> bytes:
    """Read a plain file of at most so many bytes."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path}: not a plain file")
    if found.st_size > most:
        raise _damaged(path, f"{found.st_size} bytes, of {most} at most")
    return path.read_bytes()


def _decoded(path: Path, content: bytes, kind: type[T]) -> T:
    """Decode JSON whose fields have their types and ranges."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, reason: object) -> UserError:
    """Return the error of a file that is not what `save` writes."""
    return UserError(f"{path}: damaged: {_brief(reason)}. Train the bundle again.")


def _brief(reason: object) -> str:
    """Return a reason of at most 120 characters."""
    return textwrap.shorten(str(reason), 120, placeholder="...")


def _named(params: Any) -> dict[str, np.ndarray]:
    """Return every array under its path as a name."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


def _params(model: SequenceModel, tagger: Tagger | None, arrays: dict[str, np.ndarray]) -> Params:
    """Put arrays back in their places; raises ValueError where one is not what the model needs."""
    shapes = jax.eval_shape(lambda key: init(key, model, tagger), jax.random.key(0))
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    needed = {jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape for path, leaf in leaves}
    if needed.keys() != arrays.keys():
        lacks, more = sorted(needed.keys() - arrays.keys()), sorted(arrays.keys() - needed.keys())
        raise ValueError(f"arrays missing: {lacks[:2]}, not of this model: {more[:2]}")
    for name, shape in needed.items():
        if arrays[name].shape != shape or arrays[name].dtype != STORED:
            raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}, needed is {STORED} {shape}")
    _finite(arrays)
    return jax.tree.unflatten(structure, [jnp.asarray(arrays[name], jnp.float32) for name in needed])


def _finite(arrays: dict[str, np.ndarray]) -> None:
    """Raise ValueError for NaN or infinity."""
    if wrong := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise ValueError(f"NaN or infinite numbers in {wrong[0]}")


def _json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
