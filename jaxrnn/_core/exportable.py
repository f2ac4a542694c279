"""Params and states as arguments and results of programs exported by `jax.export`."""

from __future__ import annotations

from typing import TypeVar

from jax import export

Tuple = TypeVar("Tuple")


def exportable(cls: type[Tuple]) -> type[Tuple]:
    """Register a NamedTuple class by its name, so that exported programs take and return it. Return the class."""
    export.register_namedtuple_serialization(cls, serialized_name=f"jaxrnn.{cls.__name__}")
    return cls
