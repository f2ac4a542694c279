"""Conversion of `flax.nnx` cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._cells import GRU, LSTM
from ..._core.cell import Cell, GatedParams
from ..._core.composite import Composite
from ..._core.extras import extra
from ..._core.types import Params
from ..._layers.bidirectional import Bidirectional
from ..._layers.reversed import Reversed
from .._arrays import to_jax_array
from ._conversion import FlaxCell, Variables, activations_to, check_cell, flax_class, from_flax
from ._modules import NnxRNN

with extra("flax"):
    from flax import nnx


def from_nnx(module: nnx.Module) -> tuple[Cell | Composite, Params]:
    """Convert an nnx cell into a cell or a composite, and its params.

    Args:
        module: `nnx.SimpleCell`, `LSTMCell`, `OptimizedLSTMCell`, `GRUCell`, an `nnx.RNN` around one, an
            `nnx.Bidirectional` around two such, or an `NnxRNN`. Convert a stack layer by layer:
            `cells, params = zip(*map(from_nnx, layers))`, then `Stack(cells)` and `params`.

    Returns:
        The cell and its params, for each cell w_x (D, G, H), w_h (H, G, H) and b (G, H). The w_h of a
        `SimpleCell(residual=True)` includes the identity. The conversion can be traced and differentiated.

    Raises:
        ValueError: if the module is of another class (a subclass too: it may compute something else); if its dtype,
            carry_init, keep_order or merge_fn has no counterpart; and for float64 in JAX's 32-bit mode.

    >>> from flax import nnx
    >>> cell, params = from_nnx(nnx.GRUCell(3, 8, rngs=nnx.Rngs(0)))
    >>> cell.hidden, params.w_x.shape
    (8, (3, 3, 8))
    """
    if isinstance(module, NnxRNN) and type(module) is NnxRNN:
        return module.cell, module.weights()
    return from_flax(module, None, nnx, _read)


def _read(module: nnx.Module, cell: FlaxCell, variables: Variables | None) -> GatedParams:
    """Return the params of an nnx cell, which holds them."""
    return _READERS[type(module)](module)


def _kernel(dense: nnx.Linear, gates: int) -> jax.Array:
    """Return a kernel (D, G * H) as (D, G, H)."""
    kernel = to_jax_array(dense.kernel[...])
    return kernel.reshape(kernel.shape[0], gates, -1)


def _bias(dense: nnx.Linear, gates: int) -> jax.Array:
    """Return a bias (G * H,) as (G, H)."""
    assert dense.bias is not None
    return to_jax_array(dense.bias[...]).reshape(gates, -1)


def _read_simple(module: nnx.SimpleCell) -> GatedParams:
    return GatedParams(_kernel(module.dense_i, 1), _kernel(module.dense_h, 1), _bias(module.dense_i, 1))


def _read_lstm(module: nnx.LSTMCell) -> GatedParams:
    inputs = (module.ii, module.if_, module.ig, module.io)
    recurrent = (module.hi, module.hf, module.hg, module.ho)
    w_x, w_h = (jnp.concatenate([_kernel(d, 1) for d in dense], axis=1) for dense in (inputs, recurrent))
    return GatedParams(w_x, w_h, jnp.concatenate([_bias(d, 1) for d in recurrent]))


def _read_optimized_lstm(module: nnx.OptimizedLSTMCell) -> GatedParams:
    return GatedParams(_kernel(module.dense_i, 4), _kernel(module.dense_h, 4), _bias(module.dense_h, 4))


def _read_gru(module: nnx.GRUCell) -> GatedParams:
    b = _bias(module.dense_i, 3)
    return GatedParams(_kernel(module.dense_i, 3), _kernel(module.dense_h, 3), b, jnp.zeros_like(b[0]))


_READERS: dict[type, Callable[[Any], GatedParams]] = {
    nnx.SimpleCell: _read_simple,
    nnx.LSTMCell: _read_lstm,
    nnx.OptimizedLSTMCell: _read_optimized_lstm,
    nnx.GRUCell: _read_gru,
}


def to_nnx(
    cell: Cell | Composite,
    params: Params,
    *,
    lstm: type[nnx.Module] = nnx.OptimizedLSTMCell,
    rngs: nnx.Rngs | None = None,
) -> nnx.Module:
    """Convert a cell and its params into an nnx cell.

    Args:
        cell: an `Elman`, `LSTM` or `GRU` with dense recurrent weights; `Reversed` or `Bidirectional` of these, which
            becomes an `nnx.RNN`, or an `nnx.Bidirectional` around two (batch-major, flax's default).
        params: its params, for each cell w_x (D, G, H), w_h (H, G, H) and b (G, H).
        lstm: the class for an `LSTM`: `nnx.OptimizedLSTMCell` or `nnx.LSTMCell`.
        rngs: an argument of flax's constructors; the converted weights do not depend on it.

    Returns:
        The module. The conversion can be traced and differentiated.

    Raises:
        ValueError: if flax has no such cell, if the params do not fit it, and for another `lstm`; and for a `GRU` whose
            b_hn (`params.local`) is not zero, which `nnx.GRUCell` does not have.

    >>> from flax import nnx
    >>> cell = LSTM(8)
    >>> nnx_cell = to_nnx(cell, cell.init(jax.random.key(0), in_dim=3))
    >>> type(nnx_cell).__name__, nnx_cell.dense_i.kernel.shape
    ('OptimizedLSTMCell', (3, 32))
    """
    rngs = nnx.Rngs(0) if rngs is None else rngs
    if isinstance(cell, Bidirectional) and type(cell) is Bidirectional:
        forward, backward = (_to_cell(c, p, lstm, rngs) for c, p in zip(cell.cells, params, strict=True))
        return nnx.Bidirectional(nnx.RNN(forward), nnx.RNN(backward))
    if isinstance(cell, Reversed) and type(cell) is Reversed:
        return nnx.RNN(_to_cell(cell.cell, params, lstm, rngs), reverse=True, keep_order=True)
    return _to_cell(cell, params, lstm, rngs)


def _to_cell(cell: Cell | Composite, params: Params, lstm: type, rngs: nnx.Rngs) -> nnx.RNNCellBase:
    """Return the nnx cell with the equation and the params of a cell."""
    leaf = check_cell(cell, params)
    in_dim, _, hidden = params.w_x.shape
    zeros = jax.nn.initializers.zeros  # replaced below, so nothing is drawn
    kind = flax_class(leaf, nnx, lstm)
    if isinstance(leaf, GRU):
        _check_no_b_hn(params.local)
    module = kind(
        in_features=in_dim,
        hidden_features=hidden,
        dtype=None,  # that of the params; the default of SimpleCell is float32
        param_dtype=params.w_x.dtype,
        rngs=rngs,
        kernel_init=zeros,
        recurrent_kernel_init=zeros,
        **activations_to(leaf),
    )
    if kind is nnx.LSTMCell:
        return _write_lstm(module, params)
    return _write_packed(module, params, biased="dense_h" if isinstance(leaf, LSTM) else "dense_i")


def _check_no_b_hn(b_hn: jax.Array) -> None:
    """Raise ValueError unless b_hn is known to be zero."""
    if isinstance(b_hn, jax.core.Tracer) or np.any(np.asarray(b_hn)):
        raise ValueError(
            "nnx.GRUCell does not have the recurrent bias b_hn (params.local), which is not known to be zero here "
            "(under jit no value is). Use to_linen, whose GRUCell has it, or hold the cell itself in an NnxRNN and "
            "load(params)."
        )


def _set_weights(dense: nnx.Linear, w: jax.Array, b: jax.Array | None = None) -> None:
    """Set the kernel (D, G * H) to w (D, G, H), and the bias (G * H,) to b (G, H)."""
    dense.kernel.set_value(jnp.asarray(w).reshape(w.shape[0], -1))
    if b is not None:
        assert dense.bias is not None
        dense.bias.set_value(jnp.asarray(b).reshape(-1))


def _write_packed(module: nnx.RNNCellBase, params: GatedParams, *, biased: str) -> nnx.RNNCellBase:
    """Set the weights of `dense_i` and `dense_h`, and the bias of the one that is named."""
    for name, w in (("dense_i", params.w_x), ("dense_h", params.w_h)):
        _set_weights(getattr(module, name), w, params.b if name == biased else None)
    return module


def _write_lstm(module: nnx.LSTMCell, params: GatedParams) -> nnx.LSTMCell:
    """Set the weights gate by gate."""
    for k, dense in enumerate((module.ii, module.if_, module.ig, module.io)):
        _set_weights(dense, params.w_x[:, k])
    for k, dense in enumerate((module.hi, module.hf, module.hg, module.ho)):
        _set_weights(dense, params.w_h[:, k], params.b[k])
    return module
