"""Checks of arguments: each error names what was given, what is needed, and the fix."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .context import takes_context
from .fields import check_static, is_key, show
from .trees import DType
from .types import Context, Inputs, Params, State

Number: TypeAlias = bool | int | float | complex


def as_numbers(name: str, tree: Any) -> Any:
    """Return `tree` with leaves that JAX represents without loss; raise ValueError for leaves that are not numbers.

    Arrays on the host are converted to the native byte order, and `longdouble` to float64.
    """
    return jax.tree.map(functools.partial(_as_numbers, name), tree)


def _as_numbers(name: str, leaf: object) -> Number | jax.Array | np.ndarray:
    if isinstance(leaf, bool | int | float | complex):
        return leaf
    array = leaf if isinstance(leaf, jax.Array) else host_array(name, leaf)
    if not is_number(array.dtype) and not jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        raise ValueError(f"{name} must be arrays of numbers; got {_named(leaf)} of dtype {array.dtype}")
    if array.dtype.kind in "iu" and isinstance(array, np.ndarray) and array.size:
        held = np.iinfo(jax.dtypes.canonicalize_dtype(array.dtype))
        if array.min() < held.min or array.max() > held.max:
            raise ValueError(
                f"{name} has integers from {array.min()} to {array.max()}, which overflow {held.dtype}. "
                "Cast them to float32, or set jax_enable_x64."
            )
    return array


def host_array(name: str, value: object) -> np.ndarray:
    """Return `value` as a NumPy array of a native dtype of JAX; raise ValueError if it is not an array."""
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array, whose mask would be lost. Pass its data, and lengths or a mask.")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} must be arrays of numbers; got {_named(value)}: {error}") from error
    if array.dtype.kind == "O":
        hint = " Pass a driver by keyword: driver=Scan()." if callable(value) else ""
        raise ValueError(f"{name} must be arrays of numbers; got {_named(value)}.{hint}")
    if (
        array.dtype.kind in "fc"
        and array.dtype.itemsize > np.dtype("f8" if array.dtype.kind == "f" else "c16").itemsize
    ):
        array = array.astype("f8" if array.dtype.kind == "f" else "c16")  # longdouble
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def is_number(dtype: DType) -> bool:
    """Return whether JAX computes with arrays of this dtype, including booleans."""
    return jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_)


def _named(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"a {type(value).__name__}"


def check_cell(cell: Any, kinds: Any, caller: str) -> None:
    """Raise ValueError unless `cell` is an instance of one of `kinds`."""
    if isinstance(cell, type) or not isinstance(cell, kinds):
        raise ValueError(
            f"{caller} needs a cell (init, initial_state, step) or a composite; got {show(cell)}. Pass an instance: "
            "LSTM(128), not LSTM."
        )
    check_takes_in_dim(cell, caller)
    if dataclasses.is_dataclass(cell):
        check_static(cell)


def check_takes_in_dim(cell: Any, caller: str) -> None:
    """Raise ValueError if `init` takes no `in_dim`: a model has the methods of a cell but is not one."""
    if not _takes_in_dim(cell.init):
        raise ValueError(
            f"{caller} needs a cell, with init(key, in_dim); {type(cell).__name__}.init does not take these arguments. "
            "For a model, call model(params, ids), or pass model.layers."
        )


@functools.lru_cache(maxsize=256)  # `inspect.signature` takes a third of the time of an eager `unroll`
def _takes_in_dim(init: Callable[..., Any]) -> bool:
    """Return whether a cell's `init` takes a key and a number of features."""
    try:
        inspect.signature(init).bind(None, 1)
    except TypeError:
        return False
    return True


def check_driver(driver: object) -> None:
    """Raise ValueError unless `driver` is an instance of a driver, or None."""
    if isinstance(driver, type) or not (driver is None or callable(driver)):
        raise ValueError(f"driver must be a driver such as Scan() or BPTT(), or None; got {driver!r}")


def check_key(key: object) -> None:
    """Raise ValueError unless `key` is one key of `jax.random`, typed or raw, or None."""
    if key is not None and not is_key(key):
        got = f"{key.dtype} {key.shape}" if isinstance(key, jax.Array | np.ndarray) else repr(key)
        raise ValueError(f"key must be one key, jax.random.key(0), or None for no randomness; got {got}")


