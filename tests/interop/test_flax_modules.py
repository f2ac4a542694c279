"""`NnxRNN` and `LinenRNN` with flax's tools: jit, optimizers, streams of randomness, split and merge."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrnn
import jaxrnn.extend
from jaxrnn import GRU, LSTM, Bidirectional, Dropout, LSTMState, Scan, Stack, unroll

from .parity import BATCH, HIDDEN, IN, LENGTHS, TIME, close, equal, inputs, noise, params_of, valid

pytest.importorskip("flax", reason="flax is an optional peer: pip install jaxrnn[flax]")

import flax.linen as nn
from flax import nnx

from jaxrnn.interop.flax import LinenRNN, NnxRNN, from_linen, from_nnx, to_nnx

STACK = Stack((LSTM(HIDDEN), Dropout(0.5), GRU(HIDDEN)))
RESETS = np.zeros((TIME, BATCH), bool)
RESETS[2, 0] = RESETS[3, 2] = True
MASKS = {"lengths": LENGTHS, "resets": RESETS, "reverse": True, "state_dtype": jnp.float32}


def states():
    return noise(STACK.initial_state(params_of(STACK), (BATCH,)), seed=5)


def test_the_nnx_module_equals_unroll():
    module = NnxRNN(STACK, IN, rngs=nnx.Rngs(0))
    cell, params = from_nnx(module)
    assert cell is STACK
    needed = unroll(STACK, params, inputs(), states(), **MASKS)
    close(nnx.jit(lambda m, xs: m(xs, states(), **MASKS))(module, inputs()), needed)
    batch_major = NnxRNN(STACK, IN, time_major=False, rngs=nnx.Rngs(7))
    batch_major.load(params)
    state, ys = batch_major(jnp.swapaxes(inputs(), 0, 1), states(), **MASKS | {"resets": RESETS.T})
    close((state, jnp.swapaxes(ys, 0, 1)), needed)


def test_the_linen_module_equals_unroll():
    module = LinenRNN(STACK)
    variables = module.init(jax.random.key(0), inputs())
    cell, params = from_linen(module, variables)
    assert cell is STACK
    needed = unroll(STACK, params, inputs(), states(), **MASKS)
    close(module.apply(variables, inputs(), states(), **MASKS), needed)
    batch_major = MASKS | {"resets": RESETS.T}
    state, ys = LinenRNN(STACK, time_major=False).apply(
        variables, jnp.swapaxes(inputs(), 0, 1), states(), **batch_major
    )
    close((state, jnp.swapaxes(ys, 0, 1)), needed)


def test_dropout_draws_from_flax_streams():
    xs, key = inputs(), jax.random.key(3)
    module = NnxRNN(STACK, IN, rngs=nnx.Rngs(0))
    params = module.weights()
    drawn = unroll(STACK, params, xs, key=key)
    close(module(xs, rngs=key), drawn)
    close(module(xs, rngs=nnx.Rngs(dropout=3)), module(xs, rngs=nnx.Rngs(dropout=3).dropout))
    assert abs(module(xs, rngs=nnx.Rngs(3))[1] - module(xs)[1]).max() > 0
    variables = {"params": {"rnn": params}}
    apply = LinenRNN(STACK).apply
    noisy = apply(variables, xs, deterministic=False, rngs={"dropout": key})[1]
    assert abs(noisy - apply(variables, xs)[1]).max() > 0
    close(noisy, apply(variables, xs, deterministic=False, rngs={"dropout": key})[1])


def test_split_and_merge():
    module = NnxRNN(Bidirectional(LSTM(HIDDEN)), IN, driver=Scan(), rngs=nnx.Rngs(0))
    graph, state = nnx.split(module)
    again = nnx.merge(graph, state)
    assert hash(graph) == hash(nnx.split(again)[0])
    assert (again.cell, again.driver) == (module.cell, module.driver)
    assert equal(from_nnx(again), from_nnx(module))
    assert {module: 1}[module] == 1
    assert hash(LinenRNN(STACK, driver=Scan())) == hash(LinenRNN(STACK, driver=Scan()))


def targets():
    return jnp.cumsum(inputs().sum(-1, keepdims=True), 0)


def test_nnx_training_lowers_the_loss():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.rnn = NnxRNN(LSTM(HIDDEN), IN, rngs=rngs)
            self.readout = nnx.Linear(HIDDEN, 1, rngs=rngs)

        def __call__(self, xs):
            return self.readout(self.rnn(xs, lengths=LENGTHS)[1])

    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.3), wrt=nnx.Param)
    before = jax.tree.map(jnp.array, model.rnn.weights())

    @nnx.jit
    def train_step(model, optimizer, xs, ys):
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean(jnp.square(m(xs) - ys), where=valid()))(model)
        optimizer.update(model, grads)
        return loss

    losses = [float(train_step(model, optimizer, inputs(), targets())) for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, model.rnn.weights())
    assert all(jax.tree.leaves(changed))


def test_linen_training_lowers_the_loss():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, xs):
            return nn.Dense(1)(LinenRNN(GRU(HIDDEN))(xs, lengths=LENGTHS)[1])

    model, optimizer = Model(), optax.sgd(0.3)
    variables = model.init(jax.random.key(0), inputs())
    opt_state = optimizer.init(variables)

    @jax.jit
    def train_step(variables, opt_state, xs, ys):
        loss, grads = jax.value_and_grad(lambda v: jnp.mean(jnp.square(model.apply(v, xs) - ys), where=valid()))(
            variables
        )
        updates, opt_state = optimizer.update(grads, opt_state, variables)
        return optax.apply_updates(variables, updates), opt_state, loss

    losses = []
    for _ in range(20):
        variables, opt_state, loss = train_step(variables, opt_state, inputs(), targets())
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]


def test_a_named_driver_reaches_unroll():
    cell = jaxrnn.Zoneout(LSTM(HIDDEN), LSTMState(h=0.1, c=0.2))
    module = LinenRNN(cell, driver=Scan(), in_dim=IN)
    variables = module.init(jax.random.key(0), inputs())
    _, params = from_linen(module, variables)
    close(module.apply(variables, inputs()), unroll(cell, params, inputs(), driver=Scan()))
    named = NnxRNN(jaxrnn.ResetBeforeGRU(HIDDEN), IN, driver=jaxrnn.BPTT(), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="BPTT"):
        named(inputs())


@dataclasses.dataclass(frozen=True)
class Biased(jaxrnn.extend.WrappedGatedCell):
    """A cell whose context (G, H) is added to its bias."""

    def with_context(self, params, context):
        return params._replace(b=params.b + context)


def test_the_context_reaches_unroll():
    cell = Biased(GRU(HIDDEN))
    params, context = params_of(cell), jnp.ones((3, HIDDEN))
    needed = unroll(cell, params, inputs(), context=context)
    module = NnxRNN(cell, IN, rngs=nnx.Rngs(0))
    module.load(params)
    close(module(inputs(), context=context), needed)
    close(LinenRNN(cell).apply({"params": {"rnn": params}}, inputs(), context=context), needed)
    assert abs(needed[1] - unroll(cell.cell, params, inputs())[1]).max() > 0


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
def test_carry_and_order_equal_those_of_flax(lengths):
    cell = GRU(HIDDEN)
    params = params_of(cell)._replace(local=jnp.zeros(HIDDEN))
    xs = jnp.swapaxes(inputs(), 0, 1)
    rnn = nnx.RNN(to_nnx(cell, params), reverse=True)
    ours = NnxRNN(cell, IN, time_major=False, return_carry=False, keep_order=False, rngs=nnx.Rngs(0))
    ours.load(params)
    linen = LinenRNN(cell, time_major=False, return_carry=False, keep_order=False)
    variables = {"params": {"rnn": params}}
    mask = jnp.swapaxes(valid(np.full(BATCH, TIME) if lengths is None else lengths), 0, 1)
    for more in ({}, {"keep_order": True, "return_carry": True}):
        needed = jax.tree.map(
            lambda a: jnp.where(mask, a, 0) if a.ndim == 3 else a, rnn(xs, seq_lengths=lengths, **more)
        )
        close(ours(xs, lengths=lengths, reverse=True, **more), needed)
        close(linen.apply(variables, xs, lengths=lengths, reverse=True, **more), needed)


REJECTED = {
    "load": (lambda: NnxRNN(STACK, IN, rngs=nnx.Rngs(0)).load(params_of(STACK, 2)), "have the shapes"),
    "in_dim": (lambda: LinenRNN(LSTM(2)).init(jax.random.key(0), (jnp.ones((2, 2)),)), "in_dim=..."),
    "carry_order": (
        lambda: NnxRNN(LSTM(HIDDEN), IN, rngs=nnx.Rngs(0))(inputs(), (jnp.zeros((BATCH, HIDDEN)),) * 2),
        "state of LSTM",
    ),
}


@pytest.mark.parametrize(("call", "message"), REJECTED.values(), ids=REJECTED)
def test_arguments_that_do_not_fit_are_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
