"""The checks of fields when a value is made: one mechanism for cells, layers and drivers, a user's own included."""

from __future__ import annotations

import abc
import dataclasses
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")


class Checked(abc.ABCMeta):
    """The metaclass of cells, layers, drivers and models: a value is checked once it is made.

    `__check_init__` runs for every class of the value that defines it, the base class first; none calls another.
    """

    def __call__(cls: type[T], *args: Any, **kwargs: Any) -> T:
        """Make a value and check it."""
        try:
            value = super().__call__(*args, **kwargs)  # type: ignore[misc]
        except TypeError:
            _check_call(cls, args, kwargs)
            raise
        for base in reversed(cls.__mro__):
            if "__check_init__" in vars(base):
                base.__check_init__(value)  # type: ignore[attr-defined]
        if dataclasses.is_dataclass(value):
            _simplify(value)
        _check_compared(value)
        return value

    @property
    def __signature__(cls) -> inspect.Signature:
        """The arguments of `__init__`, for `help` and editors."""
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=[*signature.parameters.values()][1:])


def convert(value: Any, **converters: Callable[[Any, str], Any]) -> None:
    """Replace fields of a frozen value by what `converter(given, "Class.field")` returns for them, or raise."""
    for name, converter in converters.items():
        given = getattr(value, name, None)
        converted = converter(given, f"{type(value).__name__}.{name}")
        if converted is not given:
            object.__setattr__(value, name, converted)


def integer(given: Any, what: str) -> int:
    """Return an integer as an int; raise ValueError unless it is one."""
    if not _integer(given):
        raise ValueError(f"{what} must be an int; got {show(given)}")
    return int(given)


def size(given: Any, what: str) -> int:
    """Return a number of units or steps as an int; raise ValueError unless it is an integer of 1 or more."""
    if not _integer(given) or given < 1:
        raise ValueError(f"{what} must be an int of 1 or more; got {show(given)}")
    return int(given)


def size_or_none(given: Any, what: str) -> int | None:
    """Return a size, or None for None; raise ValueError for anything else."""
    if given is not None and (not _integer(given) or given < 1):
        raise ValueError(f"{what} must be an int of 1 or more, or None; got {show(given)}")
    return None if given is None else int(given)


def count(given: Any, what: str) -> int:
    """Return a count as an int; raise ValueError unless it is an integer of 0 or more."""
    if not _integer(given) or given < 0:
        raise ValueError(f"{what} must be an int of 0 or more; got {show(given)}")
    return int(given)


def number(given: Any, what: str) -> float:
    """Return a number, a NumPy or JAX scalar among them, as a float; raise ValueError unless it is a finite one."""
    simple = _scalar(given)
    real = isinstance(simple, int | float) and not isinstance(simple, bool)
    if not real or not abs(simple) <= sys.float_info.max:  # of an int, whatever its length
        raise ValueError(f"{what} must be one finite number; got {show(given)}")
    return float(simple)


def instance(kind: Any, examples: str) -> Callable[[Any, str], Any]:
    """Return a converter that raises ValueError unless it is given an instance of the class or protocol `kind`."""

    def check(given: Any, what: str) -> Any:
        if isinstance(given, type) or not isinstance(given, kind):
            raise ValueError(f"{what} must be an instance such as {examples}; got {show(given)}")
        return given

    return check


def one_of(*options: bool | str) -> Callable[[Any, str], Any]:
    """Return a converter that raises ValueError unless it is given one of `options`."""

    def check(given: Any, what: str) -> Any:
        simple = _scalar(given)
        if not any(type(simple) is type(option) and simple == option for option in options):
            raise ValueError(f"{what} must be {' or '.join(map(repr, options))}; got {show(given)}")
        return simple

    return check


def is_key(given: Any) -> bool:
    """Return whether a value is one key of `jax.random`, typed or raw."""
    if isinstance(given, jax.Array) and jnp.issubdtype(given.dtype, jax.dtypes.prng_key):
        return given.ndim == 0
    return isinstance(given, jax.Array | np.ndarray) and given.dtype == np.uint32 and given.ndim == 1


def check_init_key(key: Any, call: str = "init(jax.random.key(0))") -> None:
    """Raise ValueError unless `key` is one key; `call` shows how to draw params with one."""
    if not is_key(key):
        raise ValueError(f"init takes one key first: {call}; got {show(key)} as the key")


