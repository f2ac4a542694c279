"""Conversion between the leaves of a tree and the arrays and JSON that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._core.extras import extra

Leaf: TypeAlias = Any
"""A leaf of a tree that a user saves. It may be anything: `describe` raises for what a checkpoint cannot hold."""

StoredArray: TypeAlias = np.ndarray | jax.Array

NUMBERS = {
    bool: np.bool_,
    int: np.int64,
    float: np.float64,
    complex: np.complex128,
}  # the dtypes that store Python's numbers


def named_leaves(tree: Any) -> tuple[dict[str, Leaf], jax.tree_util.PyTreeDef]:
    """Return the leaves and the empty containers of a tree by their paths, and the structure of the tree.

    Raises:
        ValueError: if JAX cannot flatten the tree, or the path of a leaf is not unique.
    """
    try:
        found, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_childless)
    except (ValueError, TypeError, SystemError, RecursionError) as error:
        raise ValueError(
            f"JAX cannot flatten this tree ({error}). The keys of a dict must be of one type, and no container may "
            "hold itself."
        ) from error
    leaves: dict[str, Leaf] = {}
    for path, leaf in found:
        name = jax.tree_util.keystr(path) or "the tree"
        if name in leaves or " object at 0x" in name:
            raise ValueError(f"{name} does not identify one leaf: use str or int for the keys of a dict")
        leaves[name] = leaf
    return leaves, structure


def describe(name: str, leaf: Leaf) -> str:
    """Return the description of a leaf in a checkpoint: dtype and shape, a Python type, or an empty container.

    Raises:
        TypeError: if a checkpoint cannot hold the leaf; the message contains its name.
    """
    if type(leaf) in NUMBERS:
        return f"a Python {type(leaf).__name__}"
    if not jax.tree.leaves(leaf):
        return "None" if leaf is None else f"an empty {type(leaf).__name__}"
    array = isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)
    if not array or isinstance(leaf, np.ma.MaskedArray | jax.core.Tracer):
        raise _unsupported(name, f"a {type(leaf).__name__}")
    text = f"{leaf.dtype.name}{list(leaf.shape)}"
    if not (jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) or _is_storable(leaf.dtype)):
        raise _unsupported(name, text)
    return text


def has_elements(leaf: Leaf) -> bool:
    """Return whether a leaf has elements to store, unlike an empty container or an array of size 0."""
    return type(leaf) in NUMBERS or bool(jax.tree.leaves(leaf) and np.prod(leaf.shape))


def to_stored(name: str, leaf: Leaf) -> StoredArray | jax.ShapeDtypeStruct:
    """Convert a leaf to the array that stores it: a random key to its data, a Python number to a NumPy array.

    Raises:
        ValueError: for an integer of more than 64 bits, or an array that is deleted, for example by donation.
    """
    if type(leaf) in NUMBERS:
        try:
            return np.asarray(leaf, NUMBERS[type(leaf)])
        except OverflowError as error:
            raise ValueError(f"{name} is an integer of more than 64 bits, which a checkpoint cannot hold") from error
    if isinstance(leaf, jax.Array) and leaf.is_deleted():
        raise ValueError(f"{name} was deleted, or donated to a compiled function: save what that function returned")
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        abstract = isinstance(leaf, jax.ShapeDtypeStruct)
        return jax.eval_shape(jax.random.key_data, leaf) if abstract else jax.random.key_data(leaf)
    return np.asarray(leaf, leaf.dtype.newbyteorder("=")) if isinstance(leaf, np.ndarray | np.generic) else leaf


def empty_leaf(like: Leaf) -> Leaf:
    """Return a leaf without elements: an empty container, or an array of size 0."""
    return jnp.zeros(like.shape, like.dtype) if isinstance(like, jax.ShapeDtypeStruct) else like


def from_stored(array: StoredArray, like: Leaf) -> Leaf:
    """Convert a stored array to the type of `like`: an array of NumPy or JAX, a random key, a Python number."""
    if type(like) in NUMBERS:
        return array.item()
    if isinstance(like, np.ndarray | np.generic):
        array = np.asarray(array, like.dtype)
        return array if isinstance(like, np.ndarray) else array[()]
    array = jnp.asarray(array)
    if not jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return array
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(jnp.zeros((), like.dtype)))


def to_json(value: Any, name: str = "record") -> Any:
    """Convert a record to JSON types: scalars of NumPy and JAX to Python's numbers, tuples to lists.

    Raises:
        TypeError: for a value of another type; the message contains its name.
    """
    if isinstance(value, np.generic | np.ndarray | jax.Array) and not isinstance(value, jax.core.Tracer):
        value = np.asarray(value)[()].item() if np.ndim(value) == 0 else value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: to_json(item, f"{name}[{key!r}]") for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [to_json(item, f"{name}[{i}]") for i, item in enumerate(value)]
    what = f"a {type(value).__name__}" if not isinstance(value, Mapping) else "a dict with keys that are not strings"
    raise TypeError(
        f"{name} is {what}: a record holds numbers, strings, None, lists, and dicts with strings as keys. Put arrays "
        "into the tree."
    )


def _is_childless(node: Leaf) -> bool:
    structure: Any = jax.tree.structure(node)
    return bool(structure.num_nodes == 1)


def _is_storable(dtype: np.dtype) -> bool:
    """Return whether Orbax can store arrays of this dtype."""
    with extra("train"):
        import tensorstore

    if not (jnp.issubdtype(dtype, jnp.number) or dtype == np.bool_):
        return False
    try:
        return bool(tensorstore.dtype(dtype))
    except (TypeError, ValueError):
        return False


def _unsupported(name: str, what: str) -> TypeError:
    return TypeError(
        f"{name:.90} is {what}, which a checkpoint cannot hold. It holds random keys, Python's numbers, and arrays of "
        "numbers of JAX and NumPy."
    )
