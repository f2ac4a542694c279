"""What the two kinds of flax module have in common: which of them can be converted, and the order of axes."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...cell import GatedParams, State
from ...cells import GRU, LSTM, Elman
from ...unroll import unroll
from ..contract import check_equation, check_params, dtype_of

SIGMOIDS = (jax.nn.sigmoid, jax.lax.logistic)
TANHS = (jnp.tanh, jax.nn.tanh, jax.lax.tanh)


def check_module(module: Any, *, gated: bool) -> None:
    """Raise unless the flax cell computes the standard equations, from a zero carry.

    Args:
        module: one of flax's cells.
        gated: its activations are those of the gates, and so a part of the equation.

    Raises:
        ValueError: which field stands in the way, and what to do about it.
    """
    name = type(module).__name__
    for field, standard in (("gate_fn", SIGMOIDS), ("activation_fn", TANHS)) if gated else ():
        given = getattr(module, field)
        if given not in standard:
            raise ValueError(
                f"{name} with {field}={given} has no counterpart: LSTM and GRU use sigmoid and tanh. Write its gate as "
                "a GatedCell."
            )
    if module.carry_init not in (None, jax.nn.initializers.zeros):
        raise ValueError(
            f"{name} draws its initial carry with carry_init={module.carry_init}; a converted cell begins with zeros. "
            "Convert a module without it, and hand the state to unroll(..., state=...)."
        )


def check_read(module: Any, cell: Any, params: GatedParams) -> None:
    """Raise unless the params that were read are those of the cell, in the dtype that the flax cell computes in."""
    check_params(cell, params)
    if module.dtype is not None and jnp.dtype(module.dtype) != (kept := dtype_of(params)):
        raise ValueError(
            f"{type(module).__name__} computes in {jnp.dtype(module.dtype)} and keeps its params in {kept}; a jaxrnn "
            "cell computes in the dtype of its params. Convert a module with dtype=None, then cast the params."
        )


def check_cell(cell: Any, params: GatedParams) -> None:
    """Raise unless flax has a cell with this equation, an `Elman`, `LSTM` or `GRU`, and the params are the cell's."""
    check_equation(cell, (Elman, LSTM, GRU), "flax", expressed=("activation",) if type(cell) is Elman else ())
    check_params(cell, params)


def check_directions(module: Any, rnn: type, concatenate: Any) -> tuple[Any, Any]:
    """Give the two cells of a flax `Bidirectional`; raise unless it concatenates the outputs of two `RNN`s."""
    if module.merge_fn is not concatenate:
        raise ValueError(
            f"Bidirectional merges with {module.merge_fn}; jaxrnn's concatenates. Convert the two cells, unroll each "
            "(the second with reverse=True), and merge their outputs."
        )
    for part in (module.forward_rnn, module.backward_rnn):
        if type(part) is not rnn:
            raise ValueError(f"Bidirectional must hold two RNNs to be converted; got a {type(part).__name__}")
    return module.forward_rnn.cell, module.backward_rnn.cell


def check_forward(module: Any) -> None:
    """Raise if an `RNN` runs backward: that is a keyword of `unroll`, not of a cell."""
    if module.reverse:
        raise ValueError("RNN has reverse=True, which a cell cannot hold. Convert rnn.cell; unroll(..., reverse=True).")


def cross(
    cell: Any,
    params: Any,
    xs: Any,
    state: State,
    *,
    time_major: bool,
    return_carry: bool,
    keep_order: bool,
    resets: Any,
    **keywords: Any,
) -> Any:
    """`unroll` in the layout that a module asks for: what `NnxRNN` and `LinenRNN` document."""
    if not time_major:
        xs = jax.tree.map(lambda x: jnp.moveaxis(x, -2, 0) if np.ndim(x) > 1 else x, xs)
        resets = None if resets is None else jnp.moveaxis(jnp.asarray(resets), -1, 0)
    state, ys = unroll(cell, params, xs, state, resets=resets, **keywords)
    if keywords["reverse"] and not keep_order:
        ys = jax.tree.map(functools.partial(_flipped, keywords["lengths"]), ys)
    if not time_major:
        ys = jax.tree.map(lambda y: jnp.moveaxis(y, 0, -2), ys)
    return (state, ys) if return_carry else ys


def _flipped(lengths: Any, ys: jax.Array) -> jax.Array:
    """Return outputs (T, *batch, H) in the order in which they were computed; padding stays at the end."""
    if lengths is None:
        return ys[::-1]
    lengths = jnp.asarray(lengths)
    t = jnp.arange(len(ys)).reshape(-1, *[1] * lengths.ndim)
    return jnp.take_along_axis(ys, ((lengths - 1 - t) % max(1, len(ys)))[..., None], axis=0)
