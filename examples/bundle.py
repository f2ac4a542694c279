"""A bundle: the params of a trained program and what it takes to use them, as two plain files in a folder.

`weights.safetensors` has the arrays by name, `about.json` everything else. Nothing is unpickled.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.extend import extra

with extra("examples"):
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save_file

WEIGHTS, ABOUT = "weights.safetensors", "about.json"


class BundleError(ValueError):
    """A folder that is no bundle, or not one of this program; the message names the file and the fix."""


def prepare(folder: Path) -> None:
    """Create the folder of a bundle, before the time is spent that training takes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(f"{folder}: cannot write there: {error.strerror}. Choose another folder") from error
    if not os.access(folder, os.W_OK):
        raise BundleError(f"{folder}: cannot write there: no permission. Choose another folder")


def save(folder: Path, params: Any, about: dict[str, Any]) -> None:
    """Write a bundle of a pytree of arrays, and a dict of numbers, strings, lists and dicts."""
    prepare(folder)
    save_file({name: np.ascontiguousarray(leaf) for name, leaf in _named(params).items()}, folder / WEIGHTS)
    (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n")


def about(folder: Path) -> dict[str, Any]:
    """Return the dict of a bundle."""
    try:
        found = json.loads((folder / ABOUT).read_text())
    except FileNotFoundError as error:
        raise BundleError(f"{folder}: no bundle there, since {ABOUT} is missing. Train first") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder / ABOUT}: cannot be read: {error}. Train again") from error
    if not isinstance(found, dict):
        raise BundleError(f"{folder / ABOUT}: must be a JSON object; got a {type(found).__name__}. Train again")
    return found


def load(folder: Path, like: Any) -> Any:
    """Return the params of a bundle, in the structure of `like`, whose leaves have a shape and a dtype."""
    try:
        arrays = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{folder / WEIGHTS}: cannot be read: {error}. Train again") from error
    kind = lambda a: (tuple(a.shape), np.dtype(a.dtype))
    needed, given = ({name: kind(leaf) for name, leaf in part.items()} for part in (_named(like), arrays))
    if wrong := sorted(name for name in needed.keys() | given.keys() if needed.get(name) != given.get(name)):
        raise BundleError(
            f"{folder / WEIGHTS}: {wrong[0]} does not fit this model. Use the options it was trained with"
        )
    if broken := [name for name, a in arrays.items() if not np.isfinite(a).all()]:
        raise BundleError(f"{folder / WEIGHTS}: {broken[0]} has numbers that are not finite. Train again")
    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(arrays[name]) for name in _named(like)])


def _named(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