def float_kind(name: str, dtype: Any) -> DType | None:
    """Return a floating dtype, or None for None; raise ValueError for anything else."""
    if dtype is None:
        return None
    try:
        kind = jnp.dtype(dtype)
    except TypeError as error:
        raise ValueError(f"{name} must be a floating dtype such as jnp.float32; got {dtype!r}") from error
    if not jnp.issubdtype(kind, jnp.floating):
        raise ValueError(f"{name} must be a floating dtype such as jnp.float32; got {kind}")
    return kind


def check_inputs(xs: Inputs) -> tuple[int, tuple[int, ...]]:
    """Return T and the batch axes of xs (T, *batch, D); raise ValueError unless its leaves agree in them."""
    shapes = [np.shape(x) for x in jax.tree.leaves(xs)]
    if isinstance(xs, list):
        how = "jnp.stack(xs)" if shapes and shapes[0] else "jnp.asarray(xs)"
        raise ValueError(f"xs must be an array (T, *batch, D); got a list of {len(xs)}. Convert it: {how}.")
    if not shapes or any(len(shape) < 2 for shape in shapes) or len({shape[:-1] for shape in shapes}) > 1:
        got = f"shapes {shapes}" if shapes else repr(xs)
        raise ValueError(
            f"xs must be (T, *batch, D), or a pytree of arrays that agree in all but D; got {got}. For one "
            "sequence of T scalars pass xs[:, None]."
        )
    length, *batch = shapes[0][:-1]
    return length, tuple(batch)


def as_lengths(lengths: object, length: int, batch: tuple[int, ...]) -> Any:
    """Return lengths as an array; raise ValueError unless they are integers (*batch), on the host between 0 and T."""
    if lengths is None:
        return None
    lengths = lengths if isinstance(lengths, jax.Array) else host_array("lengths", lengths)
    if lengths.shape != batch or not jnp.issubdtype(lengths.dtype, jnp.integer):
        hint = " If xs is batch-major, pass jnp.swapaxes(xs, 0, 1)." if lengths.shape == (length,) else ""
        raise ValueError(
            f"lengths must be integers of shape {batch}, one for each row; got {lengths.dtype} {lengths.shape}.{hint}"
        )
    if isinstance(lengths, np.ndarray) and lengths.size and not 0 <= lengths.min() <= lengths.max() <= length:
        raise ValueError(f"lengths must lie between 0 and T={length}; got {lengths.min()} to {lengths.max()}")
    return lengths


def as_flags(name: str, flags: object, length: int, batch: tuple[int, ...]) -> Any:
    """Return a mask or resets as booleans (T, *batch); raise ValueError unless they are booleans, or 0 and 1.

    Numbers on a device are not checked: all but 0 are true.
    """
    if flags is None:
        return None
    flags = flags if isinstance(flags, jax.Array) else host_array(name, flags)
    if flags.shape != (length, *batch) or not is_number(flags.dtype):
        raise ValueError(
            f"{name} must be booleans of shape {(length, *batch)}, (T, *batch); got {flags.dtype} {flags.shape}"
        )
    if flags.dtype == bool:
        return flags
    if isinstance(flags, np.ndarray) and not np.isin(flags, (0, 1)).all():
        raise ValueError(f"{name} must be booleans, or numbers 0 and 1; got other numbers. Compare them: {name} > 0.5.")
    return flags != 0


def check_state(cell: object, batch: tuple[int, ...], state: State, needed: State) -> None:
    """Raise ValueError unless the state has the structure, the shapes and the kinds of dtype that the cell needs."""
    fits = jax.tree.structure(state) == jax.tree.structure(needed)  # type: ignore[operator]
    if not fits or [*map(_kind, jax.tree.leaves(state))] != [*map(_kind, jax.tree.leaves(needed))]:
        raise ValueError(
            f"the state of {type(cell).__name__} for batch axes {batch} must be {shown(needed)}; got {shown(state)}. "
            f"Start from cell.initial_state(params, {batch})."
        )


def check_context(cell: object, context: Context) -> None:
    """Raise ValueError for a context that no cell takes."""
    if context is not None and not takes_context(cell):
        raise ValueError(
            f"{show(cell)} takes no context; got {shown(context)}. A cell that takes one has a method "
            "with_context(params, context)."
        )


