"""Implicit broadcasting inside cells, in every mode of `jax_numpy_rank_promotion`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


def broadcasting(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to broadcast implicitly under `jax_numpy_rank_promotion="raise"`.

    A cell adds a bias (H,) to (*batch, H). JAX traces the rules of a `custom_vjp` separately from the function, so each
    rule that calls a cell is decorated too.
    """

    @functools.wraps(function)
    def allowed(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.numpy_rank_promotion("allow"):
            return function(*args, **kwargs)

    return allowed
