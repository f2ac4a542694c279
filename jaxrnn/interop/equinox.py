"""Conversion from and to equinox's recurrent cells: weights and states; and `EquinoxRNN`, which holds any jaxrnn cell.

| equinox | jaxrnn | |
|---|---|---|
| `eqx.nn.LSTMCell` | `LSTM` | the gates in the same order, i, f, g, o; a state (h, c) |
| `eqx.nn.GRUCell` | `GRU` | the gates in the same order, r, z, n; `bias_n` is `params.local` |

Equinox stores its matrices transposed, (G * H, D); `use_bias=False` is a bias of zero. Its cells take one step of one
sequence; `unroll` takes any number of batch axes, including none.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from .._cells import GRU, LSTM, LSTMState
from .._core.cell import Cell, GatedParams
from .._core.composite import Composite
from .._core.extras import extra
from .._core.types import Inputs, Key, Output, Params, State
from .._drivers import Driver
from .._unroll import unroll
from ._arrays import join_gates, split_gates, to_jax_array
from ._contract import check_equation, check_params, dtype_of

with extra("equinox"):
    import equinox as eqx


EquinoxState: TypeAlias = jax.Array | tuple[jax.Array, jax.Array]
"""The state of a cell of equinox: h, or (h, c) for an LSTM, each (*batch, H)."""

_CELLS: dict[type, type[LSTM | GRU]] = {eqx.nn.LSTMCell: LSTM, eqx.nn.GRUCell: GRU}


def from_equinox(module: eqx.Module) -> tuple[Cell | Composite, Params]:
    """Convert a cell of equinox into a cell and its params.

    Args:
        module: an `eqx.nn.LSTMCell` or `GRUCell`, exactly (a subclass may compute something else), or an `EquinoxRNN`.

    Returns:
        The cell and its params, in their own dtype: w_x (D, G, H), w_h (H, G, H), b (G, H). The conversion can be
        traced and differentiated.

    Raises:
        ValueError: for another module, for weights whose shapes do not fit the sizes of the module, and for float64 in
            JAX's 32-bit mode.

    >>> cell, params = from_equinox(eqx.nn.GRUCell(3, 4, key=jax.random.key(0)))
    >>> cell == GRU(4), params.w_x.shape
    (True, (3, 3, 4))
    """
    if isinstance(module, EquinoxRNN) and type(module) is EquinoxRNN:
        return module.cell, module.params
    if not isinstance(module, eqx.nn.LSTMCell | eqx.nn.GRUCell) or type(module) not in _CELLS:
        raise ValueError(
            f"from_equinox takes {', '.join(k.__name__ for k in _CELLS)} themselves and EquinoxRNN; got "
            f"{type(module).__module__}.{type(module).__qualname__}. Write its gate as a GatedCell."
        )
    cell = _CELLS[type(module)](module.hidden_size)
    rows = cell.gates * cell.hidden
    weights = [to_jax_array(w) for w in (module.weight_ih, module.weight_hh, module.bias) if w is not None]
    if any(w.shape[0] != rows for w in weights):
        raise ValueError(f"{module} has {rows} rows in its weights; got {[w.shape for w in weights]}")
    w_x, w_h = (split_gates(w, cell.gates) for w in weights[:2])
    zeros = jnp.zeros((cell.gates, cell.hidden), w_x.dtype)
    b = zeros if module.bias is None else weights[2].reshape(zeros.shape)
    local: jax.Array | tuple[()] = ()
    if isinstance(module, eqx.nn.GRUCell):
        local = zeros[0] if module.bias_n is None else to_jax_array(module.bias_n)
    params = GatedParams(w_x, w_h, b, local)
    check_params(cell, params)
    return cell, params


def to_equinox(cell: Cell | Composite, params: Params) -> eqx.nn.LSTMCell | eqx.nn.GRUCell:
    """Convert a cell and its params into a cell of equinox.

    Args:
        cell: an `LSTM` or a `GRU` with a `Dense` recurrence. Convert a `Stack` layer by layer.
        params: its params, all of one dtype: w_x (D, G, H), w_h (H, G, H), b (G, H).

    Returns:
        The cell of equinox, whose weights are `weight_ih` (G * H, D), `weight_hh` (G * H, H) and `bias` (G * H,). The
        conversion can be traced and differentiated.

    Raises:
        ValueError: for a cell that equinox does not have, and for params that do not fit it.

    >>> to_equinox(LSTM(4), LSTM(4).init(jax.random.key(0), in_dim=3)).weight_ih.shape
    (16, 3)
    """
    leaf = check_equation(cell, dict.fromkeys(_CELLS.values(), ()), "equinox")
    check_params(leaf, params)
    kind = eqx.nn.GRUCell if isinstance(leaf, GRU) else eqx.nn.LSTMCell
    sizes = params.w_x.shape[0], leaf.hidden
    module = eqx.filter_eval_shape(kind, *sizes, dtype=dtype_of(params), key=jax.random.key(0))  # draws nothing
    weights = [join_gates(params.w_x), join_gates(params.w_h), params.b.reshape(-1)]
    if isinstance(leaf, GRU):
        weights.append(params.local)
    names = ("weight_ih", "weight_hh", "bias", "bias_n")[: len(weights)]
    converted: eqx.nn.LSTMCell | eqx.nn.GRUCell
    converted = eqx.tree_at(lambda m: [getattr(m, name) for name in names], module, weights)
    return converted


def state_from_equinox(cell: Cell | Composite, state: EquinoxState) -> State:
    """Convert a state of equinox into the state of a converted cell.

    Args:
        cell: as `from_equinox` returns it.
        state: h (*batch, H), for an LSTM (h, c), each (*batch, H).

    Returns:
        The state as `unroll` takes it: h, for an LSTM `LSTMState(h, c)`.

    Raises:
        ValueError: if the state of an LSTM is no pair, or that of another cell a tuple; and for float64 in JAX's 32-bit
            mode.

    >>> state_from_equinox(LSTM(4), (jnp.zeros(4), jnp.ones(4))).c.shape
    (4,)
    """
    if isinstance(cell, LSTM) and isinstance(state, tuple) and len(state) == 2:
        return LSTMState(*map(to_jax_array, state))
    if isinstance(cell, LSTM) or isinstance(state, tuple):
        raise ValueError(f"the state is (h, c) for an LSTMCell, and h for a GRUCell; got {state!r:.200}")
    return to_jax_array(state)


def state_to_equinox(cell: Cell | Composite, state: State) -> EquinoxState:
    """Convert a state into that of equinox: the inverse of `state_from_equinox`.

    Args:
        cell: an `LSTM` or a `GRU`.
        state: its state, each leaf (*batch, H).

    Returns:
        h (*batch, H), for an LSTM (h, c).

    >>> len(state_to_equinox(LSTM(4), LSTMState(h=jnp.zeros(4), c=jnp.ones(4))))
    2
    """
    return (state.h, state.c) if isinstance(cell, LSTM) else state


class EquinoxRNN(eqx.Module):
    """An `eqx.Module` that holds a jaxrnn cell or composite and its params, and unrolls it when called.

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

    params: Params
    cell: Cell | Composite = eqx.field(static=True)
    driver: Driver | None = eqx.field(static=True)

    def __init__(self, cell: Cell | Composite, in_dim: int, *, driver: Driver | None = None, key: Key) -> None:
        self.params = cell.init(key, in_dim)
        self.cell = cell
        self.driver = driver

    def __call__(self, xs: Inputs, state: State = None, **keywords: Any) -> tuple[State, Output]:
        """Run the cell over time, as `jaxrnn.unroll` does.

        Args:
            xs: (T, *batch, D), or a pytree of such arrays; without batch axes for one sequence, as in equinox.
            state: the state before the first step, each leaf (*batch, H); None takes the cell's own.
            keywords: those of `unroll`: lengths, mask, resets, reverse, context, key, state_dtype.

        Returns:
            The state after the last step, and the outputs (T, *batch, H).

        Raises:
            ValueError: as `unroll`.
        """
        return unroll(self.cell, self.params, xs, state, driver=self.driver, **keywords)
