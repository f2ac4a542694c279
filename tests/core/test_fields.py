"""Fields are checked at construction; every public value compares, hashes, copies and pickles."""

import copy
import dataclasses
import inspect
import pickle
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import (
    BPTT,
    GRU,
    GRUD,
    LRU,
    LSTM,
    RGLRU,
    S4D,
    S5,
    S6,
    SLSTM,
    SRU,
    AntisymmetricRNN,
    Apply,
    Associative,
    Bidirectional,
    Concat,
    Dense,
    Diagonal,
    Dropout,
    Elman,
    Fused,
    GatedCell,
    GlorotOrthogonal,
    Heads,
    IndRNN,
    LayerNorm,
    LearnedState,
    Linear,
    LSTMState,
    MatrixCell,
    MinGRU,
    Native,
    Newton,
    Product,
    ProjectedLSTM,
    Remat,
    ResetBeforeGRU,
    Residual,
    RMSNorm,
    Scan,
    ShortConvolution,
    Stack,
    States,
    TorchUniform,
    UnICORNN,
    VariationalDropout,
    WeightDrop,
    Zoneout,
)
from jaxrnn._core.activation import _ALIASES, _FUNCTIONS
from jaxrnn.model import BagEmbedding, Embedding, SequenceModel, every, init_readout

from .table import CELLS, DRIVERS, EVERY, MORE_CELLS, B, H, Mine, draw, initial, unroll


@dataclasses.dataclass(frozen=True)
class Leaky(Mine):
    """A cell of a user with one more field."""

    tau: float = 0.1


class Undecorated(Mine):
    """A cell of a user whose `tau` is not a field: `==` would ignore it."""

    def __init__(self, hidden, tau):
        super().__init__(hidden)
        object.__setattr__(self, "tau", tau)


class Bare(GatedCell):
    """A cell of a user without the decorator, so that `hidden` is not an argument."""

    hidden: int
    gates = 1
    initial_state = read = gate = Mine.read


class Weightless(Mine):
    """A cell of a user without recurrent weights: its params have no `w_h`."""

    class Bare(NamedTuple):
        """Its params."""

        w_x: jax.Array
        b: jax.Array

    def init(self, key, in_dim):
        params = super().init(key, in_dim)
        return self.Bare(params.w_x, params.b)

    def recur(self, params, s):
        return (jnp.zeros_like(s),)


