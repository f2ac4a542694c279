"""Conversion of flax's cells: values, gradients, round trips, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import GRU, LSTM, Bidirectional, Elman, Reversed, Stack, unroll
from jaxrnn._layers.bidirectional import Both

from .parity import BATCH, HIDDEN, IN, LENGTHS, TIME, agree, close, equal, inputs, noise, params_of, state_of, valid

pytest.importorskip("flax", reason="flax is an optional peer: pip install jaxrnn[flax]")

import flax.linen as nn
from flax import nnx

from jaxrnn.interop.flax import NnxRNN, from_linen, from_nnx, state_from_flax, state_to_flax, to_linen, to_nnx

KINDS = {
    "simple": ("SimpleCell", {}),
    "residual_relu": ("SimpleCell", {"residual": True, "activation_fn": jax.nn.relu}),
    "lstm": ("LSTMCell", {}),
    "optimized_lstm": ("OptimizedLSTMCell", {"activation_fn": jax.nn.relu, "gate_fn": jax.nn.hard_sigmoid}),
    "gru": ("GRUCell", {"activation_fn": jax.nn.elu, "gate_fn": jax.nn.softplus}),
}
SOFT = {"activation": "soft_sign", "gate_activation": jnp.cos}
CELLS = [Elman(HIDDEN), Elman(HIDDEN, activation=jax.nn.relu), LSTM(HIDDEN, **SOFT), GRU(HIDDEN)]
kinds = pytest.mark.parametrize(("name", "options"), KINDS.values(), ids=KINDS)
cells = pytest.mark.parametrize("cell", CELLS, ids=["elman", "relu", "lstm", "gru"])


def carry_of(cell):
    h = jnp.zeros((BATCH, HIDDEN))
    return noise((h, h) if "LSTM" in type(cell).__name__ else h, seed=2)


def nnx_cell(name, options=(), in_dim=IN):
    zeros = nnx.initializers.zeros  # quick: no test needs random weights
    return getattr(nnx, name)(
        in_dim, HIDDEN, **dict(options), kernel_init=zeros, recurrent_kernel_init=zeros, rngs=nnx.Rngs(0)
    )


def nnx_parts(module):
    """Return random params of a module, and a function that merges params into it."""
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    return noise(params, seed=3), lambda params: nnx.merge(graph, params, rest)


def linen_cell(name, options=()):
    """Return a linen cell, random variables and a random carry."""
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
    forward, backward = (nnx.RNN(nnx_cell(name, in_dim=HIDDEN)) for name in ("GRUCell", "LSTMCell"))
    module = nnx.List([lower, nnx.Bidirectional(forward, backward)])
    params, merge = nnx_parts(module)
    carries = carry_of(lower.cell), (carry_of(forward.cell), carry_of(backward.cell))

    def theirs(params, xs, carries):
        layers, ys, states = merge(params), jnp.swapaxes(xs, 0, 1), []
        for layer, carry in zip(layers, carries, strict=True):
            carry, ys = layer(ys, initial_carry=carry, seq_lengths=LENGTHS, return_carry=True)
            states.append(carry)
        states = state_of(states[0]), Both(*map(state_of, states[1]))
        return states, jnp.where(valid(), jnp.swapaxes(ys, 0, 1), 0.0)

    def ours(params, xs, carries):
        cells, weights = zip(*map(from_nnx, merge(params)), strict=True)
        states = state_of(carries[0]), Both(*map(state_of, carries[1]))
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
def test_conversion_to_flax_and_back_is_exact(cell, lstm):
    params = params_of(cell)
    module, variables = to_linen(cell, params, lstm=getattr(nn, lstm))
    assert equal(from_linen(module, variables), (cell, params))
    assert equal(from_linen(module, variables["params"]), (cell, params))
    if isinstance(cell, GRU):
        params = params._replace(local=jnp.zeros(HIDDEN))
    assert equal(from_nnx(to_nnx(cell, params, lstm=getattr(nnx, lstm))), (cell, params))


def test_conversion_of_both_directions_and_back_is_exact():
    lstm = LSTM(HIDDEN, activation="elu", gate_activation="softplus")
    cell = Bidirectional(lstm, GRU(HIDDEN, activation="relu", gate_activation="hard_sigmoid"))
    params = params_of(cell)
    module, variables = to_linen(cell, params)
    assert equal(from_linen(module, variables), (cell, params))
    params = params._replace(backward=params.backward._replace(local=jnp.zeros(HIDDEN)))  # nnx has no b_hn
    assert equal(from_nnx(to_nnx(cell, params)), (cell, params))
    xs = inputs()
    ys = jnp.swapaxes(to_nnx(cell, params)(jnp.swapaxes(xs, 0, 1)), 0, 1)
    close(ys, unroll(cell, params, xs)[1])


@pytest.mark.parametrize("cell", [Reversed(LSTM(HIDDEN)), Reversed(Elman(HIDDEN))], ids=["lstm", "elman"])
def test_a_backward_layer_is_reversed(cell):
    params, xs = params_of(cell), jnp.swapaxes(inputs(), 0, 1)
    module, variables = to_linen(cell, params)
    assert equal(from_linen(module, variables), (cell, params))
    assert equal(from_nnx(to_nnx(cell, params)), (cell, params))
    needed = jnp.swapaxes(jnp.where(valid(), unroll(cell, params, inputs(), lengths=LENGTHS)[1], 0.0), 0, 1)
    mask = jnp.swapaxes(valid(), 0, 1)
    close(jnp.where(mask, to_nnx(cell, params)(xs, seq_lengths=LENGTHS), 0.0), needed)
    close(jnp.where(mask, module.apply(variables, xs, seq_lengths=LENGTHS), 0.0), needed)


def test_a_new_module_has_the_tree_that_to_linen_returns():
    module, variables, _ = linen_cell("GRUCell")
    converted, tree = to_linen(*from_linen(module, variables))
    assert converted == module
    assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, variables)


@pytest.mark.parametrize("cell", [LSTM(HIDDEN), Elman(HIDDEN)], ids=["lstm", "elman"])
def test_bfloat16_weights_keep_their_dtype(cell):
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params_of(cell))
    module = to_nnx(cell, params)
    assert (module.dtype, module.param_dtype) == (None, jnp.bfloat16)
    assert equal(from_nnx(module), (cell, params))
    assert to_linen(cell, params)[0].param_dtype == jnp.bfloat16
    assert equal(from_linen(*to_linen(cell, params)), (cell, params))


def test_conversion_of_carries_and_back_is_exact():
    cell = Stack((Reversed(LSTM(HIDDEN)), Bidirectional(GRU(2), LSTM(3))))
    state = noise(cell.initial_state(params_of(cell), (BATCH,)), seed=5)
    carry = state_to_flax(cell, state)
    assert jax.tree.map(jnp.shape, carry) == (((BATCH, 4),) * 2, ((BATCH, 2), ((BATCH, 3),) * 2))
    assert (carry[0][0] == state[0].c).all()
    assert equal((cell, state_from_flax(cell, carry)), (cell, state))


class OwnCell(nnx.LSTMCell):
    """A subclass may compute something else."""


class OwnBoth(Bidirectional):
    """A subclass may compute something else."""


class OwnRNN(NnxRNN):
    """A subclass may compute something else."""


def rngs():
    return nnx.Rngs(0)


def lstm_variables(**changed):
    """Return the variables of a linen LSTM, with some leaves of the gate i replaced."""
    tree = to_linen(LSTM(HIDDEN), PARAMS)[1]["params"]
    return tree | {"ii": tree["ii"] | changed}


PARAMS = params_of(LSTM(HIDDEN))
DOUBLE = np.ones((IN, HIDDEN))
half = lambda tree: jax.tree.map(lambda a: a.astype(jnp.bfloat16), tree)
half_bias = lambda a: half(a) if a.ndim == 1 else a

REJECTED = {
    "gate_fn": (lambda: from_nnx(nnx_cell("LSTMCell", {"gate_fn": np.tanh})), "LSTM.gate_activation must be"),
    "dtype": (lambda: from_nnx(nnx_cell("GRUCell", {"dtype": jnp.bfloat16})), "computes in bfloat16"),
    "subclass": (lambda: from_nnx(OwnCell(2, 2, rngs=rngs())), "OwnCell"),
    "linear": (lambda: from_nnx(nnx.Linear(2, 2, rngs=rngs())), "Linear"),
    "reverse": (lambda: from_nnx(nnx.RNN(nnx_cell("GRUCell"), reverse=True)), "reverse=True.*keep_order=True"),
    "merge_fn": (
        lambda: from_nnx(nnx.Bidirectional(*[nnx.RNN(nnx_cell("GRUCell")) for _ in "ab"], merge_fn=jnp.add)),
        "merges with",
    ),
    "mgu": (lambda: from_linen(nn.MGUCell(HIDDEN), {}), "MGUCell"),
    "conv_lstm": (lambda: from_linen(nn.ConvLSTMCell(HIDDEN, (3,)), {}), "ConvLSTMCell"),
    "carry_init": (lambda: from_linen(nn.GRUCell(HIDDEN, carry_init=nn.initializers.ones), {}), "carry_init"),
    "variables": (lambda: from_linen(nn.GRUCell(HIDDEN), linen_cell("LSTMCell")[1]), "have an entry 'ir'"),
    "float64": (lambda: from_linen(nn.LSTMCell(HIDDEN), lstm_variables(kernel=DOUBLE)), "enable_x64"),
    "further": (lambda: from_linen(nn.LSTMCell(HIDDEN), lstm_variables(bias=jnp.ones(HIDDEN))), "no further entries"),
    "dtypes": (
        lambda: from_linen(nn.GRUCell(HIDDEN), jax.tree.map(half_bias, linen_cell("GRUCell")[1])),
        "one dtype",
    ),
    "cast": (lambda: from_linen(nn.LSTMCell(HIDDEN, dtype=jnp.float32), half(lstm_variables())), "computes in float32"),
    "own_both": (lambda: to_nnx(OwnBoth(LSTM(HIDDEN)), Both(PARAMS, PARAMS)), "OwnBoth"),
    "own_adapter": (lambda: from_nnx(OwnRNN(LSTM(HIDDEN), IN, rngs=rngs())), "OwnRNN"),
    "transposed": (lambda: to_linen(LSTM(HIDDEN), PARAMS._replace(b=PARAMS.b[:, :2])), "the shapes"),
    "local": (lambda: to_linen(GRU(HIDDEN), params_of(GRU(HIDDEN))._replace(local=jnp.zeros(()))), "the shapes"),
    "carry": (lambda: state_from_flax(LSTM(2), jnp.zeros(2)), r"\(c, h\) for an LSTM"),
    "ours": (lambda: state_from_flax(LSTM(2), LSTM(2).initial_state(PARAMS)), r"\(c, h\) for an LSTM"),
    "features": (lambda: from_linen(nn.LSTMCell(5), linen_cell("LSTMCell")[1]), "the shapes"),
    "equation": (lambda: to_linen(jaxrnn.PeepholeLSTM(HIDDEN), None), "PeepholeLSTM"),
    "nested": (lambda: to_nnx(Reversed(Bidirectional(LSTM(2))), None), "no counterpart of Bidirectional"),
    "stack": (lambda: to_nnx(Stack((LSTM(HIDDEN),)), None), "layer by layer"),
    "recurrence": (lambda: to_nnx(GRU(HIDDEN, recurrence=jaxrnn.Diagonal()), None), "recurrence=Diagonal"),
    "b_hn": (lambda: to_nnx(GRU(HIDDEN), params_of(GRU(HIDDEN))), "b_hn"),
    "b_hn_traced": (lambda: jax.jit(lambda k: nnx.state(to_nnx(GRU(2), GRU(2).init(k, 2))))(jax.random.key(0)), "b_hn"),
    "lstm_nnx": (lambda: to_nnx(LSTM(2), params_of(LSTM(2), 2), lstm=nnx.GRUCell), "lstm="),
    "lstm_linen": (lambda: to_linen(LSTM(2), params_of(LSTM(2), 2), lstm=nn.GRUCell), "lstm="),
}


@pytest.mark.parametrize(("convert", "message"), REJECTED.values(), ids=REJECTED)
def test_what_has_no_counterpart_raises(convert, message):
    with pytest.raises(ValueError, match=message):
        convert()


@pytest.mark.filterwarnings("ignore:carry_init is provided in __init__")
def test_an_nnx_carry_init_raises():
    with pytest.raises(ValueError, match="carry_init"):
        from_nnx(nnx_cell("GRUCell", {"carry_init": nnx.initializers.ones}))
