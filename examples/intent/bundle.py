"""The bundle: a trained classifier as a folder of plain files with SHA-256 checksums. Nothing is unpickled."""

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

FORMAT = 5
STORAGE_DTYPE = np.dtype(np.float16)  # of the saved weights; the classifier computes in float32
FILES = {"weights.safetensors": 1 << 30, "config.json": 1 << 26, "vocabulary.json": 1 << 26}
"""The files of a bundle, and the maximum size of each in bytes."""

T = TypeVar("T")


def prepare(folder: Path) -> None:
    """Create the folder of a bundle. Raise UserError if it cannot be written, or has other files."""
    advice = "Choose another folder with --bundle"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {file.name for file in folder.iterdir()}
    except FileExistsError as error:
        raise UserError(f"{folder}: cannot save a bundle there: it is a file. {advice}") from error
    except OSError as error:
        raise UserError(f"{folder}: cannot save a bundle there: {error.strerror}. {advice}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: cannot save a bundle there: no write permission. {advice}")
    if "manifest.json" in names:
        console.print(f"warning  {printable(str(folder))} has a bundle, which will be replaced")
    elif other := sorted(names - {*FILES, "pictures", "report"}):
        raise UserError(f"{folder}: has {other[0]} and is not a bundle. {advice}")


def save(folder: Path, classifier: Classifier, about: Mapping[str, Any]) -> None:
    """Write a bundle. The manifest is written last: a folder without it is not a bundle.

    Args:
        folder: where to write.
        classifier: what to save.
        about: how it was trained.

    Raises:
        UserError: if `load` would reject the bundle. Then nothing is written.
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
                raise ValueError(f"{name} has {len(content)} bytes; the maximum is {FILES[name]}")
    except ValueError as error:
        raise UserError(f"{folder}: this classifier cannot be saved: {_brief(error)}") from error
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    (folder / "manifest.json").write_bytes(_json(Manifest(FORMAT, sums)))


def weights(classifier: Classifier) -> bytes:
    """Return the weights as safetensors. Raise ValueError if they are not finite."""
    with np.errstate(over="ignore"):  # overflow becomes infinity, which is rejected
        arrays = {name: a.astype(STORAGE_DTYPE) for name, a in _named_arrays(classifier.params).items()}
    _check_finite(arrays)
    return safetensors.numpy.save(arrays)


def round_to_storage(params: Any) -> Any:
    """Return the params as they are after saving and loading."""
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a).astype(STORAGE_DTYPE), jnp.float32), params)


def load(folder: Path) -> tuple[Classifier, About]:
    """Load a bundle, and how it was trained. Raise UserError that names a missing, changed or damaged file."""
    contents = _read_verified(folder)
    config = _decode(folder / "config.json", contents["config.json"], Configuration)
    words = _decode(folder / "vocabulary.json", contents["vocabulary.json"], Words)
    sizes = Config(**msgspec.structs.asdict(config.model))
    calibration = Calibration(**msgspec.structs.asdict(config.calibration))
    vocabulary, tagger = Vocabulary(**msgspec.structs.asdict(words)), config.tags and Tagger(config.tags)
    try:
        arrays = safetensors.numpy.load(contents["weights.safetensors"])
        params = _to_params(build(sizes, len(vocabulary), len(config.labels)), tagger or None, arrays)
    except (KeyError, ValueError, safetensors.SafetensorError) as error:
        raise _damaged(folder / "weights.safetensors", error) from error
    return Classifier(sizes, vocabulary, config.labels, params, calibration, tagger or None), config.about


def _read_verified(folder: Path) -> dict[str, bytes]:
    """Read every file once, and compare its checksum with the manifest."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no bundle there. Make one: {PROGRAM} train --bundle {folder}")
    try:
        manifest = _decode(folder / "manifest.json", _read(folder / "manifest.json", 1 << 16), Manifest)
        contents = {name: _read(folder / name, max_bytes) for name, max_bytes in FILES.items()}
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: missing, so the bundle {folder} is incomplete. Train it again.") from error
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise UserError(f"{folder}: a bundle of format {manifest.format}; this version reads {FORMAT}. Train it again.")
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != manifest.sha256.get(name):
            raise UserError(f"{folder / name}: changed since it was saved: its SHA-256 differs from the manifest")
    return contents


def _read(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of at most `max_bytes` bytes."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: not a regular file")
    if status.st_size > max_bytes:
        raise _damaged(path, f"{status.st_size} bytes; the maximum is {max_bytes}")
    return path.read_bytes()


def _decode(path: Path, content: bytes, kind: type[T]) -> T:
    """Decode JSON and check the types and ranges of its fields."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, reason: object) -> UserError:
    """Return the error for a file that `save` cannot have written."""
    return UserError(f"{path}: damaged: {_brief(reason)}. Train the bundle again.")


def _brief(reason: object) -> str:
    """Return a reason shortened to 120 characters."""
    return textwrap.shorten(str(reason), 120, placeholder="...")


def _named_arrays(params: Any) -> dict[str, np.ndarray]:
    """Return every array, named by its path in the tree."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


def _to_params(model: SequenceModel, tagger: Tagger | None, arrays: dict[str, np.ndarray]) -> Params:
    """Return named arrays as params. Raise ValueError for names, shapes or dtypes other than the model's."""
    shapes = jax.eval_shape(lambda key: init(key, model, tagger), jax.random.key(0))
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    needed = {jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape for path, leaf in leaves}
    if needed.keys() != arrays.keys():
        missing, extra = sorted(needed.keys() - arrays.keys()), sorted(arrays.keys() - needed.keys())
        raise ValueError(f"missing arrays: {missing[:2]}, unexpected arrays: {extra[:2]}")
    for name, shape in needed.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != STORAGE_DTYPE:
            raise ValueError(f"{name} must be {STORAGE_DTYPE} {shape}; got {array.dtype} {array.shape}")
    _check_finite(arrays)
    return jax.tree.unflatten(structure, [jnp.asarray(arrays[name], jnp.float32) for name in needed])


def _check_finite(arrays: dict[str, np.ndarray]) -> None:
    """Raise ValueError for NaN or infinity."""
    if wrong := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise ValueError(f"NaN or infinite numbers in {wrong[0]}")


def _json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