def check_step(cell: Any, params: Params, state: State, x: Inputs) -> None:
    """Raise ValueError unless params and state match the cell and the input x (*batch, D) of one step."""
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(x)]
    if not shapes or not all(isinstance(n, int) for n in shapes[0]) or not shapes[0]:
        return  # symbolic under jax.export; `check_features` raises for other values
    *batch, features = shapes[0]
    if takes_context(cell) or _drawn(cell, features) is None:
        return  # with a context, params are the result of `with_context`
    check_params(cell, params, features)
    leaves, form = jax.tree.flatten(params)
    kinds = tuple(jax.ShapeDtypeStruct(np.shape(leaf), _dtype(leaf)) for leaf in leaves)
    check_state(cell, tuple(batch), state, _initial_state(cell, tuple(batch), form, kinds))


def check_params(cell: Any, params: Params, *in_dim: int) -> None:
    """Raise ValueError unless the params have the leaves, shapes and kinds of dtype that `cell.init` draws.

    An axis that depends on `in_dim` may have any size: `check_features` raises for the number of features.
    """
    if not all(isinstance(n, int) for n in in_dim):
        return  # symbolic, under jax.export
    given, needed = _leaves(params), _drawn(cell, *in_dim)
    if needed is None or _fit(needed, given) == []:
        return
    other = _drawn(cell, *(n + 1 for n in in_dim)) or needed
    if other.keys() == needed.keys():
        needed = {path: _common(needed[path], other[path]) for path in needed}
    if wrong := _fit(needed, given):
        rest = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(
            f"the params do not match {show(cell)}: {'; '.join(wrong[:3])}{rest}; got a {type(params).__name__}. Draw "
            "them with its init, or use the cell that drew them."
        )


Kind = tuple[tuple[Any, ...], str]


def _kind(leaf: Any) -> Kind:
    """Return the shape of an array and its kind of dtype."""
    dtype = _dtype(leaf)
    for kind in (jnp.floating, jnp.complexfloating, jnp.integer):
        if jnp.issubdtype(dtype, kind):
            return np.shape(leaf), kind.__name__
    return np.shape(leaf), str(dtype)


def shown(tree: object) -> Any:
    """Return the tree with each leaf replaced by its dtype and shape, for messages."""
    return jax.tree.map(lambda leaf: f"{_dtype(leaf)}{list(np.shape(leaf))}", tree)


def _dtype(leaf: object) -> DType:
    """Return the dtype of an array or a number, and object for anything else."""
    return leaf.dtype if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) else np.asarray(leaf).dtype


def _leaves(tree: object) -> dict[str, Kind]:
    """Return the kind of each leaf, by its path."""
    return {jax.tree_util.keystr(path): _kind(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _fit(needed: dict[str, Kind], given: dict[str, Kind]) -> list[str]:
    """Return a description of each leaf that differs."""
    wrong = [f"params{path} is missing" for path in needed.keys() - given.keys()]
    wrong += [f"params{path} is not expected" for path in given.keys() - needed.keys()]
    for path in needed.keys() & given.keys():
        (shape, kind), (got, got_kind) = needed[path], given[path]
        if (
            kind != got_kind
            or len(shape) != len(got)
            or any(n not in ("D", m) for n, m in zip(shape, got, strict=True))
        ):
            form = f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
            wrong.append(f"params{path} must be {kind} {form}, got {got_kind} {got}")
    return sorted(wrong)


def _common(one: Kind, other: Kind) -> Kind:
    """Return the kind with "D" for the axes that differ."""
    (shape, kind), (others, _) = one, other
    return tuple(n if n == m else "D" for n, m in zip(shape, others, strict=True)), kind


@functools.lru_cache(maxsize=256)
def _drawn(cell: Any, *in_dim: int) -> dict[str, Kind] | None:
    """Return the kinds that `init` draws, or None where it cannot be traced."""
    try:
        return _leaves(jax.eval_shape(lambda: cell.init(jax.random.key(0), *in_dim)))
    except Exception:
        return None


@functools.lru_cache(maxsize=256)
def _initial_state(cell: Any, batch: tuple[int, ...], form: Any, kinds: tuple[jax.ShapeDtypeStruct, ...]) -> State:
    """Return the shapes of the cell's initial state for params of this structure."""
    return jax.eval_shape(lambda params: cell.initial_state(params, batch), jax.tree.unflatten(form, kinds))
