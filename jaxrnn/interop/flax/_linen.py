"""Conversion of `flax.linen` cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._cells import GRU
from ..._core.cell import Cell, GatedParams
from ..._core.composite import Composite
from ..._core.extras import extra
from ..._core.types import Params
from ..._layers.bidirectional import Bidirectional
from ..._layers.reversed import Reversed
from .._arrays import to_jax_array
from ._conversion import FlaxCell, Variables, activations_to, check_cell, entry, flax_class, from_flax
from ._modules import LinenRNN

with extra("flax"):
    import flax.linen as nn


class _Layout(NamedTuple):
    """The names in a linen cell: "i" + gate for input weights, "h" + gate for recurrent weights.

    Attributes:
        gates: the names of the gates, in the order of jaxrnn.
        biased: "i" or "h", the one with the bias.
    """

    gates: tuple[str, ...]
    biased: str


_LAYOUTS: dict[type, _Layout] = {
    nn.SimpleCell: _Layout(("",), "i"),
    nn.LSTMCell: _Layout(("i", "f", "g", "o"), "h"),
    nn.OptimizedLSTMCell: _Layout(("i", "f", "g", "o"), "h"),
    nn.GRUCell: _Layout(("r", "z", "n"), "i"),
}


def from_linen(module: nn.Module, variables: Mapping[str, Any]) -> tuple[Cell | Composite, Params]:
    """Convert a linen cell and its variables into a cell or a composite, and its params.

    Args:
        module: `linen.SimpleCell`, `LSTMCell`, `OptimizedLSTMCell`, `GRUCell`, a `linen.RNN` around one, a
            `linen.Bidirectional` around two such, or a `LinenRNN`.
        variables: what `module.init` returns, or its "params" alone. For a cell within a larger module: the part of the
            tree that belongs to the cell.

    Returns:
        The cell and its params, for each cell w_x (D, G, H), w_h (H, G, H) and b (G, H). The w_h of a
        `SimpleCell(residual=True)` includes the identity. The conversion can be traced and differentiated.

    Raises:
        ValueError: if the module is of another class (a subclass too: it may compute something else); if its dtype,
            carry_init, keep_order or merge_fn has no counterpart; if the variables do not fit it; and for float64 in
            JAX's 32-bit mode.

    >>> import flax.linen as nn
    >>> module = nn.GRUCell(8)
    >>> x = jnp.ones((2, 3))
    >>> variables = module.init(jax.random.key(0), module.initialize_carry(jax.random.key(0), x.shape), x)
    >>> cell, params = from_linen(module, variables)
    >>> cell.hidden, params.w_x.shape
    (8, (3, 3, 8))
    """
    tree = nn.meta.unbox(variables.get("params", variables))
    if isinstance(module, LinenRNN) and type(module) is LinenRNN:
        return module.cell, entry(tree, "rnn", LinenRNN)
    return from_flax(module, tree, nn, _read)


def _read(module: nn.Module, cell: FlaxCell, tree: Variables | None) -> GatedParams:
    """Return the params of a linen cell, gate by gate."""
    assert tree is not None
    kind = type(module)
    gates, biased = _LAYOUTS[kind]

    def stacked(side: str, leaf: str) -> jax.Array:
        return jnp.stack([to_jax_array(entry(entry(tree, side + g, kind), leaf, nn.Dense)) for g in gates], axis=-2)

    params = GatedParams(stacked("i", "kernel"), stacked("h", "kernel"), stacked(biased, "bias"))
    if isinstance(cell, GRU):
        params = params._replace(local=to_jax_array(entry(tree["hn"], "bias", nn.Dense)))
    if len(jax.tree.leaves(tree)) != len(jax.tree.leaves(_write(cell, params, kind))):
        raise ValueError(
            f"the params of a {kind.__name__} have no further entries; got {jax.tree.map(jnp.shape, tree)}"
        )
    return params


def to_linen(
    cell: Cell | Composite, params: Params, *, lstm: type[nn.Module] = nn.OptimizedLSTMCell
) -> tuple[nn.Module, dict[str, Any]]:
    """Convert a cell and its params into a linen cell and its variables.

    Args:
        cell: an `Elman`, `LSTM` or `GRU` with dense recurrent weights; `Reversed` or `Bidirectional` of these, which
            becomes a `linen.RNN`, or a `linen.Bidirectional` around two (batch-major, flax's default).
        params: its params, for each cell w_x (D, G, H), w_h (H, G, H) and b (G, H).
        lstm: the class for an `LSTM`: `linen.OptimizedLSTMCell` or `linen.LSTMCell`; their variables are the same.

    Returns:
        The module and `{"params": ...}`. The conversion can be traced and differentiated.

    Raises:
        ValueError: if flax has no such cell, if the params do not fit it, and for another `lstm`.

    >>> cell = LSTM(8)
    >>> module, variables = to_linen(cell, cell.init(jax.random.key(0), in_dim=3))
    >>> type(module).__name__, variables["params"]["if"]["kernel"].shape
    ('OptimizedLSTMCell', (3, 8))
    """
    if isinstance(cell, Bidirectional) and type(cell) is Bidirectional:
        (forward, f_tree), (backward, b_tree) = (_to_cell(c, p, lstm) for c, p in zip(cell.cells, params, strict=True))
        trees = {"forward_rnn": {"cell": f_tree}, "backward_rnn": {"cell": b_tree}}
        return nn.Bidirectional(nn.RNN(forward), nn.RNN(backward)), {"params": trees}
    if isinstance(cell, Reversed) and type(cell) is Reversed:
        module, tree = _to_cell(cell.cell, params, lstm)
        return nn.RNN(module, reverse=True, keep_order=True), {"params": {"cell": tree}}
    module, tree = _to_cell(cell, params, lstm)
    return module, {"params": tree}


def _to_cell(
    cell: Cell | Composite, params: Params, lstm: type
) -> tuple[nn.RNNCellBase, dict[str, dict[str, jax.Array]]]:
    """Return the linen cell with the equation of a cell, and its params."""
    leaf = check_cell(cell, params)
    kind = flax_class(leaf, nn, lstm)
    module = kind(leaf.hidden, param_dtype=params.w_x.dtype, **activations_to(leaf))
    return module, _write(leaf, params, kind)


def _write(cell: FlaxCell, params: GatedParams, kind: type) -> dict[str, dict[str, jax.Array]]:
    """Return the weights of a cell by their names in a linen class."""
    gates, biased = _LAYOUTS[kind]
    tree: dict[str, dict[str, jax.Array]] = {}
    for k, gate in enumerate(gates):
        tree["i" + gate] = {"kernel": params.w_x[:, k]}
        tree["h" + gate] = {"kernel": params.w_h[:, k]}
        tree[biased + gate]["bias"] = params.b[k]
    if isinstance(cell, GRU):
        tree["hn"]["bias"] = params.local
    return tree
