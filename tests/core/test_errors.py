"""Bad input gets an error that says what was given, what was needed and how to mend it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import BPTT, LSTM, LSTMState, Remat

from .table import B, D, H, T

cell = LSTM(H)
params = cell.init(jax.random.key(0), D)
xs = jnp.ones((T, B, D))
zeros = jnp.zeros((B, H))
go = lambda *args, **kw: jaxrnn.unroll(cell, params, *args, **kw)

BAD = {
    "a class": (lambda: jaxrnn.unroll(LSTM, params, xs), r"An instance, not a class: LSTM\(128\)"),
    "no cell": (lambda: jaxrnn.unroll("lstm", params, xs), "needs a cell"),
    "no features": (lambda: go(jnp.ones(T)), r"xs\[:, None\]"),
    "empty tree": (lambda: go(()), r"xs must be \(T, \*batch, D\)"),
    "leaves disagree": (lambda: go((xs, xs[1:])), "agree in all but D"),
    "in_dim": (lambda: go(xs[..., 1:]), r"take 4 features.*3, 3\).*in_dim=3"),
    "state form": (
        lambda: go(xs, (zeros, zeros)),
        r"LSTMState.*initial_state\(params, \(3,\)\)",
    ),
    "state shape": (lambda: go(xs, LSTMState(zeros[0], zeros[0])), "batch of"),
    "lengths shape": (lambda: go(xs, lengths=[1, 2]), r"integers of shape \(3,\).*\(2,\)"),
    "lengths dtype": (lambda: go(xs, lengths=jnp.ones(B)), "integers.*float32"),
    "lengths range": (
        lambda: go(xs, lengths=np.array([0, 1, 9])),
        "between 0 and T=5; got 0 to 9",
    ),
    "resets dtype": (lambda: go(xs, resets=jnp.zeros((T, B))), r"resets.astype\(bool\)"),
    "resets shape": (lambda: go(xs, resets=np.zeros((B, T), bool)), r"\(5, 3\).*\(3, 5\)"),
    "state kind": (lambda: go(xs, LSTMState(zeros.astype(int), zeros)), "int32.*Start from"),
    "other params": (lambda: jaxrnn.unroll(jaxrnn.PeepholeLSTM(H), params, xs), "not those of PeepholeLSTM"),
    "other size": (lambda: jaxrnn.unroll(LSTM(H + 1), params, xs), r"not those of LSTM.*hidden=7"),
    "driver": (lambda: go(xs, driver=BPTT), r"Scan\(\) or BPTT\(\), or None; got <class"),
    "unroll": (lambda: jaxrnn.Scan(unroll=0), "1 or more; got 0"),
    "remat kind": (lambda: jaxrnn.Scan(remat=8), r"Scan\(remat=Remat\(8\)\)"),
    "chunk": (lambda: BPTT(0), "1 or more; got 0"),
    "remat": (lambda: Remat(-1), "or None; got -1"),
}


@pytest.mark.parametrize("what", BAD)
def test_says_what_is_wrong(what):
    make, match = BAD[what]
    with pytest.raises(ValueError, match=match):
        make()
