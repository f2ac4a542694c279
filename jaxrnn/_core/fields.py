"""Checks of fields at construction, for cells, layers, drivers and classes of users."""

from __future__ import annotations

import abc
import dataclasses
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeGuard, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")
Converter: TypeAlias = Callable[[Any, str], Any]
"""From the value given for a field and the name "Class.field" to the value kept; it raises ValueError."""


class HasHidden(Protocol):
    """A cell with H units."""

    @property
    def hidden(self) -> int:
        """H."""


class Checked(abc.ABCMeta):
    """The metaclass of cells, layers, drivers and models: it checks a value at construction.

    `__check_init__` runs for every class that defines it, base classes first; it does not call that of its base.
    """

    def __call__(cls: type[T], *args: Any, **kwargs: Any) -> T:
        """Construct a value and check it."""
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
        """Return the arguments of `__init__`, for `help` and editors."""
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=[*signature.parameters.values()][1:])


def convert(value: object, **converters: Converter) -> None:
    """Replace fields of a frozen value by `converter(given, "Class.field")`, which may raise."""
    for name, converter in converters.items():
        given = getattr(value, name, None)
        converted = converter(given, f"{type(value).__name__}.{name}")
        if converted is not given:
            object.__setattr__(value, name, converted)


def integer(given: object, what: str) -> int:
    """Return an integer as an int; raise ValueError for anything else."""
    if not _is_integer(given):
        raise ValueError(f"{what} must be an int; got {show(given)}")
    return int(given)


def size(given: object, what: str) -> int:
    """Return a size as an int; raise ValueError unless it is an integer of 1 or more."""
    if not _is_integer(given) or given < 1:
        raise ValueError(f"{what} must be an int of 1 or more; got {show(given)}")
    return int(given)


def size_or_none(given: object, what: str) -> int | None:
    """Return a size, or None for None; raise ValueError for anything else."""
    if given is None:
        return None
    if not _is_integer(given) or given < 1:
        raise ValueError(f"{what} must be an int of 1 or more, or None; got {show(given)}")
    return int(given)


def count(given: object, what: str) -> int:
    """Return a count as an int; raise ValueError unless it is an integer of 0 or more."""
    if not _is_integer(given) or given < 0:
        raise ValueError(f"{what} must be an int of 0 or more; got {show(given)}")
    return int(given)


def number(given: object, what: str) -> float:
    """Return a number or a NumPy or JAX scalar as a float; raise ValueError unless it is finite."""
    simple = _scalar(given)
    if not isinstance(simple, int | float) or isinstance(simple, bool) or not abs(simple) <= sys.float_info.max:
        raise ValueError(f"{what} must be one finite number; got {show(given)}")
    return float(simple)


def positive(given: object, what: str) -> float:
    """Return a number above 0 as a float; raise ValueError for anything else."""
    if (value := number(given, what)) <= 0:
        raise ValueError(f"{what} must be above 0; got {show(given)}")
    return value


def not_negative(given: object, what: str) -> float:
    """Return a number of 0 or more as a float; raise ValueError for anything else."""
    if (value := number(given, what)) < 0:
        raise ValueError(f"{what} must be at least 0; got {show(given)}")
    return value


def instance(kind: type | types.UnionType, examples: str) -> Converter:
    """Return a converter that accepts instances of the class or protocol `kind` and raises ValueError otherwise."""

    def check(given: object, what: str) -> object:
        if isinstance(given, type) or not isinstance(given, kind):
            raise ValueError(f"{what} must be an instance such as {examples}; got {show(given)}")
        return given

    return check


def one_of(*options: bool | str) -> Converter:
    """Return a converter that accepts `options` and raises ValueError otherwise."""

    def check(given: object, what: str) -> object:
        simple = _scalar(given)
        if not any(type(simple) is type(option) and simple == option for option in options):
            raise ValueError(f"{what} must be {' or '.join(map(repr, options))}; got {show(given)}")
        return simple

    return check


def is_key(given: object) -> bool:
    """Return whether a value is one key of `jax.random`, typed or raw."""
    if isinstance(given, jax.Array) and jnp.issubdtype(given.dtype, jax.dtypes.prng_key):
        return given.ndim == 0
    return isinstance(given, jax.Array | np.ndarray) and given.dtype == np.uint32 and given.ndim == 1


