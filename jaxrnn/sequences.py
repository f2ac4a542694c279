"""Sequences in and out: from lists of them to arrays, and from a cell's own outputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .cell import Cell, Output, Params, State
from .checks import as_numbers, check_cell, check_key, check_params, check_step, host_array, is_number, shown
from .fields import show
from .trees import cast_like, number_rank

Feed = Callable[[Output, jax.Array | None], Any]
"""From y_t and a key for this step, or None, to x_{t+1}."""


def pad(sequences: Sequence[Any], length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Put sequences of different lengths side by side, on the host: NumPy alone, so a forked data loader may call it.

    Args:
        sequences: arrays (T_b, ...), equal in all but T_b; at least one. One without steps, such as [], fits any.
        length: T to pad to; None takes the longest. A few fixed lengths mean few compilations.

    Returns:
        xs (T, B, ...), zero where a sequence has ended, and lengths (B,) int32: what `unroll` takes.

    Raises:
        ValueError: for no sequences, different features or dtypes, what is no numbers, or a sequence longer than
            `length`.

    >>> xs, lengths = pad([np.ones((2, 3)), np.ones((5, 3))])
    >>> xs.shape, lengths.tolist()
    ((5, 2, 3), [2, 5])
    """
    arrays = of_one_kind("pad", sequences)
    lengths = np.array([len(a) for a in arrays], np.int32)
    longest = int(lengths.max())
    if length is not None and length < longest:
        raise ValueError(
            f"pad to length={length}, but the longest sequence has {longest} steps. Cut it, or pad further."
        )
    return side_by_side(arrays, arrays[0], longest if length is None else length, len(arrays)), lengths


def of_one_kind(caller: str, sequences: Sequence[Any]) -> list[np.ndarray]:
    """Return sequences as arrays (T_b, ...) that agree in features and dtype, those without steps as the others.

    Raises:
        ValueError: for no sequences, for some that do not agree, and for what is no numbers.
    """
    arrays = [host_array(f"the sequences of {caller}", sequence) for sequence in sequences]
    kinds = {(a.shape[1:], a.dtype) for a in arrays if a.ndim == 0 or len(a)} or {
        (a.shape[1:], a.dtype) for a in arrays[:1]
    }
    fits = len(kinds) == 1 and all(a.ndim for a in arrays)
    if not fits or not is_number(next(iter(kinds))[1]):
        got = sorted({f"{a.dtype} {('T', *a.shape[1:]) if a.ndim else ()}" for a in arrays})
        raise ValueError(
            f"{caller} needs arrays of numbers (T, ...) of one kind, which agree in features and dtype; got "
            f"{', '.join(got) or 'none'}"
        )
    ((features, dtype),) = kinds
    if any(a.shape not in ((0,), (0, *features)) for a in arrays if not len(a)):
        raise ValueError(
            f"{caller}: a sequence without steps is [] or (0, {features}); got {[a.shape for a in arrays]}"
        )
    return [a if len(a) else np.zeros((0, *features), dtype) for a in arrays]


def side_by_side(arrays: Sequence[np.ndarray], like: np.ndarray, length: int, batch: int) -> np.ndarray:
    """Return arrays (T_b, ...) of the kind of `like` as (length, batch, ...), zero past them and in rows left over."""
    padded = np.zeros((length, batch, *like.shape[1:]), like.dtype)
    for b, array in enumerate(arrays):
        padded[: len(array), b] = array
    return padded


