"""The weights of `flax.nnx` cells, in and out."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._cells import GRU, LSTM, Elman
from ..._core.cell import GatedParams
from ..._core.extras import extra
from ..._core.types import Params
from ..._layers.bidirectional import Bidirectional, Both
from .._arrays import exact
from .._leaves import directions
from ._contract import (
    activations_from,
    activations_to,
    check_carry,
    check_cell,
    check_directions,
    check_forward,
    check_read,
)
from ._modules import NnxRNN

with extra("flax"):
    from flax import nnx


def from_nnx(module: nnx.Module) -> tuple[Any, Params]:
    """Convert an nnx cell with its weights.

    Args:
        module: `nnx.SimpleCell`, `LSTMCell`, `OptimizedLSTMCell`, `GRUCell`, an `nnx.RNN` around one, an
            `nnx.Bidirectional` around two such, or an `NnxRNN`. A stack is converted layer by layer:
            `cells, params = zip(*map(from_nnx, layers))`, then `Stack(cells)` and `params`.

    Returns:
        The cell and its params. The weights of a `SimpleCell(residual=True)` come with the identity added to w_h.
        Traceable: gradients pass through.

    Raises:
        ValueError: if the module is of another class (a subclass too: it may compute something else), or if its
            dtype, carry_init, reverse or merge_fn have no counterpart.

    >>> from flax import nnx
    >>> cell, params = from_nnx(nnx.GRUCell(3, 8, rngs=nnx.Rngs(0)))
    >>> cell.hidden, params.w_x.shape
    (8, (3, 3, 8))
    """
    kind = type(module)
    if kind is NnxRNN:
        return module.cell, module.weights()  # type: ignore[attr-defined]
    if isinstance(module, nnx.RNN) and kind is nnx.RNN:
        check_forward(module)
        return from_nnx(module.cell)
    if kind is nnx.Bidirectional:
        cells, params = zip(*map(from_nnx, check_directions(module, nnx.RNN, nnx.Bidirectional.merge_fn)), strict=True)
        return Bidirectional(*cells), Both(*params)
    if kind not in _READ:
        raise ValueError(
            f"from_nnx converts {', '.join(k.__name__ for k in _READ)}, RNN and Bidirectional of nnx, and NnxRNN; got "
            f"{kind.__module__}.{kind.__qualname__}. Write its gate as a GatedCell."
        )
    check_carry(module)
    ours, read = _READ[kind]
    params = read(module)
    cell = ours(module.hidden_features, **activations_from(module))  # type: ignore[attr-defined]
    check_read(module, cell, params)
    return cell, params


def _packed(dense: nnx.Linear, gates: int) -> jax.Array:
    """A kernel (D, G * H) as (D, G, H)."""
    kernel = exact(dense.kernel[...])
    return kernel.reshape(kernel.shape[0], gates, -1)


def _bias(dense: nnx.Linear, gates: int) -> jax.Array:
    """A bias (G * H) as (G, H)."""
    assert dense.bias is not None
    return exact(dense.bias[...]).reshape(gates, -1)


def _read_simple(module: nnx.SimpleCell) -> GatedParams:
    w_h = _packed(module.dense_h, 1)
    if module.residual:
        w_h = w_h + jnp.eye(module.hidden_features, dtype=w_h.dtype)[:, None]
    return GatedParams(_packed(module.dense_i, 1), w_h, _bias(module.dense_i, 1))


def _read_lstm(module: nnx.LSTMCell) -> GatedParams:
    inputs = (module.ii, module.if_, module.ig, module.io)
    recurrent = (module.hi, module.hf, module.hg, module.ho)
    w_x, w_h = (jnp.concatenate([_packed(d, 1) for d in dense], axis=1) for dense in (inputs, recurrent))
    b = jnp.concatenate([_bias(d, 1) for d in recurrent])
    return GatedParams(w_x, w_h, b)


def _read_optimized_lstm(module: nnx.OptimizedLSTMCell) -> GatedParams:
    return GatedParams(_packed(module.dense_i, 4), _packed(module.dense_h, 4), _bias(module.dense_h, 4))


def _read_gru(module: nnx.GRUCell) -> GatedParams:
    b = _bias(module.dense_i, 3)
    return GatedParams(_packed(module.dense_i, 3), _packed(module.dense_h, 3), b, jnp.zeros_like(b[0]))


_READ: dict[type, tuple[Any, Any]] = {
    nnx.SimpleCell: (Elman, _read_simple),
    nnx.LSTMCell: (LSTM, _read_lstm),
    nnx.OptimizedLSTMCell: (LSTM, _read_optimized_lstm),
    nnx.GRUCell: (GRU, _read_gru),
}


def to_nnx(
    cell: Any, params: Params, *, lstm: type[nnx.Module] = nnx.OptimizedLSTMCell, rngs: nnx.Rngs | None = None
) -> Any:
    """Convert a cell and its params into an nnx cell.

    Args:
        cell: an `Elman`, `LSTM` or `GRU` with dense recurrent weights, or a `Bidirectional` around two such, which
            becomes an `nnx.Bidirectional` around two `nnx.RNN` (batch-major, as flax has it).
        params: its params.
        lstm: what an `LSTM` becomes: `nnx.OptimizedLSTMCell` or `nnx.LSTMCell`.
        rngs: flax's constructors ask for one; nothing that is drawn from it remains.

    Raises:
        ValueError: if flax has no such cell; and for a `GRU` whose b_hn (`params.local`) is not zero, for which
            `nnx.GRUCell` has no place.

    >>> from flax import nnx
    >>> cell = LSTM(8)
    >>> nnx_cell = to_nnx(cell, cell.init(jax.random.key(0), in_dim=3))
    >>> type(nnx_cell).__name__, nnx_cell.dense_i.kernel.shape
    ('OptimizedLSTMCell', (3, 32))
    """
    rngs = nnx.Rngs(0) if rngs is None else rngs
    if type(cell) is Bidirectional:
        forward, backward = (
            nnx.RNN(to_nnx(c, p, lstm=lstm, rngs=rngs)) for c, p in zip(directions(cell), params, strict=True)
        )
        return nnx.Bidirectional(forward, backward)
    check_cell(cell, params)
    in_dim, _, hidden = params.w_x.shape
    zeros = jax.nn.initializers.zeros  # replaced at once, so nothing is drawn
    inits = {"kernel_init": zeros, "recurrent_kernel_init": zeros}
    make = functools.partial(
        _class_of(cell, lstm),
        in_features=in_dim,
        hidden_features=hidden,
        dtype=None,  # as the params: SimpleCell's own default is float32
        param_dtype=params.w_x.dtype,
        rngs=rngs,
        **activations_to(cell),
        **inits,
    )
    if isinstance(cell, Elman):
        return _write(make(), params, biased="dense_i")
    if isinstance(cell, GRU):
        _check_no_b_hn(params.local)
        return _write(make(), params, biased="dense_i")
    if lstm is nnx.OptimizedLSTMCell:
        return _write(make(), params, biased="dense_h")
    return _write_lstm(make(), params)


def _class_of(cell: Any, lstm: type) -> Any:
    """Give the nnx class with the cell's equation."""
    if not isinstance(cell, LSTM):
        return nnx.SimpleCell if isinstance(cell, Elman) else nnx.GRUCell
    if lstm not in (nnx.OptimizedLSTMCell, nnx.LSTMCell):
        raise ValueError(f"an LSTM becomes nnx.OptimizedLSTMCell or nnx.LSTMCell; got lstm={lstm}")
    return lstm