key = jax.random.key(0)
traced = lambda make: jax.eval_shape(lambda x: make(x) and x, jnp.ones(()))
BAD = {
    "torch's order": (
        lambda: LSTM(3, 8),
        r"LSTM\(3, 8\).*only positional argument is hidden: int.*forget_bias.*init\(key, in_dim\)",
    ),
    "positional activation": (lambda: Elman(4, "relu"), "by keyword: .*activation"),
    "unknown keyword": (lambda: GRU(4, units=3), "unexpected keyword argument 'units'.*hidden: int"),
    "no decorator": (lambda: Bare(3), r"Decorate the class with @dataclasses.dataclass\(frozen=True\)"),
    "several layers": (lambda: Stack(LSTM(3), GRU(3)), "only positional argument is layers: tuple"),
    "zero": (lambda: LSTM(0), "LSTM.hidden must be an int of 1 or more; got 0"),
    "negative": (lambda: MinGRU(-1), "MinGRU.hidden must be.*got -1"),
    "a float": (lambda: GRU(8.0), "GRU.hidden must be.*got 8.0"),
    "a string": (lambda: ResetBeforeGRU("8"), "hidden must be.*got '8'"),
    "a bool": (lambda: LRU(True), "hidden must be.*got True"),
    "a JAX array": (lambda: LSTM(jnp.int32(8)), r"hidden must be.*a JAX array int32\[\]"),
    "a cell of a user": (lambda: Leaky(None), "Leaky.hidden must be.*got None"),
    "projection": (lambda: ProjectedLSTM(4, projection=0), "projection must be"),
    "projection, torch's order": (lambda: ProjectedLSTM(3, 8), r"hidden=3.*projection=8.*init\(key, in_dim\)"),
    "states": (lambda: LRU(4, states=2.5), "LRU.states must be"),
    "ring": (lambda: LRU(4, r_min="a"), "LRU.r_min must be one finite number"),
    "forget bias": (lambda: LSTM(4, forget_bias=np.ones(4)), r"forget_bias must be one finite.*float64\[4\]"),
    "forget bias NaN": (lambda: LSTM(4, forget_bias=float("nan")), "forget_bias must be one finite number; got nan"),
    "forget bias beyond floats": (lambda: LSTM(4, forget_bias=10**400), "must be one finite number"),
    "traced": (lambda: traced(lambda x: LSTM(4, forget_bias=x)), "forget_bias must be one finite number"),
    "activation": (lambda: Elman(3, activation="rel"), "must be one of celu.*relu.*got 'rel'"),
    "NumPy's activation": (lambda: GRU(3, activation=np.tanh), "must be one of.*ufunc 'tanh'"),
    "recurrence class": (lambda: LSTM(4, recurrence=Dense), r"an instance such as Dense\(\).*the class Dense"),
    "initializer class": (lambda: MinGRU(4, initializer=TorchUniform), "the class TorchUniform, not an instance"),
    "initializer function": (lambda: GRU(4, initializer=jax.nn.initializers.zeros), r"such as GlorotOrthogonal\(\)"),
    "no heads": (lambda: Heads(0), "Heads.heads must be an int of 1"),
    "heads": (lambda: GRU(8, recurrence=Heads(3)), r"Heads\(3\) needs a hidden size that 3 divides; got hidden=8. Use"),
    "list of layers": (lambda: Stack([LSTM(3)]), r"Stack takes a tuple.*got \[LSTM"),
    "one layer": (lambda: Stack(LSTM(3)), "Stack takes a tuple"),
    "no layers": (lambda: Stack(()), "Stack takes a tuple"),
    "class of layer": (lambda: Stack((LSTM(3), LSTM)), r"Stack.layers\[1\].*LSTM\(8\), not LSTM; got the class LSTM"),
    "both": (lambda: Bidirectional(LSTM(3), "gru"), "Bidirectional.backward must be a cell.*got 'gru'"),
    "residual": (lambda: Residual(GRU), "Residual.cell must be a cell"),
    "learned": (lambda: LearnedState(3), "LearnedState.cell must be a cell"),
    "states of none": (lambda: States(LSTM), "States.cell must be a cell"),
    "zoneout of a class": (lambda: Zoneout(LSTM), "Zoneout.cell must be a cell.*not LSTM"),
    "zoneout of a plain cell": (lambda: Zoneout(ProjectedLSTM(4, 2)), "Zoneout needs a GatedCell"),
    "rate 1": (lambda: Dropout(1.0), "Dropout.rate is a probability, 0 <= rate < 1; got 1.0"),
    "rate below 0": (lambda: Zoneout(LSTM(3), -0.1), "Zoneout.rate.*0 <= rate < 1"),
    "rate as a string": (
        lambda: VariationalDropout("0.1"),
        "VariationalDropout.rate must be one finite number; got '0.1'",
    ),
    "rates": (lambda: Dropout(np.ones(2)), r"Dropout.rate.*float64\[2\]"),
    "rates of a state": (lambda: Zoneout(LSTM(3), LSTMState(0.1, "a")), "Zoneout.rate must be one finite number"),
    "rates of another state": (
        lambda: Zoneout(GRU(3), LSTMState(0.1, 0.1)).step(GRU(3).init(key, 2), jnp.zeros(3), jnp.ones(2)),
        "a rate for every leaf of the cell's state",
    ),
    "ignored attributes": (
        lambda: Undecorated(3, 0.1),
        r"== and hash ignore the attributes \['tau'\].*dataclass\(frozen=True\)",
    ),
    "array in a field": (
        lambda: Leaky(3, np.ones(3)).init(key, 2),
        r"Leaky.tau = a NumPy array float64\[3\].*params.*init_local.*tuple",
    ),
    "list in a field": (lambda: Leaky(3, [0.1]).init(key, 2), r"Leaky.tau = \[0.1\].*tuple for a list"),
    "shape as in_dim": (lambda: Mine(3).init(key, (5, 2)), r"in_dim is the number.*shape\[-1\].*got \(5, 2\)"),
    "negative in_dim": (lambda: Stack((GRU(3), GRU(3))).init(key, -1), "in_dim is the number.*got -1"),
    "float in_dim": (lambda: LRU(3).init(key, 2.0), "in_dim is the number.*got 2.0"),
    "key and in_dim": (lambda: Bidirectional(LSTM(3)).init(3, key), r"init\(jax.random.key\(0\), in_dim=3\); got 3"),
    "slstm with another forget gate": (lambda: SLSTM(4, forget_activation="tanh"), 'must be "sigmoid" or "exp"'),
    "slstm heads": (lambda: SLSTM(4, recurrence=Heads(3)), "3"),
    "step size 0": (lambda: UnICORNN(4, step_size=0), "UnICORNN.step_size must be above 0"),
    "negative diffusion": (lambda: AntisymmetricRNN(4, diffusion=-1), "diffusion must be at least 0; got -1"),
    "antisymmetric and diagonal": (
        lambda: AntisymmetricRNN(4, recurrence=Diagonal()),
        r"takes recurrence=Dense\(\).*got Diagonal",
    ),
    "s5 blocks": (lambda: S5(8, blocks=3), "S5.blocks must divide its 4 states; got 3"),
    "s4d steps": (lambda: S4D(4, min_step=1), "S4D needs min_step <= max_step; got 1.0 and 0.1"),
    "s4d discretization": (lambda: S4D(4, discretization="zoh"), r"ZeroOrderHold\(\) or Bilinear\(\)"),
    "s4d features": (lambda: S4D(4).init(key, 3), r"Use S4D\(3\), or project the inputs to 4 features"),
    "s6 steps": (lambda: S6(4, min_step=1), "S6 needs min_step <= max_step; got 1.0 and 0.1"),
    "s6 states": (lambda: S6(4, states=0), "S6.states must be an int of 1 or more; got 0"),
    "s6 rank": (lambda: S6(4, step_rank=0), "S6.step_rank must be an int of 1 or more, or None; got 0"),
    "s6 floor": (lambda: S6(4, step_floor=0), "S6.step_floor must be above 0"),
    "s6 features": (lambda: S6(4).init(key, 3), r"Use S6\(3\), or project the inputs to 4 features"),
    "linear": (lambda: Linear(0), "Linear.features must be an int of 1 or more; got 0"),
    "linear bias": (lambda: Linear(3, bias=None), "Linear.bias must be True or False; got None"),
    "linear activation": (lambda: Linear(3, activation="rel"), "Linear.activation must be one of .*; got 'rel'"),
    "linear inputs": (
        lambda: Linear(3).step(Linear(3).init(key, 2), (), jnp.ones(4)),
        "take 2 features in the last axis; got an array of shape",
    ),
    "norm epsilon": (lambda: LayerNorm(epsilon=0), "LayerNorm.epsilon must be above 0"),
    "norm groups": (lambda: RMSNorm(groups=3).init(key, 4), r"features that 3 divides, 1 or more; got 4\."),
    "norm of nothing": (lambda: LayerNorm().init(key, 0), "1 or more; got 0"),
    "product of a list": (lambda: Product([Linear(3)]), "Product takes a tuple of one layer or more"),
    "product of sizes": (
        lambda: Product((Linear(3), GRU(4))).init(key, 2),
        r"outputs of the same number of features; .* are \[3, 4\] for 2 input features\. Put a Linear",
    ),
    "concat of a class": (lambda: Concat((LSTM,)), r"Concat.layers\[0\] must be a cell"),
    "convolution width": (lambda: ShortConvolution(0), "ShortConvolution.width must be an int of 1 or more; got 0"),
    "convolution without params": (lambda: ShortConvolution().initial_state(None), "pass the params of init"),
    "apply of a number": (lambda: Apply(3, jnp.tanh), "Apply.init_fn must be a function: .*; got 3"),
    "apply of several outputs": (
        lambda: Apply(lambda key, n: (), lambda p, x: (x, x)).out_dim(3),
        "must map x .* to one array",
    ),
    "no features": (lambda: SRU(4).init(key, 0), r"in_dim=0. Project the inputs to 4 features\.$"),
    "no features, gated": (lambda: RGLRU(4).init(key, 0), r"in_dim=0. Project the inputs to 4 features\.$"),
    "other features": (lambda: RGLRU(4).init(key, 3), r"Use RGLRU\(3\), or project the inputs to 4"),
    "residual of no features": (lambda: Residual(GRU(3)).init(key, 0), r"Pass inputs of 3 features\.$"),
    "a number as the key": (
        lambda: LSTM(3).init(jnp.array(1.0), 2),
        r"one key: init.*JAX array float32\[\]",
    ),
    "numbers as the key": (lambda: LRU(3).init(np.zeros(3), 2), r"one key: init.*float64\[3\]"),
    "several keys": (
        lambda: Stack((GRU(3),)).init(jax.random.split(key), 2),
        r"one key: init.*\[2\]",
    ),
    "key of an embedding": (lambda: Embedding(5, 3).init(0), r"init\(jax.random.key\(0\)\); got 0$"),
    "key of bags": (lambda: BagEmbedding(5, 3).init("a"), "one key.*got 'a'"),
    "key of a model": (lambda: SequenceModel(Embedding(5, 3), GRU(4), 2).init(None), "one key.*got None"),
    "key of a readout": (lambda: init_readout(0, 3, 2), "one key.*got 0"),
    "readout": (lambda: init_readout(key, 3, 2.5), "outputs must be an int of 1 or more; got 2.5"),
    "no weights to drop": (lambda: WeightDrop(Weightless(3), 0.5).init(key, 2), "array w_h of the params.*are a Bare"),
    "weights dropped later": (
        lambda: jaxrnn.unroll(WeightDrop(Weightless(3), 0.5), Weightless(3).init(key, 2), jnp.ones((2, 2)), key=key),
        "array w_h of the params.*RecurrentDropout",
    ),
    "a driver's arguments": (lambda: BPTT(1, False, 0, 2), r"arguments are chunk.*keyword: none\.$"),
    "driver class": (lambda: Native(exported=BPTT), "Native.exported must be.*the class BPTT"),
    "no params": (lambda: LearnedState(GRU(3)).initial_state(None), "its params; got None.*Make them first"),
}


