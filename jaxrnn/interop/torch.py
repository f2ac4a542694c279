"""Conversion from and to the recurrent modules of torch.nn: weights and states.

| torch | jaxrnn |
|---|---|
| `nn.RNN(nonlinearity="tanh" or "relu")`, `nn.RNNCell` | `Elman(H, activation=jnp.tanh or jax.nn.relu)` |
| `nn.GRU`, `nn.GRUCell` | `GRU(H)` |
| `nn.LSTM`, `nn.LSTMCell` | `LSTM(H)` |
| `nn.LSTM(proj_size=P)` | `ProjectedLSTM(H, projection=P)` |
| `bidirectional=True` | `Bidirectional(cell)` |
| `num_layers=2, dropout=p` | `Stack((cell, Dropout(p), cell))`, no `Dropout` for p = 0 |

The order of the gates is the same. torch has two biases that are added to each other; jaxrnn has their sum, and the
GRU's b_hn as `params.local`. `bias=False` is a bias of zero. `batch_first` has no counterpart: `unroll` is time-major,
(T, B, D). torch applies dropout in training mode, `unroll` where it gets a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._cells import GRU, LSTM, Elman, LSTMState, ProjectedLSTM
from .._core.activation import RELU, TANH
from .._core.cell import Cell
from .._core.composite import Composite
from .._core.extras import extra
from .._core.types import Params, State
from .._layers.bidirectional import Bidirectional
from .._layers.dropout import Dropout
from .._layers.stack import Stack
from ._arrays import to_jax_array
from ._contract import Kinds, Leaf, activation_name, check_equation, checked_leaves, dtype_of
from ._leaves import join_tree, split_tree
from ._torch_weights import TorchModule, read, to_numpy, to_tensor, write

with extra("torch"):
    import torch
    from torch import nn


_ACTIVATIONS = {"tanh": TANH, "relu": RELU}
_KINDS: Kinds = {Elman: ("activation",), GRU: (), LSTM: (), ProjectedLSTM: ()}


def from_torch(module: TorchModule) -> tuple[Cell | Composite, Params]:
    """Convert a recurrent module of torch into a cell or a composite, and its params.

    Args:
        module: one of the table above, exactly: a subclass may compute something else. On any device.

    Returns:
        The cell or composite, and a copy of the weights in their own dtype, for each layer and direction w_x (D, G, H),
        w_h (H, G, H), or (P, G, H) with a projection, and b (G, H).

    Raises:
        ValueError: for any other module; for weights that are parametrized or on the device "meta"; and for float64
            weights in JAX's 32-bit mode.

    >>> from jaxrnn import unroll
    >>> cell, params = from_torch(torch.nn.LSTM(3, 4))
    >>> cell == LSTM(4), params.w_x.shape
    (True, (3, 4, 4))
    >>> state, ys = unroll(cell, params, jnp.ones((7, 2, 3)))
    >>> ys.shape
    (7, 2, 4)
    """
    leaf = _leaf(module)
    cell: Cell | Composite = leaf
    if isinstance(module, nn.RNNBase):
        cell = _composite(leaf, module.num_layers, module.bidirectional, module.dropout)
    return cell, join_tree(cell, iter([read(leaf, module, suffix) for suffix in _suffixes(module)]))


def to_torch(cell: Cell | Composite, params: Params) -> nn.RNNBase:
    """Convert a cell or a composite, and its params, into a module of torch.

    b becomes `bias_ih`; `bias_hh` is zero except for the GRU's b_hn.

    Args:
        cell: one of the table above, with a `Dense` recurrence.
        params: its params, all of one dtype, in the shapes that `cell.init` returns.

    Returns:
        `nn.RNN`, `nn.GRU` or `nn.LSTM` on the CPU, in the dtype of the params, in training mode.

    Raises:
        ValueError: for a cell that torch does not have, and for params that do not fit it.

    >>> params = GatedParams(w_x=jnp.ones((3, 4, 2)), w_h=jnp.ones((2, 4, 2)), b=jnp.ones((4, 2)))
    >>> to_torch(LSTM(2), params)
    LSTM(3, 2)
    """
    leaf, layers, bidirectional, dropout = _torch_options(cell)
    pairs = checked_leaves(cell, params, _KINDS, "torch")
    dtype = getattr(torch, dtype_of(params).name)
    options = {"num_layers": layers, "bidirectional": bidirectional, "dropout": dropout, "dtype": dtype}
    module = _module(leaf, pairs[0][1].w_x.shape[0], device="meta", **options).to_empty(device="cpu")
    tensors: dict[str, torch.Tensor] = {}
    for suffix, (_, part) in zip(_suffixes(module), pairs, strict=True):
        tensors |= {name + suffix: tensor for name, tensor in write(leaf, part).items()}
    module.load_state_dict(tensors)
    return module


def state_from_torch(cell: Cell | Composite, state: torch.Tensor | Sequence[torch.Tensor]) -> State:
    """Convert a state of torch into the state of a converted cell.

    Args:
        cell: as `from_torch` returns it.
        state: h (layers * directions, *batch, H), or (h, c) for LSTMs, as nn.RNN, nn.GRU and nn.LSTM take and return
            it.

    Returns:
        The state as `unroll` takes it, each leaf (*batch, H), in the dtype of the tensors.

    Raises:
        ValueError: for a cell that torch does not have; if the state has another number of layers and directions, or
            no c where one is needed; and for float64 in JAX's 32-bit mode.

    >>> state = state_from_torch(LSTM(4), (torch.zeros(1, 2, 4), torch.ones(1, 2, 4)))
    >>> state.c.shape
    (2, 4)
    """
    leaf, layers, bidirectional, _ = _torch_options(cell)
    has_c = isinstance(leaf, LSTM | ProjectedLSTM)
    tensors = [state] if isinstance(state, torch.Tensor) else list(state)
    count = layers * (2 if bidirectional else 1)
    if len(tensors) != (2 if has_c else 1) or any(len(a) != count for a in tensors):
        raise ValueError(
            f"the state of {cell} in torch is {'(h, c), each' if has_c else 'h'} ({count}, *batch, features), layers "
            f"* directions first; got {len(tensors)} of the shapes {[tuple(a.shape) for a in tensors]}"
        )
    states = zip(*([to_jax_array(to_numpy(row)) for row in a] for a in tensors), strict=True)
    return join_tree(cell, (LSTMState(*arrays) if has_c else arrays[0] for arrays in states))


def state_to_torch(cell: Cell | Composite, state: State) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Convert a state into that of torch: the inverse of `state_from_torch`.

    Args:
        cell: one of the table above.
        state: its state, each leaf (*batch, H).

    Returns:
        h (layers * directions, *batch, H), or (h, c) for LSTMs.

    Raises:
        ValueError: for a cell that torch does not have, and for a state with another number of layers.

    >>> state_to_torch(LSTM(4), LSTMState(h=jnp.ones((2, 4)), c=jnp.ones((2, 4))))[1].shape
    torch.Size([1, 2, 4])
    """
    _torch_options(cell)
    states = split_tree(cell, state)
    if isinstance(states[0], LSTMState):
        return tuple(torch.stack([to_tensor(a) for a in arrays]) for arrays in zip(*states, strict=True))
    return torch.stack([to_tensor(h) for h in states])


