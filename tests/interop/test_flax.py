"""Flax's cells are ours with their weights moved, and flax's tools take our cells as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrnn
from jaxrnn import GRU, LSTM, Bidirectional, Dropout, Elman, LSTMState, Scan, Stack, unroll

from .parity import BATCH, HIDDEN, IN, LENGTHS, TIME, agree, close, inputs, noise, state_of, valid

pytest.importorskip("flax", reason="flax is an optional peer: pip install jaxrnn[flax]")

import flax.linen as nn
from flax import nnx

from jaxrnn.interop.flax import LinenRNN, NnxRNN, from_linen, from_nnx, to_linen, to_nnx

KINDS = {
    "simple": ("SimpleCell", {}),
    "residual_relu": ("SimpleCell", {"residual": True, "activation_fn": jax.nn.relu}),
    "lstm": ("LSTMCell", {}),
    "optimized_lstm": ("OptimizedLSTMCell", {}),
    "gru": ("GRUCell", {}),
}
STACK = Stack((LSTM(HIDDEN), Dropout(0.5), GRU(HIDDEN)))
CELLS = [Elman(HIDDEN), Elman(HIDDEN, activation=jax.nn.relu), LSTM(HIDDEN), GRU(HIDDEN)]
kinds = pytest.mark.parametrize(("name", "options"), KINDS.values(), ids=KINDS)
cells = pytest.mark.parametrize("cell", CELLS, ids=["elman", "relu", "lstm", "gru"])


def params_of(cell, in_dim=IN):
    return noise(jax.eval_shape(lambda k: cell.init(k, in_dim), jax.random.key(0)), seed=3)


def carry_of(cell):
    h = jnp.zeros((BATCH, HIDDEN))
    return noise((h, h) if "LSTM" in type(cell).__name__ else h, seed=2)


def nnx_cell(name, options=(), in_dim=IN, hidden=HIDDEN):
    zeros = nnx.initializers.zeros  # quick: no test wants what is drawn
    return getattr(nnx, name)(
        in_dim, hidden, **dict(options), kernel_init=zeros, recurrent_kernel_init=zeros, rngs=nnx.Rngs(0)
    )


def nnx_parts(module):
    """The params of a module, random, and how to put it together again."""
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    return noise(params, seed=3), lambda params: nnx.merge(graph, params, rest)


def linen_cell(name, options=()):
    """A linen cell, its variables, random, and its carry."""
    module = getattr(nn, name)(HIDDEN, **dict(options))
    carry = carry_of(module)
    variables = jax.eval_shape(module.init, jax.random.key(0), carry, jnp.zeros((BATCH, IN)))
    return module, noise(variables, seed=3), carry


@kinds
def test_nnx_cell_value_and_gradient(name, options):
    rnn = nnx.RNN(nnx_cell(name, options), time_major=True, return_carry=True)
    params, merge = nnx_parts(rnn)

    def theirs(params, xs, carry):
        carry, ys = merge(params)(xs, initial_carry=carry, seq_lengths=LENGTHS)
        return state_of(carry), jnp.where(valid(), ys, 0.0)

    def ours(params, xs, carry):
        cell, weights = from_nnx(merge(params))
        return unroll(cell, weights, xs, state_of(carry), lengths=LENGTHS)

    agree(ours, theirs, params, inputs(), carry_of(rnn.cell))


@kinds
def test_linen_cell_value_and_gradient(name, options):
    module, variables, carry = linen_cell(name, options)
    rnn = nn.RNN(module, time_major=True, return_carry=True)

    def theirs(variables, xs, carry):
        tree = {"params": {"cell": variables["params"]}}
        carry, ys = rnn.apply(tree, xs, initial_carry=carry, seq_lengths=LENGTHS)
        return state_of(carry), jnp.where(valid(), ys, 0.0)

    def ours(variables, xs, carry):
        cell, weights = from_linen(module, variables)
        return unroll(cell, weights, xs, state_of(carry), lengths=LENGTHS)

    agree(ours, theirs, variables, inputs(), carry)


def test_nnx_stack_with_both_directions():
    lower = nnx.RNN(nnx_cell("OptimizedLSTMCell"))
    there, back = (nnx.RNN(nnx_cell(name, in_dim=HIDDEN)) for name in ("GRUCell", "LSTMCell"))
    module = nnx.List([lower, nnx.Bidirectional(there, back)])
    params, merge = nnx_parts(module)
    carries = carry_of(lower.cell), (carry_of(there.cell), carry_of(back.cell))

    def theirs(params, xs, carries):
        layers, ys, states = merge(params), jnp.swapaxes(xs, 0, 1), []
        for layer, carry in zip(layers, carries, strict=True):
            carry, ys = layer(ys, initial_carry=carry, seq_lengths=LENGTHS, return_carry=True)
            states.append(carry)
        states = state_of(states[0]), jaxrnn.compose.Both(*map(state_of, states[1]))
        return states, jnp.where(valid(), jnp.swapaxes(ys, 0, 1), 0.0)

    def ours(params, xs, carries):
        cells, weights = zip(*map(from_nnx, merge(params)), strict=True)
        states = state_of(carries[0]), jaxrnn.compose.Both(*map(state_of, carries[1]))
        return unroll(Stack(cells), weights, xs, states, lengths=LENGTHS)

    agree(ours, theirs, params, inputs(), carries)


def test_linen_both_directions():
    module = nn.Bidirectional(nn.RNN(nn.SimpleCell(HIDDEN)), nn.RNN(nn.GRUCell(HIDDEN)))
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((BATCH, TIME, IN)))

    def theirs(variables, xs):
        ys = module.apply(variables, jnp.swapaxes(xs, 0, 1), seq_lengths=LENGTHS)
        return jnp.where(valid(), jnp.swapaxes(ys, 0, 1), 0.0)

    def ours(variables, xs):
        return unroll(*from_linen(module, variables), xs, lengths=LENGTHS)[1]

    agree(ours, theirs, noise(variables, seed=3), inputs())


@cells
@pytest.mark.parametrize("lstm", ["OptimizedLSTMCell", "LSTMCell"])
def test_out_and_in_again_is_the_same(cell, lstm):
    params = params_of(cell)
    module, variables = to_linen(cell, params, lstm=getattr(nn, lstm))
    assert equal(from_linen(module, variables), (cell, params))
    assert equal(from_linen(module, variables["params"]), (cell, params))
    if isinstance(cell, GRU):
        params = params._replace(local=jnp.zeros(HIDDEN))
    assert equal(from_nnx(to_nnx(cell, params, lstm=getattr(nnx, lstm))), (cell, params))


def equal(a, b):
    (cell_a, tree_a), (cell_b, tree_b) = a, b
    assert jax.tree.structure(tree_a) == jax.tree.structure(tree_b)
    return cell_a == cell_b and all(
        (x == y).all() for x, y in zip(*map(jax.tree.leaves, (tree_a, tree_b)), strict=True)
    )


def test_both_directions_out_and_in_again():
    cell = Bidirectional(LSTM(HIDDEN), Elman(HIDDEN))
    params = params_of(cell)
    module, variables = to_linen(cell, params)
    assert equal(from_linen(module, variables), (cell, params))
    assert equal(from_nnx(to_nnx(cell, params)), (cell, params))
    xs = inputs()
    ys = jnp.swapaxes(to_nnx(cell, params)(jnp.swapaxes(xs, 0, 1)), 0, 1)
    close(ys, unroll(cell, params, xs)[1])


def test_a_fresh_module_has_the_tree_that_to_linen_gives():
    module, variables, _ = linen_cell("GRUCell")
    converted, tree = to_linen(*from_linen(module, variables))
    assert converted == module
    assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, variables)


def test_bfloat16_weights_keep_their_dtype():
    cell = LSTM(HIDDEN)
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params_of(cell))
    assert to_nnx(cell, params).param_dtype == jnp.bfloat16
    assert from_nnx(to_nnx(cell, params))[1].w_h.dtype == jnp.bfloat16
    assert to_linen(cell, params)[0].param_dtype == jnp.bfloat16


class OwnCell(nnx.LSTMCell):
    """A subclass may compute something else."""


def rngs():
    return nnx.Rngs(0)


REFUSED = {
    "gate_fn": (lambda: from_nnx(nnx_cell("LSTMCell", {"gate_fn": jax.nn.relu})), "gate_fn"),
    "activation_fn": (lambda: from_nnx(nnx_cell("GRUCell", {"activation_fn": jax.nn.relu})), "activation_fn"),
    "dtype": (lambda: from_nnx(nnx_cell("GRUCell", {"dtype": jnp.bfloat16})), "computes in bfloat16"),
    "subclass": (lambda: from_nnx(OwnCell(2, 2, rngs=rngs())), "OwnCell"),
    "linear": (lambda: from_nnx(nnx.Linear(2, 2, rngs=rngs())), "Linear"),
    "reverse": (lambda: from_nnx(nnx.RNN(nnx_cell("GRUCell"), reverse=True)), "reverse=True"),
    "merge_fn": (
        lambda: from_nnx(nnx.Bidirectional(*[nnx.RNN(nnx_cell("GRUCell")) for _ in "ab"], merge_fn=jnp.add)),
        "merges with",
    ),
    "mgu": (lambda: from_linen(nn.MGUCell(HIDDEN), {}), "MGUCell"),
    "conv_lstm": (lambda: from_linen(nn.ConvLSTMCell(HIDDEN, (3,)), {}), "ConvLSTMCell"),
    "carry_init": (lambda: from_linen(nn.GRUCell(HIDDEN, carry_init=nn.initializers.ones), {}), "carry_init"),
    "variables": (lambda: from_linen(nn.GRUCell(HIDDEN), linen_cell("LSTMCell")[1]), "have an entry 'ir'"),
    "features": (lambda: from_linen(nn.LSTMCell(5), linen_cell("LSTMCell")[1]), "weights of the shapes"),
    "equation": (lambda: to_linen(jaxrnn.PeepholeLSTM(HIDDEN), None), "PeepholeLSTM"),
    "stack": (lambda: to_nnx(Stack((LSTM(HIDDEN),)), None), "layer by layer"),
    "recurrence": (lambda: to_nnx(GRU(HIDDEN, recurrence=jaxrnn.Diagonal()), None), "dense recurrent"),
    "b_hn": (lambda: to_nnx(GRU(HIDDEN), params_of(GRU(HIDDEN))), "b_hn"),
    "b_hn_traced": (lambda: jax.jit(lambda k: nnx.state(to_nnx(GRU(2), GRU(2).init(k, 2))))(jax.random.key(0)), "b_hn"),
    "lstm_nnx": (lambda: to_nnx(LSTM(2), params_of(LSTM(2), 2), lstm=nnx.GRUCell), "lstm="),
    "lstm_linen": (lambda: to_linen(LSTM(2), params_of(LSTM(2), 2), lstm=nn.GRUCell), "lstm="),
    "load": (lambda: NnxRNN(STACK, IN, rngs=rngs()).load(params_of(STACK, 2)), "have the shapes"),
    "in_dim": (lambda: LinenRNN(LSTM(2)).init(jax.random.key(0), (jnp.ones((2, 2)),)), "in_dim=..."),
    "carry_order": (
        lambda: NnxRNN(LSTM(HIDDEN), IN, rngs=rngs())(inputs(), (jnp.zeros((BATCH, HIDDEN)),) * 2),
        "state of LSTM",
    ),
}


@pytest.mark.parametrize(("convert", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_counterpart_raises(convert, message):
    with pytest.raises(ValueError, match=message):
        convert()


@pytest.mark.filterwarnings("ignore:carry_init is provided in __init__")
def test_an_nnx_carry_init_raises():
    with pytest.raises(ValueError, match="carry_init"):
        from_nnx(nnx_cell("GRUCell", {"carry_init": nnx.initializers.ones}))


# The adapters.

RESETS = np.zeros((TIME, BATCH), bool)
RESETS[2, 0] = RESETS[3, 2] = True
MARKS = {"lengths": LENGTHS, "resets": RESETS, "reverse": True, "state_dtype": jnp.float32}


def states():
    return noise(STACK.initial_state(params_of(STACK), (BATCH,)), seed=5)


def test_nnx_module_is_unroll():
    module = NnxRNN(STACK, IN, rngs=nnx.Rngs(0))
    cell, params = from_nnx(module)
    assert cell is STACK
    needed = unroll(STACK, params, inputs(), states(), **MARKS)
    close(nnx.jit(lambda m, xs: m(xs, states(), **MARKS))(module, inputs()), needed)
    batch_major = NnxRNN(STACK, IN, time_major=False, rngs=nnx.Rngs(7))
    batch_major.load(params)
    state, ys = batch_major(jnp.swapaxes(inputs(), 0, 1), states(), **MARKS | {"resets": RESETS.T})
    close((state, jnp.swapaxes(ys, 0, 1)), needed)


def test_linen_module_is_unroll():
    module = LinenRNN(STACK)
    variables = module.init(jax.random.key(0), inputs())
    cell, params = from_linen(module, variables)
    assert cell is STACK
    needed = unroll(STACK, params, inputs(), states(), **MARKS)
    close(module.apply(variables, inputs(), states(), **MARKS), needed)
    marks = MARKS | {"resets": RESETS.T}
    state, ys = LinenRNN(STACK, time_major=False).apply(variables, jnp.swapaxes(inputs(), 0, 1), states(), **marks)
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


def test_named_driver_and_pytree_inputs_reach_unroll():
    cell = jaxrnn.Zoneout(LSTM(HIDDEN), LSTMState(h=0.1, c=0.2))
    module = LinenRNN(cell, driver=Scan(), in_dim=IN)
    variables = module.init(jax.random.key(0), inputs())
    _, params = from_linen(module, variables)
    close(module.apply(variables, inputs()), unroll(cell, params, inputs(), driver=Scan()))
    named = NnxRNN(jaxrnn.ResetBeforeGRU(HIDDEN), IN, driver=jaxrnn.BPTT(), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="BPTT"):
        named(inputs())
