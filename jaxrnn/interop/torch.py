"""torch.nn's recurrent modules: their weights and states, in both directions.

| torch | jaxrnn |
|---|---|
| `nn.RNN(nonlinearity="tanh" or "relu")`, `nn.RNNCell` | `Elman(H, activation=jnp.tanh or jax.nn.relu)` |
| `nn.GRU`, `nn.GRUCell` | `GRU(H)` |
| `nn.LSTM`, `nn.LSTMCell` | `LSTM(H)` |
| `nn.LSTM(proj_size=P)` | `ProjectedLSTM(H, projection=P)` |
| `bidirectional=True` | `Bidirectional(cell)` |
| `num_layers=2, dropout=p` | `Stack((cell, Dropout(p), cell))`, no `Dropout` for p = 0 |

The order of the gates is the same. torch has two biases that are added to each other, here they are one (but for the
GRU's b_hn, our `params.local`); `bias=False` is a bias of zero. `batch_first` is torch's own matter: `unroll` is
time-major, (T, B, D). torch drops out in training mode, `unroll` where it is given a key.
"""

from __future__ import annotations

from typing import Any

from .._cells import GRU, LSTM, Elman, LSTMState, ProjectedLSTM
from .._core.activation import RELU, TANH
from .._core.extras import extra
from .._core.types import Params, State
from .._layers.bidirectional import Bidirectional
from .._layers.dropout import Dropout
from .._layers.stack import Stack
from ._arrays import exact
from ._contract import Kinds, activation_of, check_equation, checked_leaves, dtype_of
from ._leaves import arrange, parts
from ._torch_weights import read, to_numpy, to_tensor, write

with extra("torch"):
    import torch
    from torch import nn


_ACTIVATIONS = {"tanh": TANH, "relu": RELU}
_KINDS: Kinds = {Elman: ("activation",), GRU: (), LSTM: (), ProjectedLSTM: ()}


def from_torch(module: nn.Module) -> tuple[Any, Params]:
    """Turn a recurrent module of torch into a cell, or a composite, and its params.

    Args:
        module: one of the table above, exactly: a subclass may compute something else. On any device.

    Returns:
        The cell, equal to one made by hand, and a copy of the weights in their own dtype.

    Raises:
        ValueError: for any other module, and for float64 weights while JAX is in its 32 bit mode.

    >>> from jaxrnn import unroll
    >>> cell, params = from_torch(torch.nn.LSTM(3, 4))
    >>> cell == LSTM(4), params.w_x.shape
    (True, (3, 4, 4))
    >>> state, ys = unroll(cell, params, jnp.ones((7, 2, 3)))
    >>> ys.shape
    (7, 2, 4)
    """
    leaf = _leaf(module)
    cell = leaf
    if isinstance(module, nn.RNNBase):
        cell = _whole(leaf, module.num_layers, module.bidirectional, module.dropout)
    return cell, arrange(cell, iter([read(leaf, module, suffix) for suffix in _suffixes(module)]))


def to_torch(cell: Any, params: Params) -> nn.RNNBase:
    """Turn a cell, or a composite, and its params into a module of torch.

    Our b becomes `bias_ih`; `bias_hh` is zero but for the GRU's b_hn.

    Args:
        cell: one of the table above, with a `Dense` recurrence.
        params: its params, all of one dtype.

    Returns:
        `nn.RNN`, `nn.GRU` or `nn.LSTM` on the CPU, in the dtype of the params, in training mode.

    Raises:
        ValueError: for a cell that torch does not have, or params that do not belong to it.

    >>> params = GatedParams(w_x=jnp.ones((3, 4, 2)), w_h=jnp.ones((2, 4, 2)), b=jnp.ones((4, 2)))
    >>> to_torch(LSTM(2), params)
    LSTM(3, 2)
    """
    leaf, layers, bidirectional, dropout = _like_torch(cell)
    pairs = checked_leaves(cell, params, _KINDS, "torch")
    dtype = getattr(torch, dtype_of(params).name)
    options = {"num_layers": layers, "bidirectional": bidirectional, "dropout": dropout, "dtype": dtype}
    module = _module(leaf, pairs[0][1].w_x.shape[0], device="meta", **options).to_empty(device="cpu")
    tensors: dict[str, torch.Tensor] = {}
    for suffix, (_, part) in zip(_suffixes(module), pairs, strict=True):
        tensors |= {name + suffix: tensor for name, tensor in write(leaf, part).items()}
    module.load_state_dict(tensors)
    return module


