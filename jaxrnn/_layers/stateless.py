"""Layers without a state: each step by itself."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from .._core.broadcasting import broadcasting
from .._core.composite import Composite, Runner
from .._core.fields import check_init, show
from .._core.live import each_step
from .._core.types import Inputs, Key, Output, Params, State


@dataclasses.dataclass(frozen=True)
class Stateless(Composite):
    """A layer without a state, y_t = apply(params, x_t). A subclass defines `init`, `out_dim` and `apply`.

    `apply` gets one step or all of them; padding and resets are taken care of: NaN in inputs before a reset does not
    reach the gradient of what comes after it.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Scale(Stateless):
    ...     def init(self, key, in_dim): return jnp.ones(in_dim)
    ...     def out_dim(self, in_dim): return in_dim
    ...     def apply(self, params, x): return params * x
    >>> unroll(Scale(), jnp.array([1.0, 2.0]), jnp.ones((5, 2)))[1][0].tolist()
    [1.0, 2.0]
    """

    @abc.abstractmethod
    def apply(self, params: Params, x: Inputs) -> Output:
        """Return y from x (..., D), for any leading axes, time among them."""

    def initial_state(self, params: Params, batch: tuple[int, ...] = ()) -> tuple[()]:
        """Return no state."""
        return ()

    @broadcasting
    def step(self, params: Params, state: State, x: Inputs, *, key: Key | None = None) -> tuple[State, Output]:
        """Apply the layer to x (*batch, D)."""
        return state, self.apply(params, x)

    def unroll(
        self, runner: Runner, params: Params, state: State, reset_state: State, xs: Inputs
    ) -> tuple[State, Output]:
        """Apply the layer to all steps at once."""
        return state, each_step(self.apply, params, xs, runner.resets)


InitFunction: TypeAlias = Callable[[Any, int], Any]
"""From a key and the number of input features to params, a pytree of arrays."""
ApplyFunction: TypeAlias = Callable[[Any, Any], Any]
"""From params and inputs (..., D) to outputs (..., K), for any leading axes."""


@dataclasses.dataclass(frozen=True)
class Apply(Stateless):
    """y_t = apply_fn(params, x_t): any pure function as a layer, such as a module of flax or haiku.

    Args:
        init_fn: `init_fn(key, in_dim)` returns the params, a pytree of arrays.
        apply_fn: `apply_fn(params, x)` returns y (..., K) from x (..., D), for any leading axes: time and batch. Its
            dtype is that of the outputs. `unroll` calls it once, with all steps.

    Both are static arguments of `jax.jit`, compared by identity: write them once, where a function that makes a layer
    does not make them again. A dropout needs a key at every step: use `Dropout`.

    >>> scale = Apply(lambda key, in_dim: jnp.ones(in_dim), lambda params, x: jnp.tanh(params * x))
    >>> stack = Stack((scale, GRU(4)))
    >>> unroll(stack, stack.init(jax.random.key(0), in_dim=3), jnp.ones((5, 2, 3)))[1].shape
    (5, 2, 4)

    A module of flax.linen is `Apply(lambda key, in_dim: module.init(key, jnp.ones(in_dim)), module.apply)`; a function
    of `haiku.transform` is `Apply(lambda key, in_dim: f.init(key, jnp.ones(in_dim)), lambda p, x: f.apply(p, None,
    x))`; the guide to own layers has one of flax.nnx.

    Raises:
        ValueError: for arguments that cannot be called or hashed, and for outputs that are no single array (..., K).
    """

    init_fn: InitFunction
    apply_fn: ApplyFunction

    def __check_init__(self) -> None:
        """Check that both are functions."""
        for name in ("init_fn", "apply_fn"):
            given = getattr(self, name)
            if not callable(given) or isinstance(given, type):
                raise ValueError(
                    f"Apply.{name} must be a function: Apply(lambda key, in_dim: ..., lambda params, x: ...); got "
                    f"{show(given)}"
                )

    def init(self, key: Key, in_dim: int) -> Params:
        """Return `init_fn(key, in_dim)`."""
        return self.init_fn(key, check_init(self, key, in_dim))

    def out_dim(self, in_dim: int) -> int:
        """Return the last axis of what `apply_fn` returns; raise ValueError if that is no array (K,) for x (D,)."""
        one = lambda key, x: self.apply_fn(self.init_fn(key, in_dim), x)
        y = jax.eval_shape(one, jax.random.key(0), jax.ShapeDtypeStruct((in_dim,), jnp.zeros(()).dtype))
        if not isinstance(y, jax.ShapeDtypeStruct) or y.ndim != 1:
            raise ValueError(
                f"Apply.apply_fn must map x (..., D) to one array (..., K); for x ({in_dim},) it returns {y}"
            )
        return y.shape[0]

    def apply(self, params: Params, x: Inputs) -> Output:
        """Return `apply_fn(params, x)`."""
        return self.apply_fn(params, x)