def check_init_key(key: object, call: str = "init(jax.random.key(0))") -> None:
    """Raise ValueError unless `key` is one key; the message shows `call`."""
    if not is_key(key):
        raise ValueError(f"the first argument of init must be one key: {call}; got {show(key)}")


def check_init(cell: Any, key: object, in_dim: object) -> int:
    """Return `in_dim` as an int; raise ValueError for fields that are not static, or an invalid key or `in_dim`."""
    check_static(cell)
    check_init_key(key, "init(jax.random.key(0), in_dim=3)")
    if not _is_integer(in_dim) or in_dim < 0:
        raise ValueError(
            f"in_dim is the number of input features, an int of 0 or more: xs.shape[-1] for xs (T, *batch, D); got "
            f"{show(in_dim)}. The order is init(key, in_dim)."
        )
    return int(in_dim)


def check_init_per_unit(cell: HasHidden, key: object, in_dim: object) -> int:
    """Return `in_dim` as `check_init` does; raise ValueError unless it equals the number of units."""
    in_dim, kind = check_init(cell, key, in_dim), type(cell).__name__
    if in_dim != cell.hidden:
        advice = f"Use {kind}({in_dim}), or project" if in_dim else "Project"
        raise ValueError(
            f"{kind} needs as many units as input features; got hidden={cell.hidden}, in_dim={in_dim}. {advice} the "
            f"inputs to {cell.hidden} features."
        )
    return in_dim


def check_static(cell: Any) -> None:
    """Raise ValueError unless every field is hashable: a cell is a static argument of `jax.jit`."""
    for field in dataclasses.fields(cell):
        given = getattr(cell, field.name)
        try:
            hash(given)
        except TypeError:
            raise ValueError(
                f"the fields of a cell must be hashable; got {type(cell).__name__}.{field.name} = {show(given)}. Put "
                "an array into the params (draw it in init_local and use it in transition), or into a tuple: "
                "tuple(array.tolist()). Use a tuple for a list, a NamedTuple or a frozen dataclass for a dict."
            ) from None


def show(given: object) -> str:
    """Return a description of a value for an error message: arrays by dtype and shape, at most about 120 characters."""
    if isinstance(given, jax.Array | np.ndarray):
        return f"a {'JAX' if isinstance(given, jax.Array) else 'NumPy'} array {given.dtype}{list(given.shape)}"
    text = f"the class {given.__name__}, not an instance" if isinstance(given, type) else repr(given)
    return text if len(text) <= 120 else f"{text[:100]}... (a {type(given).__name__})"


def _is_integer(given: object) -> TypeGuard[int]:
    return isinstance(given, int | np.integer) and not isinstance(given, bool)


def _scalar(given: object) -> object:
    """Return the Python scalar for a NumPy or JAX scalar, and anything else unchanged."""
    if isinstance(given, np.generic):
        return given.item()
    if isinstance(given, jax.Array | np.ndarray) and not isinstance(given, jax.core.Tracer) and not given.shape:
        return given.item()
    return given


def _simplify(value: Any) -> None:
    """Replace NumPy and JAX scalars in the fields of a frozen value by Python scalars, which are hashable."""
    for field in dataclasses.fields(value):
        given = getattr(value, field.name)
        simple = jax.tree.map(_scalar, given)
        if any(a is not b for a, b in zip(jax.tree.leaves(simple), jax.tree.leaves(given), strict=True)):
            object.__setattr__(value, field.name, simple)


def _check_compared(value: Any) -> None:
    """Raise ValueError if `==` ignores attributes, as in a subclass that has an `__init__` and is not a dataclass."""
    owner = next(base for base in type(value).__mro__ if "__eq__" in vars(base))
    if owner is type(value) or not dataclasses.is_dataclass(owner):
        return
    if ignored := vars(value).keys() - {field.name for field in dataclasses.fields(owner)}:
        raise ValueError(
            f"== and hash ignore the attributes {sorted(ignored)} of {type(value).__name__}, so that different cells "
            "would share one compiled program. Declare them as fields: decorate the class with "
            "@dataclasses.dataclass(frozen=True)."
        )


def _check_call(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise a TypeError that explains the signature of the class if the arguments do not match it."""
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
