"""Conversion from and to haiku's recurrent cores: weights and states; and `HaikuRNN`, which holds any jaxrnn cell.

| haiku | jaxrnn | where haiku differs |
|---|---|---|
| `hk.VanillaRNN(H)` | `Elman(H, activation=jax.nn.relu)` | two biases that are added to each other |
| `hk.LSTM(H)` | `LSTM(H)` | one matrix for x and h, gates i, g, f, o, and 1 is added to f inside the core |
| `hk.GRU(H)` | `ResetBeforeGRU(H)` | gates z, r, a, and its z is 1 - z in jaxrnn |
| `hk.DeepRNN([...])` of cores | `Stack((...))` | |

Conversion keeps every bit of the weights except an LSTM's forget bias: 1 is added or subtracted in the dtype of the
weights, and so rounded as within haiku's core.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .._cells import LSTM, Elman, LSTMState, ResetBeforeGRU
from .._core.activation import RELU
from .._core.cell import Cell, GatedParams
from .._core.composite import Composite
from .._core.extras import extra
from .._core.types import Params, State
from .._layers.stack import Stack
from ._arrays import to_jax_array
from ._contract import Kinds, Leaf, activation_name, check_params, checked_leaves
from ._haiku_module import HaikuRNN as HaikuRNN
from ._haiku_module import named_leaves
from ._packing import Packing

with extra("haiku"):
    import haiku as hk


_CORES: dict[type, type[Leaf]] = {hk.VanillaRNN: Elman, hk.LSTM: LSTM, hk.GRU: ResetBeforeGRU}
_PACKINGS: dict[type, Packing] = {
    Elman: Packing((0,)),
    LSTM: Packing((0, 2, 1, 3)),
    ResetBeforeGRU: Packing((1, 0, 2), negated=(1,)),
}
_KINDS: Kinds = {Elman: ("activation",), LSTM: (), ResetBeforeGRU: ()}
_FORGET = 1  # the index of the gate f in jaxrnn

CoreFactory: TypeAlias = Callable[[], hk.Module]
"""A function that returns a core or another module, called within `hk.transform`."""

HaikuParams: TypeAlias = Mapping[str, Mapping[str, ArrayLike]]
"""Params by the names of modules, then by their own."""

HaikuState: TypeAlias = hk.LSTMState | jax.Array | tuple["HaikuState", ...]
"""The state of a core, each leaf (*batch, H)."""


def from_haiku(core: CoreFactory, params: HaikuParams, *, prefix: str = "") -> tuple[Cell | Composite, Params]:
    """Convert a core of haiku and its weights into a cell or a composite, and its params.

    Args:
        core: returns the core, as within `hk.transform`: `lambda: hk.LSTM(128)`, one of the table above, exactly (a
            subclass may compute something else), or a `HaikuRNN`.
        params: what `hk.transform(...).init` returns.
        prefix: what precedes the core's name in `params`, for a core within a larger module: "agent/~/".

    Returns:
        The cell and its params, in their own dtype, for each core w_x (D, G, H), w_h (H, G, H) and b (G, H). The
        conversion can be traced and differentiated.

    Raises:
        ValueError: for another core, for params that do not fit it, and for float64 in JAX's 32-bit mode.

    >>> def network(xs, core=lambda: hk.GRU(4)):
    ...     return hk.dynamic_unroll(core(), xs, jnp.zeros((2, 4)))
    >>> params = hk.transform(network).init(jax.random.key(0), jnp.ones((7, 2, 3)))
    >>> cell, params = from_haiku(lambda: hk.GRU(4), params)
    >>> cell == ResetBeforeGRU(4), params.w_x.shape
    (True, (3, 3, 4))
    """
    return _convert(_instantiate(core), params, prefix)


def _instantiate(core: CoreFactory) -> hk.Module:
    """Return the module that `core` returns within `hk.transform`, for its names and sizes."""
    modules: list[hk.Module] = []
    hk.transform(lambda: modules.append(core())).init(None)
    return modules[0]


def _convert(module: hk.Module, params: HaikuParams, prefix: str) -> tuple[Cell | Composite, Params]:
    """Convert a module and its params."""
    kind, name = type(module), prefix + getattr(module, "module_name", "")
    if isinstance(module, HaikuRNN) and kind is HaikuRNN:
        return module.cell, _tree(module, params, name)
    if isinstance(module, hk.DeepRNN) and kind is hk.DeepRNN:
        layers = [_convert(layer, params, prefix) for layer in module.layers]
        return Stack(tuple(cell for cell, _ in layers)), tuple(p for _, p in layers)
    if kind not in _CORES:
        raise ValueError(
            f"from_haiku takes {', '.join(k.__name__ for k in _CORES)}, DeepRNN of these and HaikuRNN themselves; got "
            f"{module!r}. Convert the cores that are among these; of a ResetCore its core, for unroll(..., resets=...)."
        )
    cell, w_x, w_h, b = _weights(module, params, name)
    packing = _PACKINGS[type(cell)]
    if any(a.shape[-1] != len(packing.order) * cell.hidden for a in (w_x, w_h, b)):
        raise ValueError(
            f"{name} has {cell.hidden} units; got weights of the shapes {w_x.shape}, {w_h.shape}, {b.shape}"
        )
    converted = GatedParams(*map(packing.unpack, (w_x, w_h, b)))
    if isinstance(cell, LSTM):
        converted = converted._replace(b=converted.b.at[_FORGET].add(1))
    check_params(cell, converted)
    return cell, converted


def _weights(module: hk.Module, params: HaikuParams, name: str) -> tuple[Leaf, jax.Array, jax.Array, jax.Array]:
    """Return the cell of a core, and its weights as haiku packs them: w_x (D, G * H), w_h (H, G * H), b (G * H,)."""
    match module:
        case hk.VanillaRNN():
            cell = Elman(module.hidden_size, activation=jax.nn.relu)
            w_x, b = (_entry(params, f"{name}/linear", leaf) for leaf in ("w", "b"))
            w_h = _entry(params, f"{name}/linear_1", "w")
            return cell, w_x, w_h, b + _entry(params, f"{name}/linear_1", "b") if module.double_bias else b
        case hk.LSTM():
            w, b = (_entry(params, f"{name}/linear", leaf) for leaf in ("w", "b"))
            return LSTM(module.hidden_size), w[: -module.hidden_size], w[-module.hidden_size :], b
    assert isinstance(module, hk.GRU)
    w_x, w_h, b = (_entry(params, name, leaf) for leaf in ("w_i", "w_h", "b"))
    return ResetBeforeGRU(module.hidden_size), w_x, w_h, b


def _tree(module: HaikuRNN, params: HaikuParams, name: str) -> Params:
    """Return the params of a `HaikuRNN` as the tree of its cell."""
    if module.in_dim is None:
        raise ValueError(f"the params do not show in_dim. Pass it: lambda: HaikuRNN({module.cell}, in_dim=...)")
    names, shapes, structure = named_leaves(module.cell, module.in_dim)
    arrays = [_entry(params, name, leaf) for leaf in names]
    if [a.shape for a in arrays] != [a.shape for a in shapes]:
        raise ValueError(
            f"{module.cell} has weights of the shapes {[a.shape for a in shapes]}; got {[a.shape for a in arrays]}"
        )
    return jax.tree.unflatten(structure, arrays)


def _entry(params: HaikuParams, module: str, leaf: str) -> jax.Array:
    """Return a weight; raise ValueError if it is missing."""
    if module not in params or leaf not in params[module]:
        got = {name: sorted(below) for name, below in params.items()}
        raise ValueError(
            f"params[{module!r}][{leaf!r}] was needed; got {got}. Name the core as it is named in its model "
            '(hk.LSTM(128, name="...")), and pass what precedes that name as prefix="...".'
        )
    return to_jax_array(params[module][leaf])


def to_haiku(
    cell: Cell | Composite, params: Params, *, prefix: str = ""
) -> tuple[CoreFactory, dict[str, dict[str, jax.Array]]]:
    """Convert a cell or a `Stack`, and its params, into a core of haiku and its params.

    Args:
        cell: one of the table above, with a `Dense` recurrence.
        params: its params, all of one dtype, in the shapes that `cell.init` returns.
        prefix: what precedes the core's name, for a core within a larger module: "agent/~/".

    Returns:
        A function that returns the core within `hk.transform`, and the params. The conversion can be traced and
        differentiated.

    Raises:
        ValueError: for a cell that haiku does not have (a `GRU` is one, and an `Elman` of tanh), and for params that do
            not fit it.

    >>> core, params = to_haiku(LSTM(4), LSTM(4).init(jax.random.key(0), in_dim=3))
    >>> network = hk.transform(lambda xs: hk.dynamic_unroll(core(), xs, core().initial_state(2)))
    >>> ys, state = network.apply(params, None, jnp.ones((7, 2, 3)))
    >>> ys.shape, state.cell.shape
    ((7, 2, 4), (2, 4))
    """
    pairs = checked_leaves(cell, params, _KINDS, "haiku")
    for leaf, _ in pairs:
        if isinstance(leaf, Elman):
            activation_name(leaf, {"relu": RELU}, "haiku")
    core = functools.partial(_core, cell)
    cores = _cores(_instantiate(core))
    if len(cores) != len(pairs):
        raise ValueError(f"haiku's DeepRNN holds no Bidirectional and no Dropout; got {cell}")
    tree: dict[str, dict[str, jax.Array]] = {}
    for one, (leaf, part) in zip(cores, pairs, strict=True):
        tree |= _named_weights(leaf, part, prefix + one.module_name)
    return core, tree


def _core(cell: Cell | Composite) -> hk.RNNCore:
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


def _cores(module: hk.Module) -> list[hk.Module]:
    """Return the cores of a module, the lowest first."""
    return [core for layer in module.layers for core in _cores(layer)] if isinstance(module, hk.DeepRNN) else [module]


def _named_weights(cell: Leaf, params: GatedParams, name: str) -> dict[str, dict[str, jax.Array]]:
    """Return the weights of one cell by their names in haiku."""
    if isinstance(cell, LSTM):
        params = params._replace(b=jnp.asarray(params.b).at[_FORGET].add(-1))
    w_x, w_h, b = map(_PACKINGS[type(cell)].pack, params[:3])
    match cell:
        case Elman():
            return {f"{name}/linear": {"w": w_x, "b": b}, f"{name}/linear_1": {"w": w_h, "b": jnp.zeros_like(b)}}
        case LSTM():
            return {f"{name}/linear": {"w": jnp.concatenate([w_x, w_h]), "b": b}}
    return {name: {"w_i": w_x, "w_h": w_h, "b": b}}


def state_from_haiku(cell: Cell | Composite, state: HaikuState) -> State:
    """Convert the state of a core into the state of a converted cell.

    Args:
        cell: as `from_haiku` returns it.
        state: h (*batch, H), for an LSTM `hk.LSTMState(hidden, cell)`, each (*batch, H); for a `Stack` a tuple of them.

    Returns:
        The state as `unroll` takes it, each leaf (*batch, H).

    Raises:
        ValueError: if an LSTM's state is no `hk.LSTMState`, since a plain tuple does not show its order; if a `Stack`
            has another number of layers; and for float64 in JAX's 32-bit mode.

    >>> state_from_haiku(LSTM(4), hk.LSTMState(hidden=jnp.zeros((2, 4)), cell=jnp.ones((2, 4)))).c.shape
    (2, 4)
    """
    if isinstance(cell, Stack):
        if not isinstance(state, tuple) or len(state) != len(cell.layers):
            raise ValueError(_state_message(cell, state))
        return tuple(map(state_from_haiku, cell.layers, state))
    if isinstance(cell, LSTM):
        if not isinstance(state, hk.LSTMState):
            raise ValueError(_state_message(cell, state))
        return LSTMState(to_jax_array(state.hidden), to_jax_array(state.cell))
    if isinstance(state, tuple):
        raise ValueError(_state_message(cell, state))
    return to_jax_array(state)


def _state_message(cell: Cell | Composite, state: HaikuState) -> str:
    return (
        f"the state of {cell} is an hk.LSTMState for an LSTM, an array for another core, and a tuple of these for "
        f"a Stack; got {state!r:.200}"
    )


def state_to_haiku(cell: Cell | Composite, state: State) -> HaikuState:
    """Convert a state into that of a core: the inverse of `state_from_haiku`.

    Args:
        cell: one of the table above.
        state: its state, each leaf (*batch, H).

    Returns:
        h (*batch, H), for an LSTM an `hk.LSTMState`, for a `Stack` a tuple of them.

    >>> state_to_haiku(LSTM(4), LSTMState(h=jnp.zeros((2, 4)), c=jnp.ones((2, 4)))).cell.shape
    (2, 4)
    """
    if isinstance(cell, Stack):
        return tuple(map(state_to_haiku, cell.layers, state))
    return hk.LSTMState(hidden=state.h, cell=state.c) if isinstance(state, LSTMState) else state