SIZES = (0, -1, 8.0, "8", True, jnp.array(8))
COUNTS = (-1, 1.5, "a", True, None)
WRONG = [
    *((BPTT, "chunk", given) for given in (*SIZES, None)),
    *((Scan, "unroll", given) for given in (*SIZES, None)),
    *((Remat, "chunk", given) for given in SIZES),
    *((Associative, "chunk", given) for given in SIZES),
    *((BPTT, "hoist", given) for given in COUNTS),
    *((Scan, "hoist", given) for given in COUNTS),
    *((Scan, "remat", given) for given in (8, Remat)),
    *((BPTT, "keep_gates", given) for given in ("no", 1, None)),
    *((Fused, "interpret", given) for given in ("x", 3)),
    *((Associative, "axis", given) for given in (3, str)),
    *((Native, "exported", given) for given in (3, Scan())),
    *((Newton, "tolerance", given) for given in ("x", float("nan"), -1.0, True)),
    *((Newton, "iterations", given) for given in (0, 2.5, True, "3")),
    *((Newton, "damping", given) for given in ("a", float("nan"), 1.5, None)),
    *((Newton, "jacobian", given) for given in ("half", jnp.ones(3))),
    *((Newton, "fallback", given) for given in ("scan", Scan)),
    *(
        (kind, field, given)
        for kind in (Embedding, BagEmbedding)
        for field in ("vocabulary", "features")
        for given in (*SIZES, None)
    ),
    *((SequenceModel, "outputs", given) for given in (*SIZES, None)),
]


