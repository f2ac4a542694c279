"""Dropout of the recurrent path: against NumPy, under every driver."""

import jax
import numpy as np
import pytest

import jaxrnn
from jaxrnn import (
    BPTT,
    GRU,
    LSTM,
    Diagonal,
    DiagonalJacobian,
    Heads,
    Loop,
    Newton,
    RecurrentDropout,
    Remat,
    Scan,
    WeightDrop,
)
from jaxrnn._core.randomness import sequence_and_step_keys

from .table import B, H, draw, far, masks, run, unroll

KEY, RATE = jax.random.key(7), 0.4
sigmoid = lambda z: 1 / (1 + np.exp(-z))


def lstm(params, xs, state, mask):
    """The LSTM in NumPy float64, its recurrent weights seeing h times a mask."""
    w_x, w_h, b, h, c, xs = (np.asarray(a, np.float64) for a in (*params[:3], *state, xs))
    ys = []
    for x in xs:
        z = np.einsum("bd,dgh->gbh", x, w_x) + np.einsum("bd,dgh->gbh", mask * h, w_h) + b[:, None]
        c = sigmoid(z[1]) * c + sigmoid(z[0]) * np.tanh(z[2])
        h = sigmoid(z[3]) * np.tanh(c)
        ys.append(h)
    return np.array(ys)


def mask(shape):
    return np.asarray(jax.random.bernoulli(sequence_and_step_keys(KEY)[0], 1 - RATE, shape)) / (1 - RATE)


def test_recurrent_dropout_masks_what_the_recurrent_weights_see():
    cell = RecurrentDropout(LSTM(H), RATE)
    params, state, xs = draw(cell)
    final, ys = unroll(cell, params, xs, state, key=KEY)
    assert np.abs(ys - lstm(params, xs, state, mask((B, H)))).max() < 1e-6
    assert far(final.h, ys[-1]) < 1e-6
    assert far(unroll(cell, params, xs, state), unroll(cell.cell, params, xs, state)) == 0
    assert far(unroll(cell, params, xs, state, key=jax.random.key(8))[1], ys) > 0.01


def test_weight_drop_drops_recurrent_weights():
    cell = WeightDrop(LSTM(H), RATE)
    params, state, xs = draw(cell)
    dropped = params._replace(w_h=params.w_h * mask(params.w_h.shape).astype(np.float32))
    for driver in (None, Scan()):  # on a CPU None is the kernel where there is one
        ys = unroll(cell, params, xs, state, key=KEY, driver=driver)[1]
        assert np.abs(ys - lstm(dropped, xs, state, 1)).max() < 1e-6
    assert far(unroll(cell, params, xs, state), unroll(cell.cell, params, xs, state)) == 0


CASES = [
    (RecurrentDropout(GRU(H, recurrence=Heads(2)), RATE), [BPTT(2), Scan(hoist=2), Newton()]),
    (
        RecurrentDropout(LSTM(H, recurrence=Diagonal()), RATE),
        [BPTT(2, keep_gates=True), Loop(), Newton(DiagonalJacobian())],
    ),
    (WeightDrop(GRU(H), RATE), [BPTT(2), Scan(remat=Remat())]),
]


@pytest.mark.parametrize(("cell", "drivers"), CASES, ids=str)
def test_every_driver_gives_the_same(cell, drivers):
    params, state, xs = draw(cell)
    kw = masks() | {"key": KEY}
    want = run(cell, params, state, xs, kw, Scan())
    for driver in drivers:
        assert far(run(cell, params, state, xs, kw, driver), want) < 5e-5


def test_what_it_cannot_mask_is_refused():
    class Own(LSTM):
        def recur(self, params, s):
            return super().recur(params, s)

    with pytest.raises(ValueError, match="own `recur`"):
        RecurrentDropout(Own(H), RATE)
    for wrapper in (RecurrentDropout, WeightDrop):
        with pytest.raises(ValueError, match="needs a GatedCell"):
            wrapper(jaxrnn.MinGRU(H), RATE)
        with pytest.raises(ValueError, match="0 <= rate < 1"):
            wrapper(LSTM(H), 1.0)
