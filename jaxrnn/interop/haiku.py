"""Haiku's recurrent cores: their weights and states, in both directions, and a module around any jaxrnn cell.

| haiku | jaxrnn | where haiku differs |
|---|---|---|
| `hk.VanillaRNN(H)` | `Elman(H, activation=jax.nn.relu)` | two biases that only ever add |
| `hk.LSTM(H)` | `LSTM(H)` | one matrix for x and h, gates i, g, f, o, and 1 is added to f inside the core |
| `hk.GRU(H)` | `ResetBeforeGRU(H)` | gates z, r, a, and its z is our 1 - z |
| `hk.DeepRNN([...])` of cores | `Stack((...))` | |

Weights go through unchanged, bit for bit, but for an LSTM's forget bias: 1 is added or taken away, in the dtype of the
weights, so it is rounded as it is within haiku's core.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._cells import LSTM, Elman, LSTMState, ResetBeforeGRU
from .._core.activation import RELU
from .._core.cell import GatedParams
from .._core.extras import extra
from .._core.types import Params, State
from .._layers.stack import Stack
from ._arrays import exact
from ._contract import Kinds, activation_of, check_params, checked_leaves
from ._haiku_module import HaikuRNN as HaikuRNN
from ._haiku_module import named_leaves
from ._packing import Packing

with extra("haiku"):
    import haiku as hk


_CORES: dict[Any, type] = {hk.VanillaRNN: Elman, hk.LSTM: LSTM, hk.GRU: ResetBeforeGRU}
_PACKINGS: dict[type, Packing] = {
    Elman: Packing((0,)),
    LSTM: Packing((0, 2, 1, 3)),
    ResetBeforeGRU: Packing((1, 0, 2), negated=(1,)),
}
_KINDS: Kinds = {Elman: ("activation",), LSTM: (), ResetBeforeGRU: ()}
_FORGET = 1  # the gate f among ours
Core = Callable[[], Any]  # makes a module, within `hk.transform`


def from_haiku(core: Core, params: Mapping[str, Any], *, prefix: str = "") -> tuple[Any, Params]:
    """Convert a core of haiku with its weights.

    Args:
        core: makes the core, as within `hk.transform`: `lambda: hk.LSTM(128)`, one of the table above, exactly (a
            subclass may compute something else), or a `HaikuRNN`.
        params: what `hk.transform(...).init` returns.
        prefix: what stands before the core's name in `params`, for a core within a larger module: "agent/~/".

    Returns:
        The cell and its params, in their own dtype. Traceable: gradients pass through.

    Raises:
        ValueError: for another core, or params that are not its.

    >>> def network(xs, core=lambda: hk.GRU(4)):
    ...     return hk.dynamic_unroll(core(), xs, jnp.zeros((2, 4)))
    >>> params = hk.transform(network).init(jax.random.key(0), jnp.ones((7, 2, 3)))
    >>> cell, params = from_haiku(lambda: hk.GRU(4), params)
    >>> cell == ResetBeforeGRU(4), params.w_x.shape
    (True, (3, 3, 4))
    """
    return _read(_made(core), params, prefix)


def _made(core: Core) -> Any:
    """Return the module that `core` makes, for its names and sizes."""
    made: list[Any] = []
    hk.transform(lambda: made.append(core())).init(None)
    return made[0]


def _read(module: Any, params: Mapping[str, Any], prefix: str) -> tuple[Any, Params]:
    """Return a module as ours."""
    kind, name = type(module), prefix + getattr(module, "module_name", "")
    if kind is HaikuRNN:
        return module.cell, _tree(module, params, name)
    if kind is hk.DeepRNN:
        layers = [_read(layer, params, prefix) for layer in module.layers]
        return Stack(tuple(cell for cell, _ in layers)), tuple(found for _, found in layers)
    if kind not in _CORES:
        raise ValueError(
            f"from_haiku takes {', '.join(k.__name__ for k in _CORES)}, DeepRNN of these and HaikuRNN themselves; got "
            f"{module!r}. Convert the cores that are among these; of a ResetCore its core, for unroll(..., resets=...)."
        )
    hidden = module.hidden_size
    packing = _PACKINGS[_CORES[kind]]
    if kind is hk.VanillaRNN:
        cell: Any = Elman(hidden, activation=jax.nn.relu)
        w_x, b = (_entry(params, f"{name}/linear", leaf) for leaf in ("w", "b"))
        w_h = _entry(params, f"{name}/linear_1", "w")
        b = b + _entry(params, f"{name}/linear_1", "b") if module.double_bias else b
    elif kind is hk.LSTM:
        cell = LSTM(hidden)
        w, b = (_entry(params, f"{name}/linear", leaf) for leaf in ("w", "b"))
        w_x, w_h = w[:-hidden], w[-hidden:]
    else:
        cell = ResetBeforeGRU(hidden)
        w_x, w_h, b = (_entry(params, name, leaf) for leaf in ("w_i", "w_h", "b"))
    if any(a.shape[-1] != len(packing.order) * hidden for a in (w_x, w_h, b)):
        raise ValueError(f"{name} has {hidden} units; got weights of the shapes {w_x.shape}, {w_h.shape}, {b.shape}")
    found = GatedParams(*map(packing.unpack, (w_x, w_h, b)))
    if kind is hk.LSTM:
        found = found._replace(b=found.b.at[_FORGET].add(1))
    check_params(cell, found)
    return cell, found


def _tree(module: HaikuRNN, params: Mapping[str, Any], name: str) -> Params:
    """Return the params of a `HaikuRNN` as its cell's own tree."""
    if module.in_dim is None:
        raise ValueError(f"the params do not say in_dim; name it: lambda: HaikuRNN({module.cell}, in_dim=...)")
    names, shapes, structure = named_leaves(module.cell, module.in_dim)
    found = [_entry(params, name, leaf) for leaf in names]
    if [a.shape for a in found] != [a.shape for a in shapes]:
        raise ValueError(
            f"{module.cell} has weights of the shapes {[a.shape for a in shapes]}; got {[a.shape for a in found]}"
        )
    return jax.tree.unflatten(structure, found)


