"""What the two kinds of flax module have in common: which of them can be converted, and the order of axes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...activation import is_standard
from ...cell import GatedParams, Output, State
from ...cells import GRU, LSTM, Elman
from ...compose import Bidirectional
from ...recurrence import Dense
from ...unroll import unroll

SIGMOIDS = (jax.nn.sigmoid, jax.lax.logistic)
TANHS = (jnp.tanh, jax.nn.tanh, jax.lax.tanh)


def check_module(module: Any, *, gated: bool) -> None:
    """Raise unless the flax cell computes the standard equations, in the dtype of its params, from a zero carry.

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
    if module.dtype is not None and jnp.dtype(module.dtype) != jnp.dtype(module.param_dtype):
        raise ValueError(
            f"{name} computes in {jnp.dtype(module.dtype)} and keeps its params in {jnp.dtype(module.param_dtype)}; a "
            "jaxrnn cell computes in the dtype of its params. Convert a module with dtype=None, then cast the params."
        )
    if module.carry_init not in (None, jax.nn.initializers.zeros):
        raise ValueError(
            f"{name} draws its initial carry with carry_init={module.carry_init}; a converted cell begins with zeros. "
            "Convert a module without it, and hand the state to unroll(..., state=...)."
        )


def check_cell(cell: Any) -> None:
    """Raise unless flax has a cell with this equation: an `Elman`, `LSTM` or `GRU` with dense recurrent weights."""
    if type(cell) not in (Elman, LSTM, GRU):
        raise ValueError(
            f"flax has no cell with the equation of {type(cell).__name__}; Elman, LSTM, GRU and Bidirectional around "
            "them can be converted, a Stack layer by layer. Or use the cell as it is, in NnxRNN or LinenRNN."
        )
    if type(cell) is not Elman and not is_standard(cell):
        raise ValueError(
            f"{cell} is converted with sigmoid gates and tanh alone. Use it as it is, in NnxRNN or LinenRNN."
        )
    if cell.recurrence != Dense():
        raise ValueError(f"flax's cells have dense recurrent weights; got {cell}. Use NnxRNN or LinenRNN.")


def check_shapes(cell: Any, params: GatedParams) -> None:
    """Raise unless the params are w_x (D, G, H), w_h (H, G, H) and b (G, H)."""
    got = tuple(np.shape(a) for a in params[:3])
    hidden, gates = cell.hidden, cell.gates
    if got != ((*got[0][:1], gates, hidden), (hidden, gates, hidden), (gates, hidden)):
        raise ValueError(
            f"{cell} has weights of the shapes (D, {gates}, {hidden}), {(hidden, gates, hidden)} and "
            f"{(gates, hidden)}; got {got}"
        )


def directions(both: Bidirectional) -> tuple[Any, Any]:
    """Give the two cells of a `Bidirectional`."""
    return both.forward, both.forward if both.backward is None else both.backward


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
    cell: Any, params: Any, xs: Any, state: State, *, time_major: bool, resets: Any, **keywords: Any
) -> tuple[State, Output]:
    """`unroll`, of (T, *batch, D) if `time_major`, else of xs and outputs (*batch, T, D) and resets (*batch, T)."""
    if time_major:
        return unroll(cell, params, xs, state, resets=resets, **keywords)
    xs = jax.tree.map(lambda x: jnp.moveaxis(x, -2, 0) if np.ndim(x) > 1 else x, xs)
    resets = None if resets is None else jnp.moveaxis(jnp.asarray(resets), -1, 0)
    state, ys = unroll(cell, params, xs, state, resets=resets, **keywords)
    return state, jax.tree.map(lambda y: jnp.moveaxis(y, 0, -2), ys)
