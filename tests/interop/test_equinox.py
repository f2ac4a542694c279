"""Conversion of equinox's cells: values, gradients, round trips, states, the adapter, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import GRU, LSTM, Elman, Stack, unroll

from .parity import BATCH, HIDDEN, IN, LENGTHS, agree, close, equal, inputs, noise, params_of

pytest.importorskip("equinox", reason="equinox is an optional peer: pip install jaxrnn[peers]")

import equinox as eqx

from jaxrnn.interop.equinox import EquinoxRNN, from_equinox, state_from_equinox, state_to_equinox, to_equinox

CELLS = {"lstm": LSTM(HIDDEN), "gru": GRU(HIDDEN)}
cells = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


@cells
def test_values_and_gradients(cell):
    params = params_of(cell)
    state = noise(cell.initial_state(params, (BATCH,)), seed=2)

    def theirs(params, xs, state):
        module = jax.vmap(to_equinox(cell, params))

        def step(state, x):
            state = module(x, state)
            return state, state[0] if isinstance(state, tuple) else state

        state, ys = jax.lax.scan(step, state_to_equinox(cell, state), xs)
        return state_from_equinox(cell, state), ys

    agree(lambda *args: unroll(cell, *args), theirs, params, inputs(), state, tolerance=2e-6)


@cells
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_conversion_and_back_is_exact(cell, dtype):
    params = jax.tree.map(lambda a: a.astype(dtype), params_of(cell))
    assert equal(from_equinox(to_equinox(cell, params)), (cell, params))


@pytest.mark.parametrize(("kind", "use_bias"), [(eqx.nn.LSTMCell, True), (eqx.nn.GRUCell, False)])
def test_conversion_of_a_cell_of_equinox(kind, use_bias):
    module = kind(IN, HIDDEN, use_bias=use_bias, key=jax.random.key(0))
    cell, params = from_equinox(module)
    state = noise(cell.initial_state(params))
    new = module(inputs()[0, 0], state_to_equinox(cell, state))
    close(state_from_equinox(cell, new), cell.step(params, state, inputs()[0, 0])[0])


def test_the_module_equals_unroll():
    cell = Stack((GRU(3), LSTM(HIDDEN)))
    module = EquinoxRNN(cell, IN, key=jax.random.key(0))
    needed = unroll(*from_equinox(module), inputs(), lengths=LENGTHS)
    close(eqx.filter_jit(lambda module, xs: module(xs, lengths=LENGTHS))(module, inputs()), needed)
    grads = eqx.filter_grad(lambda module: module(inputs()[:, 0])[1].sum())(module)
    assert all(jnp.any(g != 0) for g in (grads.params[0].local, grads.params[1].w_x))


class OwnCell(eqx.nn.GRUCell):
    """A subclass may compute something else."""


def changed(**arrays):
    """Return a cell of equinox with other arrays."""
    module = to_equinox(LSTM(HIDDEN), params_of(LSTM(HIDDEN)))
    names = list(arrays)
    return eqx.tree_at(lambda m: [getattr(m, n) for n in names], module, list(arrays.values()))


REJECTED = {
    "subclass": (lambda: from_equinox(eqx.filter_eval_shape(OwnCell, 2, 2, key=jax.random.key(0))), "OwnCell"),
    "float64": (lambda: from_equinox(changed(bias=np.ones(4 * HIDDEN))), "enable_x64"),
    "rows": (lambda: from_equinox(changed(bias=jnp.ones(3))), "16 rows"),
    "shapes": (lambda: from_equinox(changed(weight_hh=jnp.ones((4 * HIDDEN, 3)))), "the shapes"),
    "dtypes": (lambda: from_equinox(changed(bias=jnp.ones(4 * HIDDEN, jnp.bfloat16))), "one dtype"),
    "relu": (lambda: to_equinox(GRU(2, activation="relu"), None), "equinox has no GRU with activation='relu'"),
    "elman": (lambda: to_equinox(Elman(2), params_of(Elman(2))), "Elman"),
    "recurrence": (lambda: to_equinox(GRU(2, recurrence=jaxrnn.Diagonal()), None), "Diagonal"),
    "params": (lambda: to_equinox(GRU(HIDDEN), params_of(GRU(HIDDEN))._replace(local=jnp.zeros(()))), "the shapes"),
    "state": (lambda: state_from_equinox(LSTM(2), jnp.zeros(2)), r"\(h, c\)"),
}


@pytest.mark.parametrize(("convert", "message"), REJECTED.values(), ids=REJECTED)
def test_what_has_no_counterpart_raises(convert, message):
    with pytest.raises(ValueError, match=message):
        convert()