def _entry(params: Mapping[str, Any], module: str, leaf: str) -> jax.Array:
    """Return a weight; raise what was needed if it is not there."""
    if module not in params or leaf not in params[module]:
        got = {name: sorted(below) for name, below in params.items()}
        raise ValueError(
            f"params[{module!r}][{leaf!r}] was needed; got {got}. Name the core as it is named in its model "
            '(hk.LSTM(128, name="...")), and what stands before that name with prefix="...".'
        )
    return exact(params[module][leaf])


def to_haiku(cell: Any, params: Params, *, prefix: str = "") -> tuple[Core, dict[str, dict[str, Any]]]:
    """Convert a cell, or a `Stack`, and its params into a core of haiku and its params.

    Args:
        cell: one of the table above, with a `Dense` recurrence.
        params: its params.
        prefix: what to put before the core's name, for a core within a larger module: "agent/~/".

    Returns:
        A function that makes the core within `hk.transform`, and the params. Traceable: gradients pass through.

    Raises:
        ValueError: for a cell that haiku does not have (a `GRU` is one, and an `Elman` of tanh), or params that do not
            belong to it.

    >>> core, params = to_haiku(LSTM(4), LSTM(4).init(jax.random.key(0), in_dim=3))
    >>> network = hk.transform(lambda xs: hk.dynamic_unroll(core(), xs, core().initial_state(2)))
    >>> ys, state = network.apply(params, None, jnp.ones((7, 2, 3)))
    >>> ys.shape, state.cell.shape
    ((7, 2, 4), (2, 4))
    """
    pairs = checked_leaves(cell, params, _KINDS, "haiku")
    for leaf, _ in pairs:
        if isinstance(leaf, Elman):
            activation_of(leaf, {"relu": RELU}, "haiku")
    core = functools.partial(_core, cell)
    module = _made(core)
    modules = _flat(module)
    if len(modules) != len(pairs):
        raise ValueError(f"haiku's DeepRNN holds no Bidirectional and no Dropout; got {cell}")
    tree: dict[str, dict[str, Any]] = {}
    for made, (leaf, part) in zip(modules, pairs, strict=True):
        tree |= _write(leaf, part, prefix + made.module_name)
    return core, tree


