"""What the conversion of `flax.nnx` and `flax.linen` cells shares: classes, wrappers, options and checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from ..._cells import GRU, LSTM, Elman
from ..._core.activation import function_of
from ..._core.cell import Cell, GatedParams
from ..._core.composite import Composite
from ..._core.types import Params
from ..._layers.bidirectional import Bidirectional, Both
from ..._layers.reversed import Reversed
from .._contract import ACTIVATIONS, Kinds, check_equation, check_params, dtype_of

FlaxCell: TypeAlias = Elman | LSTM | GRU
"""A cell that flax has a counterpart of."""

Variables: TypeAlias = Mapping[str, Any]
"""Arrays by the names of linen's modules and params, nested."""

CELLS: dict[str, type[FlaxCell]] = {"SimpleCell": Elman, "LSTMCell": LSTM, "OptimizedLSTMCell": LSTM, "GRUCell": GRU}
"""The cells of flax by their names, which are the same in nnx and linen."""

_KINDS: Kinds = {Elman: ("activation",), LSTM: ACTIVATIONS, GRU: ACTIVATIONS}
_FLAX_FIELDS = {"activation": "activation_fn", "gate_activation": "gate_fn"}


def from_flax(
    module: Any,
    variables: Variables | None,
    package: ModuleType,
    read: Callable[[Any, FlaxCell, Variables | None], GatedParams],
) -> tuple[Cell | Composite, Params]:
    """Convert a flax cell, an `RNN` around one, or a `Bidirectional` around two `RNN`s.

    Args:
        module: of nnx or of linen.
        variables: the params of a linen module; None for nnx, whose modules hold theirs.
        package: `flax.nnx` or `flax.linen`.
        read: returns the params of a flax cell, given its counterpart.

    Raises:
        ValueError: for a module or an option without a counterpart, and for params that do not fit.
    """
    kind = type(module)
    kinds = {getattr(package, name): cell for name, cell in CELLS.items()}
    if kind is package.RNN:
        cell, params = from_flax(module.cell, entry(variables, "cell", kind), package, read)
        return (Reversed(cell) if _is_reversed(module) else cell), params
    if kind is package.Bidirectional:
        _check_bidirectional(module, package)
        trees = [entry(entry(variables, name, kind), "cell", package.RNN) for name in ("forward_rnn", "backward_rnn")]
        modules = module.forward_rnn.cell, module.backward_rnn.cell
        pairs = [from_flax(*one, package, read) for one in zip(modules, trees, strict=True)]
        return Bidirectional(*(cell for cell, _ in pairs)), Both(*(params for _, params in pairs))
    if kind not in kinds:
        name = _short_name(package)
        raise ValueError(
            f"from_{name} converts {', '.join(CELLS)}, RNN and Bidirectional of {name}, and {name.capitalize()}RNN; "
            f"got {kind.__module__}.{kind.__qualname__}. Write its gate as a GatedCell."
        )
    hidden = module.hidden_features if hasattr(module, "hidden_features") else module.features
    leaf = kinds[kind](hidden, **activations_from(module))
    _check_carry(module)
    params = read(module, leaf, variables)
    _check_converted(module, leaf, params)
    if getattr(module, "residual", False):
        params = params._replace(w_h=params.w_h + jnp.eye(hidden, dtype=params.w_h.dtype)[:, None])
    return leaf, params


def entry(tree: Any, name: str, kind: type) -> Any:
    """Return `tree[name]`, None for None; raise ValueError if it is missing among the params of a `kind`."""
    if tree is None:
        return None
    if not isinstance(tree, Mapping) or name not in tree:
        got = sorted(tree) if isinstance(tree, Mapping) else type(tree).__name__
        raise ValueError(f"the params of a {kind.__name__} have an entry {name!r}; got {got}")
    return tree[name]


def flax_class(cell: FlaxCell, package: ModuleType, lstm: type) -> type:
    """Return the class of flax with the equation of a cell; `lstm` is the one for an `LSTM`."""
    if not isinstance(cell, LSTM):
        kind: type = package.SimpleCell if isinstance(cell, Elman) else package.GRUCell
        return kind
    if lstm not in (package.OptimizedLSTMCell, package.LSTMCell):
        name = _short_name(package)
        raise ValueError(f"an LSTM becomes {name}.OptimizedLSTMCell or {name}.LSTMCell; got lstm={lstm}")
    return lstm


def activations_from(module: Any) -> dict[str, Any]:
    """Return the activations of a flax cell by the names of fields of jaxrnn's cells."""
    return {field: getattr(module, name) for field, name in _FLAX_FIELDS.items() if hasattr(module, name)}


def activations_to(cell: FlaxCell) -> dict[str, Callable[[jax.Array], jax.Array]]:
    """Return the activations of a cell by the names of flax's options."""
    return {name: function_of(getattr(cell, field)) for field, name in _FLAX_FIELDS.items() if hasattr(cell, field)}


def check_cell(cell: Cell | Composite, params: Params) -> FlaxCell:
    """Return a cell; raise ValueError unless flax has its equation (`Elman`, `LSTM`, `GRU`) and the params fit it."""
    leaf = check_equation(cell, _KINDS, "flax")
    assert isinstance(leaf, FlaxCell)
    check_params(leaf, params)
    return leaf


def _check_carry(module: Any) -> None:
    """Raise ValueError unless the initial carry of a flax cell is zero."""
    if module.carry_init not in (None, jax.nn.initializers.zeros):
        raise ValueError(
            f"{type(module).__name__} draws its initial carry with carry_init={module.carry_init}; the initial state "
            "of a converted cell is zero. Convert a module without it, and pass the state to unroll(..., state=...)."
        )


def _check_converted(module: Any, cell: FlaxCell, params: GatedParams) -> None:
    """Raise ValueError unless the params fit the cell, in the dtype that the flax cell computes in."""
    check_params(cell, params)
    if module.dtype is not None and jnp.dtype(module.dtype) != (kept := dtype_of(params)):
        raise ValueError(
            f"{type(module).__name__} computes in {jnp.dtype(module.dtype)} and keeps its params in {kept}; a jaxrnn "
            "cell computes in the dtype of its params. Convert a module with dtype=None, then cast the params."
        )


def _check_bidirectional(module: Any, package: ModuleType) -> None:
    """Raise ValueError unless a `Bidirectional` concatenates the outputs of two `RNN`s."""
    if module.merge_fn is not package.Bidirectional.merge_fn:
        raise ValueError(
            f"Bidirectional merges with {module.merge_fn}; jaxrnn's concatenates. Convert the two cells, unroll each "
            "(the second with reverse=True), and merge their outputs."
        )
    for part in (module.forward_rnn, module.backward_rnn):
        if type(part) is not package.RNN:
            raise ValueError(f"Bidirectional must hold two RNNs to be converted; got a {type(part).__name__}")


def _is_reversed(module: Any) -> bool:
    """Return whether an `RNN` runs backward; raise ValueError if it then reorders its outputs."""
    if module.reverse and not module.keep_order:
        raise ValueError(
            "RNN has reverse=True and keep_order=False, so it returns outputs in the order of computation; Reversed "
            "keeps each at its step. Convert an RNN with keep_order=True, or rnn.cell for unroll(..., reverse=True)."
        )
    return bool(module.reverse)


def _short_name(package: ModuleType) -> str:
    return package.__name__.rpartition(".")[2]
