"""Params and states as arguments of a program that `jax.export` makes."""

from __future__ import annotations

from typing import TypeVar

from jax import export

Tuple = TypeVar("Tuple")


def exportable(cls: type[Tuple]) -> type[Tuple]:
    """Return the NamedTuple class, registered by its name so that exported programs take and return it."""
    export.register_namedtuple_serialization(cls, serialized_name=f"jaxrnn.{cls.__name__}")
    return cls
