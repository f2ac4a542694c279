"""The weights of `flax.linen` cells, in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

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
from ._modules import LinenRNN

with extra("flax"):
    import flax.linen as nn


class _Layout(NamedTuple):
    """How a linen cell names what it keeps: "i" + gate from the input, "h" + gate from the state."""

    gates: tuple[str, ...]
    biased: str  # which of the two keeps the bias


_LAYOUTS = {
    nn.SimpleCell: _Layout(("",), "i"),
    nn.LSTMCell: _Layout(("i", "f", "g", "o"), "h"),
    nn.OptimizedLSTMCell: _Layout(("i", "f", "g", "o"), "h"),
    nn.GRUCell: _Layout(("r", "z", "n"), "i"),
}

_CELLS: dict[type, Any] = {nn.SimpleCell: Elman, nn.LSTMCell: LSTM, nn.OptimizedLSTMCell: LSTM, nn.GRUCell: GRU}


def from_linen(module: nn.Module, variables: Mapping[str, Any]) -> tuple[Any, Params]:
    """Convert a linen cell with its weights.

    Args:
        module: `linen.SimpleCell`, `LSTMCell`, `OptimizedLSTMCell`, `GRUCell`, a `linen.RNN` around one, a
            `linen.Bidirectional` around two such, or a `LinenRNN`.
        variables: what `module.init` gives, or its "params" alone. For a cell within a larger module: the part of the
            tree that is the cell's.

    Returns:
        The cell and its params. The weights of a `SimpleCell(residual=True)` come with the identity added to w_h.
        Traceable: gradients pass through.

    Raises:
        ValueError: if the module is of another class (a subclass too: it may compute something else), if its
            dtype, carry_init, reverse or merge_fn have no counterpart, or if the variables are not its.

    >>> import flax.linen as nn
    >>> module = nn.GRUCell(8)
    >>> x = jnp.ones((2, 3))
    >>> variables = module.init(jax.random.key(0), module.initialize_carry(jax.random.key(0), x.shape), x)
    >>> cell, params = from_linen(module, variables)
    >>> cell.hidden, params.w_x.shape
    (8, (3, 3, 8))
    """
    kind = type(module)
    tree = nn.meta.unbox(variables.get("params", variables))
    if kind is LinenRNN:
        return module.cell, _entry(tree, "rnn", kind)
    if isinstance(module, nn.RNN) and kind is nn.RNN:
        check_forward(module)
        return from_linen(module.cell, _entry(tree, "cell", kind))
    if kind is nn.Bidirectional:
        cells = check_directions(module, nn.RNN, nn.Bidirectional.merge_fn)
        parts = (_entry(_entry(tree, name, kind), "cell", nn.RNN) for name in ("forward_rnn", "backward_rnn"))
        both, params = zip(*map(from_linen, cells, parts), strict=True)
        return Bidirectional(*both), Both(*params)
    if kind not in _LAYOUTS:
        raise ValueError(
            f"from_linen converts {', '.join(k.__name__ for k in _LAYOUTS)}, RNN and Bidirectional of linen, and "
            f"LinenRNN; got {kind.__module__}.{kind.__qualname__}. Write its gate as a GatedCell."
        )
    return _read(module, tree)


def _entry(tree: Any, name: str, kind: type) -> Any:
    """Give `tree[name]`; raise what was needed if it is not there."""
    if not isinstance(tree, Mapping) or name not in tree:
        got = sorted(tree) if isinstance(tree, Mapping) else type(tree).__name__
        raise ValueError(f"the params of a {kind.__name__} have an entry {name!r}; got {got}")
    return tree[name]


def _read(module: Any, tree: Any) -> tuple[Any, GatedParams]:
    """Read a cell's weights, gate by gate."""
    kind = type(module)
    check_carry(module)
    gates, biased = _LAYOUTS[kind]

    def stacked(side: str, leaf: str) -> jax.Array:
        return jnp.stack([exact(_entry(_entry(tree, side + g, kind), leaf, nn.Dense)) for g in gates], axis=-2)

    params = GatedParams(stacked("i", "kernel"), stacked("h", "kernel"), stacked(biased, "bias"))
    cell = _CELLS[kind](module.features, **activations_from(module))
    if kind is nn.GRUCell:
        params = params._replace(local=exact(_entry(tree["hn"], "bias", nn.Dense)))
    check_read(module, cell, params)
    if len(jax.tree.leaves(tree)) != len(jax.tree.leaves(_write(cell, params, kind))):
        raise ValueError(
            f"the params of a {kind.__name__} have no further entries; got {jax.tree.map(jnp.shape, tree)}"
        )
    if kind is nn.SimpleCell and module.residual:
        params = params._replace(w_h=params.w_h + jnp.eye(module.features, dtype=params.w_h.dtype)[:, None])
    return cell, params


def to_linen(cell: Any, params: Params, *, lstm: type[nn.Module] = nn.OptimizedLSTMCell) -> tuple[Any, dict[str, Any]]:
    """Convert a cell and its params into a linen cell and its variables.

    Args:
        cell: an `Elman`, `LSTM` or `GRU` with dense recurrent weights, or a `Bidirectional` around two such, which
            becomes a `linen.Bidirectional` around two `linen.RNN` (batch-major, as flax has it).
        params: its params.
        lstm: what an `LSTM` becomes: `linen.OptimizedLSTMCell` or `linen.LSTMCell`; their variables are the same.

    Returns:
        The module and `{"params": ...}`.

    Raises:
        ValueError: if flax has no such cell.

    >>> cell = LSTM(8)
    >>> module, variables = to_linen(cell, cell.init(jax.random.key(0), in_dim=3))
    >>> type(module).__name__, variables["params"]["if"]["kernel"].shape
    ('OptimizedLSTMCell', (3, 8))
    """
    if type(cell) is Bidirectional:
        (forward, v_forward), (backward, v_backward) = (
            to_linen(c, p, lstm=lstm) for c, p in zip(directions(cell), params, strict=True)
        )
        tree = {"forward_rnn": {"cell": v_forward["params"]}, "backward_rnn": {"cell": v_backward["params"]}}
        return nn.Bidirectional(nn.RNN(forward), nn.RNN(backward)), {"params": tree}
    check_cell(cell, params)
    module = _make(cell, params.w_x.dtype, lstm)
    return module, {"params": _write(cell, params, type(module))}


def _write(cell: Any, params: GatedParams, kind: type) -> dict[str, dict[str, jax.Array]]:
    """Return the weights of a cell under the names of a linen class."""
    gates, biased = _LAYOUTS[kind]
    tree: dict[str, dict[str, jax.Array]] = {}
    for k, gate in enumerate(gates):
        tree["i" + gate] = {"kernel": params.w_x[:, k]}
        tree["h" + gate] = {"kernel": params.w_h[:, k]}
        tree[biased + gate]["bias"] = params.b[k]
    if isinstance(cell, GRU):
        tree["hn"]["bias"] = params.local
    return tree


def _make(cell: Any, dtype: Any, lstm: Any) -> nn.Module:
    """Give the linen cell with the cell's equation."""
    fields = {"param_dtype": dtype, **activations_to(cell)}
    if not isinstance(cell, LSTM):
        return (nn.SimpleCell if isinstance(cell, Elman) else nn.GRUCell)(cell.hidden, **fields)
    if lstm not in (nn.OptimizedLSTMCell, nn.LSTMCell):
        raise ValueError(f"an LSTM becomes linen.OptimizedLSTMCell or linen.LSTMCell; got lstm={lstm}")
    return lstm(cell.hidden, **fields)