def _check_no_b_hn(b_hn: jax.Array) -> None:
    """Raise unless b_hn is known to be zero."""
    if isinstance(b_hn, jax.core.Tracer) or np.any(np.asarray(b_hn)):
        raise ValueError(
            "nnx.GRUCell has no place for the recurrent bias b_hn (params.local), which is not known to be zero here "
            "(under jit no value is). Use to_linen, whose GRUCell has it, or hold the cell itself in an NnxRNN and "
            "load(params)."
        )


def _put(dense: nnx.Linear, w: jax.Array, b: jax.Array | None = None) -> None:
    """Put w (D, G, H) and b (G, H) where (D, G * H) and (G * H) are."""
    dense.kernel.set_value(jnp.asarray(w).reshape(w.shape[0], -1))
    if b is not None:
        assert dense.bias is not None
        dense.bias.set_value(jnp.asarray(b).reshape(-1))


def _write(module: Any, params: GatedParams, *, biased: str) -> Any:
    """Put packed weights in `dense_i` and `dense_h`, and the bias in one of them."""
    for name, w in (("dense_i", params.w_x), ("dense_h", params.w_h)):
        _put(getattr(module, name), w, params.b if name == biased else None)
    return module


def _write_lstm(module: nnx.LSTMCell, params: GatedParams) -> nnx.LSTMCell:
    """Put weights gate by gate."""
    for k, dense in enumerate((module.ii, module.if_, module.ig, module.io)):
        _put(dense, params.w_x[:, k])
    for k, dense in enumerate((module.hi, module.hf, module.hg, module.ho)):
        _put(dense, params.w_h[:, k], params.b[k])
    return module
