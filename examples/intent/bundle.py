"""A trained classifier as a folder of plain files, each with its SHA-256 in the manifest. Nothing is unpickled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from jaxrnn.model import SequenceModel

from .calibration import Calibration
from .classifier import Classifier, Config, Params, build, init
from .errors import UserError
from .slots import Tagger
from .text import Vocabulary

FORMAT = 4
STORED = np.float16  # what weights are saved in, half the size of what is computed with
FILES = ("weights.safetensors", "config.json", "vocabulary.json")


def save(folder: Path, classifier: Classifier, about: dict[str, Any]) -> None:
    """Write the bundle; `about` says how it was trained. The manifest comes last: without it a bundle is no bundle."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    vocabulary = dataclasses.asdict(classifier.vocabulary)
    config = {
        "model": dataclasses.asdict(classifier.config),
        "labels": classifier.labels,
        "tags": classifier.tagger and classifier.tagger.tags,
        "calibration": dataclasses.asdict(classifier.calibration),
        "about": about,
    }
    contents = {
        "weights.safetensors": weights(classifier),
        "config.json": _json(config),
        "vocabulary.json": _json(vocabulary),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    (folder / "manifest.json").write_bytes(_json({"format": FORMAT, "sha256": sums}))


def weights(classifier: Classifier) -> bytes:
    """Give the weights as safetensors."""
    return safetensors.numpy.save({name: a.astype(STORED) for name, a in _named(classifier.params).items()})


def rounded(params: Any) -> Any:
    """Give the params that come back after saving and loading."""
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a).astype(STORED), jnp.float32), params)


def load(folder: Path) -> tuple[Classifier, dict[str, Any]]:
    """Read a bundle, and how it was trained; raises `UserError` that names a file missing or not as it was saved."""
    contents = _verified(folder)
    try:
        config = json.loads(contents["config.json"])
        vocabulary = json.loads(contents["vocabulary.json"])
        vocabulary = Vocabulary(**{**vocabulary, "words": tuple(vocabulary["words"])})
        sizes, labels = Config(**config["model"]), tuple(config["labels"])
        calibration = Calibration(**config["calibration"])
        tagger = config["tags"] and Tagger(tuple(config["tags"]))
        arrays = safetensors.numpy.load(contents["weights.safetensors"])
        arrays = {name: a.astype(np.float32) for name, a in arrays.items()}
        params = _params(build(sizes, len(vocabulary), len(labels)), tagger, arrays)
    except (KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{folder}: written by another version of this example? {error}. Train it anew.") from error
    return Classifier(sizes, vocabulary, labels, params, calibration, tagger), config["about"]


def _verified(folder: Path) -> dict[str, bytes]:
    """Read every file once, and check it against the manifest."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no bundle there. Make one: python -m examples.intent train --bundle {folder}")
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        contents = {name: (folder / name).read_bytes() for name in FILES}
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: missing, so {folder} is no whole bundle. Train it anew.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: cannot be read: {error}") from error
    sums = manifest.get("sha256") if isinstance(manifest, dict) else None
    if not isinstance(sums, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{folder / 'manifest.json'}: no manifest of format {FORMAT}. Train the bundle anew.")
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != sums.get(name):
            raise UserError(f"{folder / name}: changed since it was saved: its SHA-256 is not the manifest's")
    return contents


def _named(params: Any) -> dict[str, np.ndarray]:
    """Give every array its path as a name."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


def _params(model: SequenceModel, tagger: Tagger | None, arrays: dict[str, np.ndarray]) -> Params:
    """Put arrays back in their places; raises ValueError where names or shapes are not the model's."""
    shapes = jax.eval_shape(lambda key: init(key, model, tagger), jax.random.key(0))
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    if set(names) != set(arrays):
        raise ValueError(f"the weights are {sorted(arrays)}, the model needs {sorted(names)}")
    for name, (_, leaf) in zip(names, leaves, strict=True):
        if arrays[name].shape != leaf.shape or arrays[name].dtype != leaf.dtype:
            raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}, the model needs {leaf}")
    return jax.tree.unflatten(structure, [jnp.asarray(arrays[name]) for name in names])


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