@pytest.mark.parametrize(("kind", "field", "given"), WRONG, ids=lambda value: getattr(value, "__name__", str(value)))
def test_drivers_and_models_check_their_fields(kind, field, given):
    valid = {Embedding: (5, 3), BagEmbedding: (5, 3), SequenceModel: (Embedding(5, 3), GRU(4), 2)}.get(kind, ())
    with pytest.raises(ValueError, match=rf"{kind.__name__}.*{field}.*; got "):
        dataclasses.replace(kind(*valid), **{field: given})


@pytest.mark.parametrize("what", BAD)
def test_the_error_names_the_fix(what):
    call, match = BAD[what]
    with pytest.raises((ValueError, TypeError), match=match):
        call()


def test_only_sizes_without_a_default_are_positional():
    public = [getattr(jaxrnn, name) for name in dir(jaxrnn)]
    kinds = {type(cell) for cell in (CELLS | MORE_CELLS).values()} - {Mine} | {GRUD}
    of_cells = lambda c: isinstance(c, type) and {"hidden", "heads"} & getattr(c, "__dataclass_fields__", {}).keys()
    assert kinds == {c for c in public if of_cells(c)} - {Heads, MatrixCell}
    for kind in kinds:
        positional = [p for p in inspect.signature(kind).parameters.values() if p.kind is not p.KEYWORD_ONLY]
        sizes = ["heads", "key_dim"] if issubclass(kind, MatrixCell) else ["hidden", "projection"][: len(positional)]
        assert [p.name for p in positional] == sizes
        assert all(p.default is p.empty for p in positional)


