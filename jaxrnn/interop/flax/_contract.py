"""What the two kinds of flax module have in common: which of them can be converted, and the order of axes."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._cells import GRU, LSTM, Elman
from ..._core.activation import function_of
from ..._core.cell import GatedParams
from ..._core.types import State
from ..._unroll import unroll
from .._contract import ACTIVATIONS, Kinds, check_equation, check_params, dtype_of

_KINDS: Kinds = {Elman: ("activation",), LSTM: ACTIVATIONS, GRU: ACTIVATIONS}
_FIELDS = {"activation": "activation_fn", "gate_activation": "gate_fn"}


def activations_from(module: Any) -> dict[str, Any]:
    """Return the activations of a flax cell, as fields of ours."""
    return {ours: getattr(module, theirs) for ours, theirs in _FIELDS.items() if hasattr(module, theirs)}


def activations_to(cell: Any) -> dict[str, Any]:
    """Return the activations of a cell, as fields of flax's."""
    return {theirs: function_of(getattr(cell, ours)) for ours, theirs in _FIELDS.items() if hasattr(cell, ours)}


def check_carry(module: Any) -> None:
    """Raise ValueError unless the flax cell begins with a carry of zeros."""
    if module.carry_init not in (None, jax.nn.initializers.zeros):
        raise ValueError(
            f"{type(module).__name__} draws its initial carry with carry_init={module.carry_init}; a converted cell "
            "begins with zeros. Convert a module without it, and hand the state to unroll(..., state=...)."
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
    check_equation(cell, _KINDS, "flax")
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