def _core(cell: Any) -> Any:
    """Return the core of haiku, within `hk.transform`."""
    match cell:
        case Stack():
            return hk.DeepRNN([_core(layer) for layer in cell.layers])
        case Elman():
            return hk.VanillaRNN(cell.hidden)
        case LSTM():
            return hk.LSTM(cell.hidden)
        case ResetBeforeGRU():
            return hk.GRU(cell.hidden)
    raise ValueError(f"haiku has DeepRNN of its cores, and no {type(cell).__name__}; convert the cells within it")


def _flat(module: Any) -> list[Any]:
    """Return the cores of a module, the lowest first."""
    return [core for layer in module.layers for core in _flat(layer)] if isinstance(module, hk.DeepRNN) else [module]


def _write(cell: Any, params: GatedParams, name: str) -> dict[str, dict[str, Any]]:
    """Return the weights of one cell under haiku's names."""
    if isinstance(cell, LSTM):
        params = params._replace(b=jnp.asarray(params.b).at[_FORGET].add(-1))
    w_x, w_h, b = map(_PACKINGS[type(cell)].pack, params[:3])
    match cell:
        case Elman():
            return {f"{name}/linear": {"w": w_x, "b": b}, f"{name}/linear_1": {"w": w_h, "b": jnp.zeros_like(b)}}
        case LSTM():
            return {f"{name}/linear": {"w": jnp.concatenate([w_x, w_h]), "b": b}}
    return {name: {"w_i": w_x, "w_h": w_h, "b": b}}


def state_from_haiku(cell: Any, state: Any) -> State:
    """Convert the state of a core: `hk.LSTMState(hidden, cell)` or h, for a `Stack` a tuple of them.

    Raises:
        ValueError: if an LSTM's state is no `hk.LSTMState`, since the order of a plain tuple is not known.

    >>> state_from_haiku(LSTM(4), hk.LSTMState(hidden=jnp.zeros((2, 4)), cell=jnp.ones((2, 4)))).c.shape
    (2, 4)
    """
    if isinstance(cell, Stack):
        _check_state(cell, isinstance(state, tuple) and len(state) == len(cell.layers), state)
        return tuple(map(state_from_haiku, cell.layers, state))
    _check_state(cell, isinstance(state, hk.LSTMState) == isinstance(cell, LSTM), state)
    return LSTMState(exact(state.hidden), exact(state.cell)) if isinstance(cell, LSTM) else exact(state)


def _check_state(cell: Any, fits: bool, state: Any) -> None:
    if not fits:
        raise ValueError(
            f"the state of {cell} is an hk.LSTMState for an LSTM, an array for another core, and a tuple of these for "
            f"a Stack; got {state!r:.200}"
        )


def state_to_haiku(cell: Any, state: State) -> Any:
    """Convert a state into that of a core: the inverse of `state_from_haiku`.

    >>> state_to_haiku(LSTM(4), LSTMState(h=jnp.zeros((2, 4)), c=jnp.ones((2, 4)))).cell.shape
    (2, 4)
    """
    if isinstance(cell, Stack):
        return tuple(map(state_to_haiku, cell.layers, state))
    return hk.LSTMState(hidden=state.h, cell=state.c) if isinstance(state, LSTMState) else state