def state_from_torch(cell: Any, state: Any) -> State:
    """Turn a state of torch into the state of a converted cell.

    Args:
        cell: as `from_torch` gives it.
        state: h (layers * directions, *batch, H), or (h, c) for LSTMs, as nn.RNN, nn.GRU and nn.LSTM take and give it.

    Raises:
        ValueError: if the state has another number of layers and directions, or no c where one is needed.

    >>> state = state_from_torch(LSTM(4), (torch.zeros(1, 2, 4), torch.ones(1, 2, 4)))
    >>> state.c.shape
    (2, 4)
    """
    leaf, layers, bidirectional, _ = _like_torch(cell)
    memory = isinstance(leaf, LSTM | ProjectedLSTM)
    arrays = [state] if isinstance(state, torch.Tensor) else list(state)
    count = layers * (2 if bidirectional else 1)
    if len(arrays) != (2 if memory else 1) or any(len(a) != count for a in arrays):
        raise ValueError(
            f"the state of {cell} in torch is {'(h, c), each' if memory else 'h'} ({count}, *batch, features), layers "
            f"* directions first; got {len(arrays)} of the shapes {[tuple(a.shape) for a in arrays]}"
        )
    rows = zip(*([exact(to_numpy(row)) for row in a] for a in arrays), strict=True)
    return arrange(cell, (LSTMState(*row) if memory else row[0] for row in rows))


def state_to_torch(cell: Any, state: State) -> Any:
    """Turn a state into torch's: h (layers * directions, *batch, H), or (h, c) for LSTMs.

    Raises:
        ValueError: for a cell that torch does not have.

    >>> state_to_torch(LSTM(4), LSTMState(h=jnp.ones((2, 4)), c=jnp.ones((2, 4))))[1].shape
    torch.Size([1, 2, 4])
    """
    _like_torch(cell)
    rows = parts(cell, state)
    if isinstance(rows[0], LSTMState):
        return tuple(torch.stack([to_tensor(a) for a in arrays]) for arrays in zip(*rows, strict=True))
    return torch.stack([to_tensor(h) for h in rows])


def _leaf(module: nn.Module) -> Any:
    """The cell of one layer in one direction."""
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
        f"{type(module).__qualname__}. Hand over the recurrent submodule of a model; for a parametrized one, call "
        "torch.nn.utils.parametrize.remove_parametrizations first."
    )


def _whole(leaf: Any, layers: int, bidirectional: bool, dropout: float) -> Any:
    """The cell that torch's options make of a leaf."""
    layer = Bidirectional(leaf) if bidirectional else leaf
    above = (Dropout(dropout), layer) if dropout else (layer,)
    return layer if layers == 1 else Stack((layer, *above * (layers - 1)))


def _like_torch(cell: Any) -> tuple[Any, int, bool, float]:
    """Give a cell as torch knows it: the leaf, the number of layers, both directions, the dropout."""
    plain = _plain(cell)
    layers = plain.layers if isinstance(plain, Stack) else (plain,)
    recurrent = [layer for layer in layers if not isinstance(layer, Dropout)]
    dropout = next((layer.rate for layer in layers if isinstance(layer, Dropout)), 0.0)
    both = bool(recurrent) and isinstance(recurrent[0], Bidirectional)
    leaf = (recurrent[0].forward if both else recurrent[0]) if recurrent else None
    if not recurrent or plain != _whole(leaf, len(recurrent), both, dropout):
        raise ValueError(
            f"torch's layers are all equal, with equal dropout between each two and nowhere else; got {cell}. Convert "
            "layer by layer: to_torch(cell.layers[k], params[k])."
        )
    return leaf, len(recurrent), both, dropout


def _plain(cell: Any) -> Any:
    """Give the cell without what torch does not see: initialisers, a stack of one."""
    kind = type(cell)
    if kind is Stack:
        layers = tuple(_plain(layer) for layer in cell.layers)
        return Stack(layers) if len(layers) > 1 else layers[0]
    if kind is Bidirectional and (cell.backward is None or _plain(cell.forward) == _plain(cell.backward)):
        return Bidirectional(_plain(cell.forward))
    if kind is Dropout:
        return cell
    check_equation(cell, _KINDS, "torch")
    if kind is ProjectedLSTM:
        return ProjectedLSTM(cell.hidden, projection=cell.projection)
    if kind is not Elman:
        return kind(cell.hidden)
    return Elman(cell.hidden, activation=_ACTIVATIONS[activation_of(cell, _ACTIVATIONS, "torch")])


def _module(leaf: Any, in_dim: int, **options: Any) -> nn.RNNBase:
    """The module of torch, its weights not set."""
    match leaf:
        case Elman():
            return nn.RNN(in_dim, leaf.hidden, nonlinearity=activation_of(leaf, _ACTIVATIONS, "torch"), **options)
        case GRU():
            return nn.GRU(in_dim, leaf.hidden, **options)
        case ProjectedLSTM():
            return nn.LSTM(in_dim, leaf.hidden, proj_size=leaf.projection, **options)
    return nn.LSTM(in_dim, leaf.hidden, **options)


def _suffixes(module: nn.Module) -> list[str]:
    """What torch appends to the names of each leaf's weights, in torch's order."""
    if not isinstance(module, nn.RNNBase):
        return [""]
    ends = ("", "_reverse") if module.bidirectional else ("",)
    return [f"_l{layer}{end}" for layer in range(module.num_layers) for end in ends]
