"""Broadcasting inside cells, whatever mode the caller has set."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


def broadcasting(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function broadcast implicitly under `jax_numpy_rank_promotion="raise"`.

    A bias (H,) is added to (*batch, H) on purpose, in cells of ours and of users. The rules of a `custom_vjp` are
    traced apart from the function that they belong to, so each of them that calls a cell is decorated too.
    """

    @functools.wraps(function)
    def allowed(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.numpy_rank_promotion("allow"):
            return function(*args, **kwargs)

    return allowed
