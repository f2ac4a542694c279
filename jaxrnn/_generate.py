"""Sequences that a cell generates by feeding its outputs back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ._core.cell import Cell
from ._core.checks import as_numbers, check_cell, check_key, check_params, check_step, shown
from ._core.context import takes_context
from ._core.fields import show
from ._core.trees import cast_like, number_rank
from ._core.types import Inputs, Key, Output, Params, State

Feed: TypeAlias = Callable[[Output, Key | None], Inputs]
"""From y_t and a key for this step, or None, to x_{t+1}."""


def generate(
    cell: Cell,
    params: Params,
    x: Inputs,
    state: State = None,
    *,
    steps: int,
    feed: Feed | None = None,
    key: Key | None = None,
) -> tuple[State, Output]:
    """Generate a sequence by feeding the output back: x_{t+1} = feed(y_t).

    Args:
        cell: a cell with a `step`, a `SequenceModel`, or another frozen value with `step(params, state, x)`.
        params: its params.
        x: the first input (*batch, D), or a pytree of inputs.
        state: the state before it, as `unroll` returns it after a prompt; None takes the cell's own. A
            `SequenceModel` needs one: `model.initial_state(params, batch)`.
        steps: the number of outputs.
        feed: from (y_t, a key for this step, or None) to x_{t+1}, of the structure and shapes of x; None takes y_t
            itself. Pass a named function or a method of a frozen value: a new lambda compiles again.
        key: split into the keys that `feed` gets, one for each step.

    Returns:
        The state after the last step, and the outputs (steps, *batch, ...).

    Raises:
        ValueError: if the result of `feed` does not fit x, or an argument is of another kind; it says how to mend it.

    >>> cell = GRU(3)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> generate(cell, params, jnp.ones((2, 3)), steps=7)[1].shape
    (7, 2, 3)

    A decoder that samples a token at every step, and repeats the end token once it has drawn it: the token and whether
    the row has ended are fed back, and `sample` gets the key of the step.

    >>> from jaxrnn.model import Embedding, SequenceModel
    >>> @dataclasses.dataclass(frozen=True)
    ... class Decoder:
    ...     model: SequenceModel
    ...     end: int
    ...     def step(self, params, state, x):
    ...         token, ended = x
    ...         state, logits = self.model.step(params, state, token)
    ...         return state, (token, ended, logits)
    ...     def sample(self, y, key):
    ...         _, ended, logits = y
    ...         token = jnp.where(ended, self.end, jax.random.categorical(key, logits))
    ...         return token, ended | (token == self.end)
    >>> model = SequenceModel(Embedding(9, 4), GRU(8), outputs=9)
    >>> params, start = model.init(jax.random.key(0)), (jnp.zeros(2, jnp.int32), jnp.zeros(2, bool))
    >>> decoder, state, key = Decoder(model, end=1), model.initial_state(params, (2,)), jax.random.key(1)
    >>> _, (tokens, ended, logits) = generate(decoder, params, start, state, steps=7, feed=decoder.sample, key=key)
    >>> tokens.shape, bool((tokens[ended] == 1).all())  # the first token is the one handed in
    ((7, 2), True)
    """
    _check(cell, steps, key)
    x, params, state = (as_numbers(*pair) for pair in (("x", x), ("params", params), ("state", state)))
    x = jax.tree.map(jnp.asarray, x)
    shapes = [leaf.shape for leaf in jax.tree.leaves(x)]
    if isinstance(x, list) or not shapes or (not shapes[0] and state is None):
        raise ValueError(f"x is the first input (*batch, D), an array or a pytree of them; got shapes {shapes}")
    if state is None:
        check_cell(cell, Cell, "generate without a state")
        if not takes_context(cell):  # else the params hold the context
            check_params(cell, params, shapes[0][-1])
        state = cell.initial_state(params, shapes[0][:-1])
    return _generate(cell, params, x, state, int(steps), feed, key)


def _check(cell: Any, steps: Any, key: Any) -> None:
    """Raise ValueError unless the arguments of `generate` are of their kinds."""
    if isinstance(cell, type) or not callable(getattr(cell, "step", None)):
        raise ValueError(
            f"generate needs an instance with a causal step, such as LSTM(128); got {show(cell)}. A layer that "
            "needs the whole sequence, such as Bidirectional, cannot be fed its own output."
        )
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 0:
        raise ValueError(f"steps is the number of outputs, an integer of 0 or more; got {steps!r}")
    check_key(key)


@functools.partial(jax.jit, static_argnames=("cell", "steps", "feed"))
def _generate(
    cell: Cell, params: Params, x: Inputs, state: State, steps: int, feed: Feed | None, key: jax.Array | None
) -> tuple[State, Output]:
    """Return what `generate` does, for arguments that are checked."""
    check_step(cell, params, state, x)

    def step(carry: tuple[State, Any], key: Key | None) -> tuple[State, Any, Output]:
        state, y = cell.step(params, *carry)
        return state, y if feed is None else feed(y, key), y

    after, following, _ = jax.eval_shape(step, (state, x), key)
    if _form(after) != _form(state):
        raise ValueError(
            f"a step turns the state {shown(state)} into {shown(after)}: it has another batch than x, {shown(x)}. "
            "Start from initial_state(params, batch)."
        )
    if _form(following) != _form(x):
        raise ValueError(
            f"the next input is {shown(following)}, which differs from x, {shown(x)}. Pass feed=f with "
            "x_{t+1} = f(y_t, key), or a cell with as many outputs as inputs."
        )
    x = jax.tree.map(_joined, x, following)

    def one(carry: tuple[State, Any], key: Key | None) -> tuple[tuple[State, Any], Output]:
        state, following, y = step(carry, key)
        return (cast_like(state, carry[0]), jax.tree.map(_joined, following, carry[1])), y

    keys = None if key is None else jax.random.split(key, steps)
    (state, _), ys = jax.lax.scan(one, (state, x), keys, length=steps)
    return state, ys


def _form(tree: Any) -> Any:
    return jax.tree.structure(tree), [leaf.shape for leaf in jax.tree.leaves(tree)]


def _joined(x: jax.Array, other: Any) -> jax.Array:
    """Return an input in a dtype that holds its numbers and those of the inputs at other steps."""
    rank, others = number_rank(x.dtype), number_rank(other.dtype)
    if rank > others:
        raise ValueError(
            f"x is {x.dtype}, and the next input is {other.dtype}, which would cut it. Make both of one kind."
        )
    with jax.numpy_dtype_promotion("standard"):
        return x.astype(jnp.promote_types(x.dtype, other.dtype) if rank == others else other.dtype)