def check_init(cell: Any, key: Any, in_dim: Any) -> int:
    """Return `in_dim` as an int; raise ValueError for an array in a field, and for what is no key or no size."""
    check_static(cell)
    check_init_key(key, "init(jax.random.key(0), in_dim=3)")
    if not _integer(in_dim) or in_dim < 0:
        raise ValueError(
            f"in_dim is the number of input features, an int of 0 or more: xs.shape[-1] for xs (T, *batch, D); got "
            f"{show(in_dim)}. The order is init(key, in_dim)."
        )
    return int(in_dim)


def check_init_per_unit(cell: Any, key: Any, in_dim: Any) -> int:
    """Return `in_dim` as `check_init` does; raise ValueError unless the cell has a unit for every input feature."""
    in_dim, kind = check_init(cell, key, in_dim), type(cell).__name__
    if in_dim != cell.hidden:
        advice = f"Use {kind}({in_dim}), or project" if in_dim else "Project"
        raise ValueError(
            f"{kind} has a unit for every input feature; got hidden={cell.hidden}, in_dim={in_dim}. {advice} the "
            f"inputs to {cell.hidden} features."
        )
    return in_dim


def check_static(cell: Any) -> None:
    """Raise ValueError unless every field can be hashed: a cell is a static argument of `jax.jit`."""
    for field in dataclasses.fields(cell):
        given = getattr(cell, field.name)
        try:
            hash(given)
        except TypeError:
            raise ValueError(
                f"{type(cell).__name__}.{field.name} is {show(given)}, and the fields of a cell are hashed. An array "
                "belongs in the params (draw it in init_local and use it in transition), or in a tuple: "
                "tuple(array.tolist()). Use a tuple for a list, a NamedTuple or a frozen dataclass for a dict."
            ) from None


def show(given: Any) -> str:
    """Describe a value in an error message, arrays by their dtype and shape, in some 120 characters at most."""
    if isinstance(given, jax.Array | np.ndarray):
        return f"a {'JAX' if isinstance(given, jax.Array) else 'NumPy'} array {given.dtype}{list(given.shape)}"
    text = f"the class {given.__name__}, not an instance" if isinstance(given, type) else repr(given)
    return text if len(text) <= 120 else f"{text[:100]}... (a {type(given).__name__})"


def _integer(given: Any) -> bool:
    return isinstance(given, int | np.integer) and not isinstance(given, bool)


def _scalar(given: Any) -> Any:
    """Return the Python scalar for a NumPy or JAX scalar, everything else as it is."""
    array = isinstance(given, jax.Array | np.ndarray) and not isinstance(given, jax.core.Tracer) and not given.shape
    return given.item() if array or isinstance(given, np.generic) else given


def _simplify(value: Any) -> None:
    """Replace NumPy and JAX scalars in the fields of a frozen value by Python scalars, which hash and compare."""
    for field in dataclasses.fields(value):
        given = getattr(value, field.name)
        simple = jax.tree.map(_scalar, given)
        if any(a is not b for a, b in zip(jax.tree.leaves(simple), jax.tree.leaves(given), strict=True)):
            object.__setattr__(value, field.name, simple)


def _check_compared(value: Any) -> None:
    """Raise if `==` ignores attributes of the value, as in a subclass with an `__init__` that is no dataclass."""
    owner = next(base for base in type(value).__mro__ if "__eq__" in vars(base))
    if owner is type(value) or not dataclasses.is_dataclass(owner):
        return
    if ignored := vars(value).keys() - {field.name for field in dataclasses.fields(owner)}:
        raise ValueError(
            f"{type(value).__name__} has the attributes {sorted(ignored)}, which == and hash ignore, so two different "
            "cells would share one compiled program. Make them fields: decorate the class with "
            "@dataclasses.dataclass(frozen=True)."
        )


def _check_call(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise a TypeError that explains the class's own signature if the arguments do not fit it."""
    signature = inspect.signature(cls)
    parameters = signature.parameters.values()
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        given = ", ".join([*map(show, args), *(f"{name}={show(value)}" for name, value in kwargs.items())])
        positional = [f"{p.name}: {p.annotation}" for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        only = "argument is" if len(positional) == 1 else "arguments are"
        keywords = ", ".join(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        in_dim = "in_dim" in inspect.signature(getattr(cls, "init", cls)).parameters
        undecorated = "__annotations__" in vars(cls) and "__dataclass_fields__" not in vars(cls)
        raise TypeError(
            f"{cls.__name__}({given}): {error}. The only positional {only} {', '.join(positional) or 'none'}; by "
            f"keyword: {keywords or 'none'}."
            + (" The number of input features goes to init(key, in_dim), not here." if in_dim else "")
            + (" Decorate the class with @dataclasses.dataclass(frozen=True)." if undecorated else "")
        ) from None
