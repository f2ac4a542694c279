"""Second derivatives of drivers whose backward pass is a kernel: those of the same backward pass in JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def gradients(forward: Callable[..., Any], primals: tuple[Any, ...], cotangents: Any) -> tuple[Any, ...]:
    """Return the gradients of the primals for cotangents of `forward(*primals)`, where None stands for zero."""
    out, vjp = jax.vjp(forward, *primals)
    return tuple(vjp(jax.tree.map(lambda o, c: jnp.zeros_like(o) if c is None else c, out, cotangents)))


def second_order(
    forward: Callable[..., Any], primals: tuple[Any, ...], cotangents: Any, seconds: tuple[Any, ...]
) -> tuple[tuple[Any, ...], Any]:
    """Return the cotangents of (primals, cotangents) for those of `gradients(forward, primals, cotangents)`.

    Args:
        forward: the forward pass in JAX, through `BPTT()`.
        primals: its arguments.
        cotangents: the cotangents of its result; None stands for zero.
        seconds: the cotangents of the gradients; None for a gradient that was not computed.
    """

    def backward(primals: tuple[Any, ...], cotangents: Any) -> tuple[Any, ...]:
        computed = gradients(forward, primals, cotangents)
        return tuple(None if second is None else g for g, second in zip(computed, seconds, strict=True))

    dprimals, dcotangents = jax.vjp(backward, primals, cotangents)[1](seconds)
    return dprimals, dcotangents