def generate(
    cell: Cell,
    params: Params,
    x: Any,
    state: State = None,
    *,
    steps: int,
    feed: Feed | None = None,
    key: jax.Array | None = None,
) -> tuple[State, Output]:
    """Feed the output back: x_{t+1} = feed(y_t).

    Args:
        cell: a cell with a `step`, a `SequenceModel`, or another frozen value with `step(params, state, x)`.
        params: its params.
        x: the first input (*batch, D), or a pytree of inputs.
        state: the state before it, as `unroll` hands it over after a prompt; None takes the cell's own. A
            `SequenceModel` needs one: `model.initial_state(params, batch)`.
        steps: how many outputs to make.
        feed: from (y_t, a key for this step, or None) to x_{t+1}, of the structure and shapes of x; None takes y_t
            itself. Pass a named function or a method of a frozen value: a new lambda each time is a new compilation.
        key: what `feed` draws from, a part for each step.

    Returns:
        The state after the last step, and the outputs (steps, *batch, ...).

    Raises:
        ValueError: if what is fed back does not fit x, or an argument is of another kind; it says how to mend it.

    >>> cell = GRU(3)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> generate(cell, params, jnp.ones((2, 3)), steps=7)[1].shape
    (7, 2, 3)

    A decoder that draws a token a step, and goes on with its end token once it has drawn that: what is fed back is the
    token and whether the row has ended, and `sample` has a key of its own at every step.

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
        check_params(cell, params, shapes[0][-1])
        state = cell.initial_state(params, shapes[0][:-1])
    return _generate(cell, params, x, state, int(steps), feed, key)


def _check(cell: Any, steps: Any, key: Any) -> None:
    """Raise ValueError unless the arguments of `generate` are of their kinds."""
    if isinstance(cell, type) or not callable(getattr(cell, "step", None)):
        raise ValueError(
            f"generate needs an instance with a causal step, such as LSTM(128); got {show(cell)}. What needs the whole "
            "sequence, as Bidirectional does, cannot be fed its own output."
        )
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 0:
        raise ValueError(f"steps is how many outputs to make, an integer of 0 or more; got {steps!r}")
    check_key(key)


@functools.partial(jax.jit, static_argnames=("cell", "steps", "feed"))
def _generate(
    cell: Cell, params: Params, x: Any, state: State, steps: int, feed: Feed | None, key: jax.Array | None
) -> tuple[State, Output]:
    """`generate`, compiled."""
    check_step(cell, params, state, x)

    def step(carry: tuple[State, Any], key: jax.Array | None) -> tuple[State, Any, Output]:
        state, y = cell.step(params, *carry)
        return state, y if feed is None else feed(y, key), y

    after, following, _ = jax.eval_shape(step, (state, x), key)
    if _form(after) != _form(state):
        raise ValueError(
            f"a step makes {shown(after)} of the state {shown(state)}: it is for another batch than x, {shown(x)}. "
            "Start from initial_state(params, batch)."
        )
    if _form(following) != _form(x):
        raise ValueError(
            f"what is fed back is {shown(following)}, which does not stand in the place of x, {shown(x)}. Pass "
            "feed=f with x_{t+1} = f(y_t, key), or a cell with as many outputs as inputs."
        )
    x = jax.tree.map(_joined, x, following)

    def one(carry: tuple[State, Any], key: jax.Array | None) -> tuple[tuple[State, Any], Output]:
        state, following, y = step(carry, key)
        return (cast_like(state, carry[0]), jax.tree.map(_joined, following, carry[1])), y

    keys = None if key is None else jax.random.split(key, steps)
    (state, _), ys = jax.lax.scan(one, (state, x), keys, length=steps)
    return state, ys


def _form(tree: Any) -> Any:
    return jax.tree.structure(tree), [leaf.shape for leaf in jax.tree.leaves(tree)]


def _joined(x: jax.Array, other: Any) -> jax.Array:
    """Cast an input to a dtype that holds its numbers and those that stand in its place at other steps."""
    rank, others = number_rank(x.dtype), number_rank(other.dtype)
    if rank > others:
        raise ValueError(
            f"x is {x.dtype}, and what is fed back is {other.dtype}, which would cut it. Make both of one kind."
        )
    with jax.numpy_dtype_promotion("standard"):
        return x.astype(jnp.promote_types(x.dtype, other.dtype) if rank == others else other.dtype)