def _leaf(module: TorchModule) -> Leaf:
    """Return the cell of one layer in one direction."""
    match module:
        case nn.RNN() | nn.RNNCell() if type(module) in (nn.RNN, nn.RNNCell):
            return Elman(module.hidden_size, activation=_ACTIVATIONS[module.nonlinearity])
        case nn.GRU() | nn.GRUCell() if type(module) in (nn.GRU, nn.GRUCell):
            return GRU(module.hidden_size)
        case nn.LSTM(proj_size=size) if type(module) is nn.LSTM and size:
            return ProjectedLSTM(module.hidden_size, projection=size)
        case nn.LSTM() | nn.LSTMCell() if type(module) in (nn.LSTM, nn.LSTMCell):
            return LSTM(module.hidden_size)
    raise ValueError(
        f"from_torch takes nn.RNN, nn.GRU, nn.LSTM, nn.RNNCell, nn.GRUCell and nn.LSTMCell themselves; got "
        f"{type(module).__qualname__}. Pass the recurrent submodule of a model; for a parametrized one, call "
        "torch.nn.utils.parametrize.remove_parametrizations first."
    )


def _composite(leaf: Leaf, layers: int, bidirectional: bool, dropout: float) -> Cell | Composite:
    """Return the leaf in all layers and directions that torch's options ask for."""
    layer = Bidirectional(leaf) if bidirectional else leaf
    above = (Dropout(dropout), layer) if dropout else (layer,)
    return layer if layers == 1 else Stack((layer, *above * (layers - 1)))


