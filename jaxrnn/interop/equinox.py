"""Equinox' recurrent cells: their weights and states, in both directions, and a module around any jaxrnn cell.

| equinox | jaxrnn | |
|---|---|---|
| `eqx.nn.LSTMCell` | `LSTM` | the gates in the same order, i, f, g, o; a state (h, c) |
| `eqx.nn.GRUCell` | `GRU` | the gates in the same order, r, z, n; `bias_n` is our `params.local` |

Equinox keeps its matrices transposed, (G * H, D); `use_bias=False` is a bias of zero. Its cells take one step of one
sequence, `unroll` any number of batch axes, none included.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .._cells import GRU, LSTM, LSTMState
from .._core.cell import GatedParams
from .._core.extras import extra
from .._core.types import Output, Params, State
from .._drivers import Driver
from .._unroll import unroll
from ._arrays import exact, join_gates, split_gates
from ._contract import check_equation, check_params, dtype_of

with extra("equinox"):
    import equinox as eqx


_CELLS = {eqx.nn.LSTMCell: LSTM, eqx.nn.GRUCell: GRU}


def from_equinox(module: Any) -> tuple[Any, Params]:
    """Convert a cell of equinox with its weights.

    Args:
        module: an `eqx.nn.LSTMCell` or `GRUCell`, exactly (a subclass may compute something else), or an `EquinoxRNN`.

    Returns:
        The cell and its params, in their own dtype. Traceable: gradients pass through.

    Raises:
        ValueError: for another module, and for weights that are not those of its sizes.

    >>> cell, params = from_equinox(eqx.nn.GRUCell(3, 4, key=jax.random.key(0)))
    >>> cell == GRU(4), params.w_x.shape
    (True, (3, 3, 4))
    """
    if type(module) is EquinoxRNN:
        return module.cell, module.params
    if type(module) not in _CELLS:
        raise ValueError(
            f"from_equinox takes {', '.join(k.__name__ for k in _CELLS)} themselves and EquinoxRNN; got "
            f"{type(module).__module__}.{type(module).__qualname__}. Write its gate as a GatedCell."
        )
    cell: LSTM | GRU = _CELLS[type(module)](module.hidden_size)
    rows = cell.gates * cell.hidden
    weights = [exact(w) for w in (module.weight_ih, module.weight_hh, module.bias) if w is not None]
    if any(w.shape[0] != rows for w in weights):
        raise ValueError(f"{module} has {rows} rows in its weights; got {[w.shape for w in weights]}")
    w_x, w_h = (split_gates(w, cell.gates) for w in weights[:2])
    zeros = jnp.zeros((cell.gates, cell.hidden), w_x.dtype)
    b = zeros if module.bias is None else weights[2].reshape(zeros.shape)
    local: Any = ()
    if isinstance(cell, GRU):
        local = zeros[0] if module.bias_n is None else exact(module.bias_n)
    params = GatedParams(w_x, w_h, b, local)
    check_params(cell, params)
    return cell, params


def to_equinox(cell: Any, params: Params) -> Any:
    """Convert a cell and its params into a cell of equinox.

    Args:
        cell: an `LSTM` or a `GRU` with a `Dense` recurrence. A `Stack` is converted layer by layer.
        params: its params, all of one dtype.

    Raises:
        ValueError: for a cell that equinox does not have, or params that do not belong to it.

    >>> to_equinox(LSTM(4), LSTM(4).init(jax.random.key(0), in_dim=3)).weight_ih.shape
    (16, 3)
    """
    check_equation(cell, dict.fromkeys(_CELLS.values(), ()), "equinox")
    check_params(cell, params)
    kind = next(kind for kind, ours in _CELLS.items() if ours is type(cell))
    sizes = params.w_x.shape[0], cell.hidden
    module = eqx.filter_eval_shape(kind, *sizes, dtype=dtype_of(params), key=jax.random.key(0))  # nothing is drawn
    weights = [join_gates(params.w_x), join_gates(params.w_h), params.b.reshape(-1)]
    if isinstance(cell, GRU):
        return eqx.tree_at(lambda m: (m.weight_ih, m.weight_hh, m.bias, m.bias_n), module, [*weights, params.local])
    return eqx.tree_at(lambda m: (m.weight_ih, m.weight_hh, m.bias), module, weights)


def state_from_equinox(cell: Any, state: Any) -> State:
    """Convert a state, h or (h, c), into that of a converted cell.

    >>> state_from_equinox(LSTM(4), (jnp.zeros(4), jnp.ones(4))).c.shape
    (4,)
    """
    if isinstance(cell, LSTM) and not (isinstance(state, tuple) and len(state) == 2):
        raise ValueError(f"the state of an LSTMCell is (h, c); got {state!r:.200}")
    return LSTMState(*map(exact, state)) if isinstance(cell, LSTM) else exact(state)


def state_to_equinox(cell: Any, state: State) -> Any:
    """Convert a state into that of equinox: h, or (h, c) for an LSTM.

    >>> len(state_to_equinox(LSTM(4), LSTMState(h=jnp.zeros(4), c=jnp.ones(4))))
    2
    """
    return (state.h, state.c) if isinstance(cell, LSTM) else state


class EquinoxRNN(eqx.Module):
    """An `eqx.Module` that holds the params of a jaxrnn cell or composite, and unrolls it when called.

    Args:
        cell: any cell or composite; a static field.
        in_dim: D, the number of input features.
        driver: how to run over time; None asks `jaxrnn.select`.
        key: draws the params.

    >>> module = EquinoxRNN(LSTM(8), 3, key=jax.random.key(0))
    >>> state, ys = eqx.filter_jit(module)(jnp.ones((10, 3)))
    >>> state.c.shape, ys.shape
    ((8,), (10, 8))
    """

    params: Any
    cell: Any = eqx.field(static=True)
    driver: Driver | None = eqx.field(static=True)

    def __init__(self, cell: Any, in_dim: int, *, driver: Driver | None = None, key: jax.Array) -> None:
        self.params = cell.init(key, in_dim)
        self.cell = cell
        self.driver = driver

    def __call__(self, xs: Any, state: State = None, **keywords: Any) -> tuple[State, Output]:
        """Return the state after the last step, and the outputs: `jaxrnn.unroll`, whose keywords these are.

        Args:
            xs: (T, *batch, D); without batch axes for one sequence, as equinox has it.
            state: the state before the first step; None takes the cell's own.
            keywords: lengths, resets, reverse, key, state_dtype.
        """
        return unroll(self.cell, self.params, xs, state, driver=self.driver, **keywords)
