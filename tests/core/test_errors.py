"""Errors on invalid arguments name what was given, what is needed and the fix."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import (
    BPTT,
    GRU,
    LRU,
    LSTM,
    Bidirectional,
    Dropout,
    Elman,
    LearnedState,
    LSTMState,
    MinGRU,
    PeepholeLSTM,
    Remat,
    ResetBeforeGRU,
    Residual,
    Stack,
    Zoneout,
)
from jaxrnn.model import Embedding, SequenceModel

from .table import B, D, H, T

cell = LSTM(H)
params = cell.init(jax.random.key(0), D)
xs = jnp.ones((T, B, D))
zeros = jnp.zeros((B, H))
KEY = jax.random.key(0)
model = SequenceModel(Embedding(9, 4), cell, 2)
weights = model.init(KEY)
select = lambda cell=cell, xs_shape=(T, B, D), dtype=jnp.float32, platform="cpu", state=None: jaxrnn.select(
    cell, xs_shape, dtype, platform, state
)
go = lambda *args, **kw: jaxrnn.unroll(cell, params, *args, **kw)


@dataclasses.dataclass(frozen=True)
class Narrowing:
    """A cell that adds fractions to a counter."""

    def init(self, key, in_dim):
        return ()

    def initial_state(self, params, batch=()):
        return jnp.zeros((*batch, 1), jnp.int32)

    def step(self, params, state, x):
        return state.astype(jnp.float32) + 0.5, x


BAD = {
    "a class": (lambda: jaxrnn.unroll(LSTM, params, xs), r"Pass an instance: LSTM\(128\)"),
    "no cell": (lambda: jaxrnn.unroll("lstm", params, xs), "needs a cell"),
    "no features": (lambda: go(jnp.ones(T)), r"xs\[:, None\]"),
    "empty tree": (lambda: go(()), r"xs must be \(T, \*batch, D\)"),
    "leaves disagree": (lambda: go((xs, xs[1:])), "agree in all but D"),
    "in_dim": (lambda: go(xs[..., 1:]), r"take 4 features.*3, 3\).*in_dim=3"),
    "state form": (
        lambda: go(xs, (zeros, zeros)),
        r"LSTMState.*initial_state\(params, \(3,\)\)",
    ),
    "state shape": (lambda: go(xs, LSTMState(zeros[0], zeros[0])), "batch axes"),
    "lengths shape": (lambda: go(xs, lengths=[1, 2]), r"integers of shape \(3,\).*\(2,\)"),
    "lengths dtype": (lambda: go(xs, lengths=jnp.ones(B)), "integers.*float32"),
    "lengths range": (
        lambda: go(xs, lengths=np.array([0, 1, 9])),
        "between 0 and T=5; got 0 to 9",
    ),
    "resets values": (lambda: go(xs, resets=np.full((T, B), 0.5)), "0 and 1; got other numbers"),
    "resets shape": (lambda: go(xs, resets=np.zeros((B, T), bool)), r"\(5, 3\).*\(3, 5\)"),
    "state kind": (lambda: go(xs, LSTMState(zeros.astype(int), zeros)), "int32.*Start from"),
    "other params": (lambda: jaxrnn.unroll(jaxrnn.PeepholeLSTM(H), params, xs), "do not match PeepholeLSTM"),
    "other size": (lambda: jaxrnn.unroll(LSTM(H + 1), params, xs), r"do not match LSTM.*hidden=7"),
    "driver": (lambda: go(xs, driver=BPTT), r"Scan\(\) or BPTT\(\), or None; got <class"),
    "unroll": (lambda: jaxrnn.Scan(unroll=0), "1 or more; got 0"),
    "remat kind": (lambda: jaxrnn.Scan(remat=8), r"Scan\(remat=Remat\(8\)\)"),
    "chunk": (lambda: BPTT(0), "1 or more; got 0"),
    "remat": (lambda: Remat(-1), "or None; got -1"),
}


zero = LSTMState(zeros, zeros)
BAD |= {
    "list of steps": (lambda: go([*xs]), r"list of 5.*jnp.stack\(xs\)"),
    "tuple of steps": (lambda: go((*xs,)), "got a tuple.*jnp.stack"),
    "nested lists": (lambda: go(np.asarray(xs).tolist()), r"jnp.asarray\(xs\)"),
    "no xs": (lambda: go(None), "got None"),
    "strings": (lambda: go(np.full((T, B, D), "1.5")), "xs must be arrays of numbers.*<U3"),
    "objects": (lambda: go(np.full((T, B, D), None)), "xs must be arrays of numbers"),
    "dates": (lambda: go(np.zeros((T, B, D), "M8[s]")), "datetime64"),
    "float0": (lambda: go(np.zeros((T, B, D), jax.dtypes.float0)), "float0"),
    "masked": (lambda: go(np.ma.masked_array(np.ones((T, B, D)))), "mask would be lost"),
    "long integers": (lambda: go(np.full((T, B, D), 2**40)), "overflow int32"),
    "complex inputs": (lambda: go(xs.astype(complex)), "imaginary part of complex64"),
    "complex inputs, affine": (
        lambda: jaxrnn.unroll(LRU(H), LRU(H).init(KEY, D), xs.astype(complex)),
        "imaginary part",
    ),
    "complex state": (lambda: go(xs, jax.tree.map(lambda z: z.astype(complex), zero)), "complex64.*Start from"),
    "integer state_dtype": (lambda: go(xs, state_dtype=jnp.int32), "floating dtype.*got int32"),
    "state_dtype of zero": (lambda: go(xs, state_dtype="float33"), "floating dtype.*float33"),
    "driver as the state": (lambda: go(xs, jaxrnn.Scan()), r"state must be.*Scan.*driver=Scan\(\)"),
    "driver string": (lambda: go(xs, driver="scan"), "got 'scan'"),
    "key 0": (lambda: go(xs, key=0), r"jax.random.key\(0\), or None.*got 0"),
    "two keys": (lambda: go(xs, key=jax.random.split(KEY)), r"\(2,\)"),
    "batch-major": (lambda: go(jnp.ones((B, T, D)), lengths=[T] * B), r"jnp.swapaxes\(xs, 0, 1\)"),
    "ragged lengths": (lambda: go(xs, lengths=[[1], [2, 3], [4]]), "lengths must be arrays"),
    "select: a class": (lambda: jaxrnn.select(LSTM, (T, B, D), jnp.float32, "cpu"), "Pass an instance"),
    "select: a composite": (
        lambda: jaxrnn.select(Stack((cell,)), (T, B, D), jnp.float32, "cpu"),
        "each cell of a comp",
    ),
    "select: an array": (lambda: jaxrnn.select(cell, xs, jnp.float32, "cpu"), r"as xs.shape"),
    "model: unrolled": (lambda: jaxrnn.unroll(model, weights, xs), "unroll needs a cell.*model.layers"),
    "model: generating": (lambda: jaxrnn.generate(model, weights, xs[0], steps=2), "without a state.*model.layers"),
    "model: in a model": (lambda: SequenceModel(Embedding(9, 4), model, 2), r"model\(params, ids\).*model.layers"),
    "model: in a stack": (lambda: Stack((cell, model)), r"Stack.layers\[1\] needs a cell.*model.layers"),
    "model: in both directions": (lambda: Bidirectional(cell, model), "Bidirectional.backward.*model.layers"),
    "model: with a learned state": (lambda: LearnedState(model), "SequenceModel.init does not.*model.layers"),
    "model: in States": (lambda: jaxrnn.States(model), "States.cell needs a cell.*model.layers"),
    "model: residual": (lambda: Residual(model), "Residual.cell needs a cell.*model.layers"),
    "select: a model": (lambda: select(model), "select needs a cell.*model.layers"),
    "select: strings in a shape": (lambda: select(xs_shape=("a", 1, 1)), r"xs_shape is.*got \('a'"),
    "select: floats in a shape": (lambda: select(xs_shape=(100, 32, 4.0)), r"xs_shape is.*4\.0"),
    "select: a negative size": (lambda: select(xs_shape=(100, -1, 4)), "size in xs_shape.*0 or more; got -1"),
    "select: no dtype": (lambda: select(dtype="nonsense"), "dtype is that.*'nonsense'"),
    "select: a number as dtype": (lambda: select(dtype=3), "dtype is that.*got 3"),
    "select: integers": (lambda: select(dtype=jnp.int32), "dtype is that.*int32"),
    "select: a number as state": (lambda: select(state=3), "state is the state.*got 3"),
    **{f"select: {p!r}": (lambda p=p: select(platform=p), "cpu, gpu, tpu") for p in ("CPU", "cuda", "x", None, 3)},
    "step: state form": (lambda: cell.step(params, (zeros, zeros), xs[0]), "LSTMState.*Start from"),
    "step: no batch": (lambda: cell.step(params, zero, xs[0, 0]), r"batch axes \(\)"),
    "step: integer state": (
        lambda: cell.step(params, jax.tree.map(lambda z: z.astype(int), zero), xs[0]),
        "int32",
    ),
    "step: list": (lambda: cell.step(params, cell.initial_state(params), [1.0] * D), "got a list"),
    "step: strings": (lambda: cell.step(params, cell.initial_state(params), np.full(D, "1")), "array of numbers"),
    "step: short stack": (
        lambda: Stack((cell, cell)).step((params,), (zero,) * 2, xs[0]),
        r"params\[1\].*missing",
    ),
    "pad: ragged": (lambda: jaxrnn.pad([[[1, 2], [3]]]), "sequences of pad must be"),
    "pad: strings": (lambda: jaxrnn.pad([["a"], ["b", "c"]]), "pad needs arrays of numbers"),
    "pad: bytes": (lambda: jaxrnn.pad([b"ab"]), "pad needs arrays of numbers"),
    "pad: numbers": (lambda: jaxrnn.pad([1, 2]), r"pad needs arrays of numbers \(T"),
    "generate: a class": (lambda: jaxrnn.generate(GRU, params, xs[0], steps=2), "an instance"),
    "generate: no step": (lambda: jaxrnn.generate(Bidirectional(cell), params, xs[0], steps=2), "causal step"),
    "generate: steps": (lambda: jaxrnn.generate(cell, params, xs[0], steps=2.0), "0 or more; got 2.0"),
    "generate: key": (lambda: jaxrnn.generate(cell, params, xs[0], steps=2, key=1), "got 1"),
    "generate: params": (lambda: jaxrnn.generate(cell, None, xs[0], steps=2), "params do not match LSTM"),
    "generate: features": (lambda: jaxrnn.generate(cell, params, xs[0], steps=2), r"float32\[3, 6\].*float32\[3, 4\]"),
    "generate: state": (lambda: jaxrnn.generate(cell, params, xs[0], (zeros, zeros), steps=2), "Start from"),
    "generate: a cast": (
        lambda: jaxrnn.generate(cell, params, xs[0], steps=2, feed=lambda y, key: y[:, :D].astype(int)),
        "float32, and the next input is int32",
    ),
    "model: a class": (lambda: SequenceModel(Embedding(9, 4), LSTM, 2), "Pass an instance"),
    "model: an embedding class": (lambda: SequenceModel(Embedding, cell, 2), r"Embedding\(100, 16\)"),
    "model: outputs": (lambda: SequenceModel(Embedding(9, 4), cell, 2.5), "1 or more; got 2.5"),
    "model: pooling": (lambda: SequenceModel(Embedding(9, 4), cell, 2, "last"), "got 'last'"),
    "model: params": (lambda: model(params, jnp.zeros((T, B), int)), "do not match SequenceModel"),
    "model: params of its step": (
        lambda: model.step(None, zero, jnp.zeros(B, int)),
        "do not match SequenceModel",
    ),
    "model: strings": (lambda: model(weights, [["a", "b"]]), "ids must be arrays of numbers"),
    "model: ragged": (lambda: model(weights, [[1], [1, 2]]), "ids must be arrays"),
    "model: state of its step": (lambda: model.step(weights, zeros, jnp.zeros(B, int)), "Start from"),
    "a cell that narrows its state": (lambda: jaxrnn.unroll(Narrowing(), (), xs), "float32 for a state of int32"),
}

WRONG = {
    "None": lambda p: None,
    "a dict": lambda p: dict(enumerate(jax.tree.leaves(p))),
    "of another size": lambda p: jax.tree.map(lambda a: a[None], p),
    "integers": lambda p: jax.tree.map(lambda a: a.astype(int), p),
}
LAYERS = [
    LSTM(H),
    MinGRU(H),
    LRU(H),
    ResetBeforeGRU(H),
    Stack((LSTM(H), GRU(5))),
    Bidirectional(GRU(H)),
    LearnedState(Elman(H)),
    Residual(GRU(D)),
    Zoneout(GRU(H)),
    Stack((Dropout(0.5), MinGRU(H))),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_error_names_the_params_that_do_not_match(layer):
    right = layer.init(KEY, D)
    for change in WRONG.values():
        with pytest.raises(ValueError, match="the params do not match"):
            jaxrnn.unroll(layer, change(right), xs)


def test_the_error_names_the_path_of_each_leaf():
    stack = Stack((LSTM(H), GRU(5)))
    first, _ = stack.init(KEY, D)
    with pytest.raises(ValueError, match=r"params\[1\].b is missing; params\[1\].local is missing.*and 1 more"):
        jaxrnn.unroll(stack, (first,), xs)
    with pytest.raises(ValueError, match=r"params\[1\].b must be floating \(3, 5\), got floating \(4, 6\)"):
        jaxrnn.unroll(stack, (first, first), xs)


def test_select_accepts_shapes_of_numpy_and_of_export():
    shape = tuple(np.array([100, 32, 4]))
    assert select(PeepholeLSTM(8), shape) == select(PeepholeLSTM(8), (100, 32, 4)) == BPTT(32, keep_gates=True)
    assert select(PeepholeLSTM(8), (*jax.export.symbolic_shape("t, b"), 4)) == jaxrnn.Scan()
    assert select(Narrowing(), dtype=jnp.int32, state=jnp.zeros(3, jnp.int32)) == jaxrnn.Scan()


@pytest.mark.parametrize("what", BAD)
def test_the_error_names_the_fix(what):
    call, match = BAD[what]
    with pytest.raises(ValueError, match=match):
        call()