def _torch_options(cell: Cell | Composite) -> tuple[Leaf, int, bool, float]:
    """Return a cell in the terms of torch: the leaf, the number of layers, whether bidirectional, and the dropout."""
    plain = _plain(cell)
    layers = plain.layers if isinstance(plain, Stack) else (plain,)
    recurrent = [layer for layer in layers if not isinstance(layer, Dropout)]
    dropout = next((layer.rate for layer in layers if isinstance(layer, Dropout)), 0.0)
    if recurrent:
        first, bidirectional = recurrent[0], isinstance(recurrent[0], Bidirectional)
        leaf = first.forward if isinstance(first, Bidirectional) else first
        if isinstance(leaf, Leaf) and plain == _composite(leaf, len(recurrent), bidirectional, dropout):
            return leaf, len(recurrent), bidirectional, dropout
    raise ValueError(
        f"torch's layers are all equal, with equal dropout between each two and nowhere else; got {cell}. Convert "
        "layer by layer: to_torch(cell.layers[k], params[k])."
    )


def _plain(cell: Cell | Composite) -> Cell | Composite:
    """Return a cell without what torch does not represent: initializers, and a stack of one."""
    kind = type(cell)
    if isinstance(cell, Stack) and kind is Stack:
        layers = tuple(_plain(layer) for layer in cell.layers)
        return Stack(layers) if len(layers) > 1 else layers[0]
    if isinstance(cell, Bidirectional) and kind is Bidirectional:
        forward, backward = map(_plain, cell.cells)
        if forward == backward:
            return Bidirectional(forward)
    if kind is Dropout:
        return cell
    leaf = check_equation(cell, _KINDS, "torch")
    match leaf:
        case ProjectedLSTM():
            return ProjectedLSTM(leaf.hidden, projection=leaf.projection)
        case Elman():
            return Elman(leaf.hidden, activation=_ACTIVATIONS[activation_name(leaf, _ACTIVATIONS, "torch")])
        case GRU():
            return GRU(leaf.hidden)
    return LSTM(leaf.hidden)


def _module(leaf: Leaf, in_dim: int, **options: Any) -> nn.RNNBase:
    """Return the module of torch, its weights not set."""
    match leaf:
        case Elman():
            return nn.RNN(in_dim, leaf.hidden, nonlinearity=activation_name(leaf, _ACTIVATIONS, "torch"), **options)
        case GRU():
            return nn.GRU(in_dim, leaf.hidden, **options)
        case ProjectedLSTM():
            return nn.LSTM(in_dim, leaf.hidden, proj_size=leaf.projection, **options)
    return nn.LSTM(in_dim, leaf.hidden, **options)


def _suffixes(module: TorchModule) -> list[str]:
    """Return what torch appends to the names of each leaf's weights, in torch's order."""
    if not isinstance(module, nn.RNNBase):
        return [""]
    ends = ("", "_reverse") if module.bidirectional else ("",)
    return [f"_l{layer}{end}" for layer in range(module.num_layers) for end in ends]