def test_scalars_of_numpy_and_jax_become_python_numbers():
    assert type(LSTM(np.int64(8)).hidden) is int
    assert LSTM(np.uint8(8), forget_bias=jnp.float32(1)) == LSTM(8)
    assert type(Leaky(3, jnp.float32(0.5)).tau) is float
    for rate in (0, np.float64(0.5), np.float32(0.5), jnp.float32(0.5), jnp.bfloat16(0.5)):
        assert Dropout(rate) == Dropout(float(rate))
        assert Zoneout(LSTM(3), LSTMState(rate, 0.25)) == Zoneout(LSTM(3), LSTMState(float(rate), 0.25))
    driver = BPTT(np.int64(8), keep_gates=np.True_, hoist=np.uint8(4))
    assert driver == BPTT(8, True, 4)
    assert repr(driver) == "BPTT(chunk=8, keep_gates=True, hoist=4)"
    assert repr(Newton(tolerance=jnp.float32(0.5), iterations=np.int32(3))) == repr(Newton(tolerance=0.5, iterations=3))
    assert hash(Embedding(np.int64(5), np.int8(3))) == hash(Embedding(5, 3))
    stack = Stack((Dropout(0), Zoneout(GRU(3), np.float32(0.5))))
    params, state, xs = draw(stack)
    assert jaxrnn.unroll(stack, params, xs, state, key=key)[1].dtype == jnp.float32


class Checked(Leaky):
    """A cell with one more check, which does not call that of its base."""

    def __check_init__(self):
        if self.tau > 1:
            raise ValueError("tau must be at most 1")


def test_a_subclass_adds_its_checks():
    assert Checked(3, 0.5).tau == 0.5
    with pytest.raises(ValueError, match="at most 1"):
        Checked(3, 2.0)
    with pytest.raises(ValueError, match="hidden"):
        Checked(0, 0.5)


VALUES = [
    *EVERY.values(),
    *(driver for driver, _ in DRIVERS.values()),
    *(Native(), Fused(), Dense(), Diagonal(), Heads(2), GlorotOrthogonal(), TorchUniform()),
    *(Linear(3, activation="gelu"), LayerNorm(groups=2), ShortConvolution(activation="silu"), Concat((GRU(3),))),
    *(Dropout(0.5), VariationalDropout(0.5), Leaky(3), Elman(4, activation=jax.nn.hard_sigmoid)),
    *(Embedding(5, 3), BagEmbedding(5, 3), SequenceModel(Embedding(5, 3), Stack((GRU(3), IndRNN(4))), 2, every)),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_compare_hash_copy_and_pickle(value):
    for other in (
        pickle.loads(pickle.dumps(value)),
        copy.deepcopy(value),
        copy.copy(value),
        dataclasses.replace(value),
    ):
        assert other == value
        assert hash(other) == hash(value)
        assert repr(other) == repr(value)


@pytest.mark.parametrize("name", [*_FUNCTIONS, *_ALIASES])
def test_activations_by_name_and_by_function_are_equal(name):
    function = getattr(jax.nn, {"softsign": "soft_sign", "linear": "identity"}.get(name, name), None)
    function = function or getattr(jnp, {"exponential": "exp"}.get(name, name))
    by_name, by_function = (GRU(4, gate_activation=given) for given in (name, function))
    assert by_name == by_function == copy.deepcopy(by_function)
    assert repr(by_name) == repr(by_function)
    assert by_name.native() == by_function.native() == ("gru" if name == "sigmoid" else None)
    np.testing.assert_array_equal(by_name.gate_activation(jnp.arange(-1.0, 2)), function(jnp.arange(-1.0, 2)))


def test_native_names_a_kernel_with_the_same_activations():
    for tanh in ("tanh", jnp.tanh, jax.nn.tanh, jax.lax.tanh):
        assert Elman(4, activation=tanh) == Elman(4)
        assert Elman(4, activation=tanh).native() == "elman_tanh"
        assert LSTM(4, activation=tanh, gate_activation=jax.lax.logistic).native() == "lstm"
    assert Elman(4, activation="relu").native() == Elman(4, activation=jax.nn.relu).native() == "elman_relu"
    assert LSTM(4, activation="relu").native() is LSTM(4, gate_activation="relu").native() is None
    assert GRU(4, activation="relu").native() is Elman(4, activation=jnp.tan).native() is None


@pytest.mark.parametrize("name", EVERY)
def test_initial_state_without_params(name):
    cell = EVERY[name]
    if name in ("learned", "gated"):  # their states depend on the params
        return
    state = cell.initial_state(None, (B,))
    want = cell.initial_state(initial(cell, key), (B,))
    jax.tree.map(np.testing.assert_array_equal, state, want)
    assert [a.dtype for a in jax.tree.leaves(state)] == [a.dtype for a in jax.tree.leaves(want)]


@pytest.mark.parametrize("name", [name for name in CELLS if name not in ("rg_lru", "sru")])
def test_a_cell_runs_without_input_features(name):
    cell = CELLS[name]
    params = initial(cell, key, 0)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(params))
    state = jax.tree.map(lambda s: s + 0.5, cell.initial_state(params, (B,)))
    xs = jnp.zeros((3, B, 0))
    want = jax.tree.map(lambda s: s, state)
    for x in xs:
        want, y = cell.step(params, want, x)
    got, ys = unroll(cell, params, xs, state)
    np.testing.assert_allclose(ys[-1], y, atol=1e-6)


@pytest.mark.parametrize("driver", [jaxrnn.Scan(), jaxrnn.BPTT(2)])
def test_a_cell_has_a_gradient_without_input_features(driver):
    params = initial(Mine(H), key, 0)
    loss = lambda params: jaxrnn.unroll(Mine(H), params, jnp.zeros((3, B, 0)), driver=driver)[1].sum()
    assert bool(jax.grad(loss)(params).w_h.any())
