"""The table of cells and drivers: a new one is one row here, and every property is tested for it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import (
    BPTT,
    GLA,
    GRU,
    JANET,
    KDA,
    LEM,
    LRU,
    LSTM,
    LTC,
    MGU,
    MLSTM,
    RGLRU,
    RHN,
    S4D,
    S5,
    S6,
    SLSTM,
    SRU,
    UGRNN,
    AffineCell,
    AntisymmetricRNN,
    Associative,
    Bidirectional,
    Bilinear,
    CfC,
    Chunkwise,
    ConvGRU,
    ConvLSTM,
    CoRNN,
    Dale,
    DeltaNet,
    Diagonal,
    DiagonalJacobian,
    EchoState,
    Elman,
    FastGRNN,
    FixedTimeConstant,
    GatedCell,
    GatedDeltaNet,
    Heads,
    IndRNN,
    LayerNormLSTM,
    LeakyRNN,
    LearnedState,
    LearnedTimeConstant,
    LightGRU,
    Linear,
    Loop,
    Mamba2,
    MatrixCell,
    MinGRU,
    MinLSTM,
    MultiplicativeLSTM,
    Newton,
    PeepholeLSTM,
    Product,
    ProjectedLSTM,
    Remat,
    Reservoir,
    ResetBeforeGRU,
    Residual,
    RetNet,
    RMSNorm,
    Scan,
    ShortConvolution,
    Stack,
    States,
    UnICORNN,
    Zoneout,
)

from .. import quick

T, B, D, H = 5, 3, 4, 6


@dataclasses.dataclass(frozen=True)
class Mine(GatedCell):
    """A cell of a user: the five attributes that a GatedCell needs and no other; its state is a dict."""

    hidden: int
    gates = 2

    def initial_state(self, params, batch=()):
        dtype = None if params is None else params.b.dtype
        return {"h": jnp.full((*batch, self.hidden), 0.5, dtype), "n": jnp.zeros((*batch, 1), dtype)}

    def read(self, s):
        return jnp.sin(s["h"])

    def gate(self, s, u, v):
        z = jax.nn.sigmoid(u[0] * v[0])
        h = z * s["h"] + (1 - z) * jnp.tanh(u[1] - v[1])
        return {"h": h, "n": s["n"] + h.mean(-1, keepdims=True)}


CELLS = {
    "elman": Elman(H),
    "elman_relu": Elman(H, activation="relu"),
    "lstm": LSTM(H),
    "gru": GRU(H),
    "peephole": PeepholeLSTM(H),
    "layer_norm": LayerNormLSTM(H),
    "lstm_diagonal": LSTM(H, recurrence=Diagonal()),
    "gru_heads": GRU(H, recurrence=Heads(2)),
    "mine": Mine(H),
    "projected": ProjectedLSTM(H, 4),
    "reset_before": ResetBeforeGRU(H),
    "min_gru": MinGRU(H),
    "min_lstm": MinLSTM(H),
    "lru": LRU(H, states=5),
    "rg_lru": RGLRU(D),
    "sru": SRU(D),
    "ind_rnn": IndRNN(H),
    "slstm": SLSTM(H, recurrence=Heads(2)),
    "mlstm": MLSTM(2, 3, value_dim=2),
    "kda": KDA(2, 3, value_dim=2, max_beta=2.0),
}
# Cells of the kinds above, each tested against its equation and under the driver of its kind alone.
MORE_CELLS = {
    "slstm_exp": SLSTM(H, forget_activation="exp"),
    "janet": JANET(H),
    "ugrnn": UGRNN(H),
    "light_gru": LightGRU(H),
    "antisymmetric": AntisymmetricRNN(H),
    "unicornn": UnICORNN(H),
    "s4d": S4D(D, states=3),
    "s4d_bilinear": S4D(D, states=3, discretization=Bilinear()),
    "s5": S5(D, states=4, blocks=2),
    "mlstm_exp": MLSTM(2, 3, value_dim=2, forget_activation="exp"),
    "ret_net": RetNet(2, 3),
    "gla": GLA(2, 3, value_dim=2, rank=2),
    "mamba2": Mamba2(2, 3, value_dim=2),
    "delta_net": DeltaNet(2, 3, value_dim=2, max_beta=2.0),
    "gated_delta_net": GatedDeltaNet(2, 3, value_dim=2),
    "s6": S6(D, states=3, step_rank=2),
    "mgu": MGU(H),
    "rhn": RHN(H, depth=3),
    "lem": LEM(H, step_size=0.5),
    "cornn": CoRNN(H, damping=0.5),
    "fast_grnn": FastGRNN(H),
    "multiplicative_lstm": MultiplicativeLSTM(H),
    "leaky": LeakyRNN(H, time_constant=FixedTimeConstant(tau=5, dt=1)),
    "leaky_dale": LeakyRNN(H, time_constant=LearnedTimeConstant(5, 1), activation="softplus", recurrence=Dale(0.7)),
    "cfc": CfC(H, dt=0.7),
    "ltc": LTC(H, unfolds=3, dt=0.7),
    "echo_state": EchoState(H, leak=0.3, initializer=Reservoir(density=0.5)),
    "conv_lstm": ConvLSTM(3, image=(1, 2)),
    "conv_gru": ConvGRU(3, image=(2, 2)),
}
COMPOSITES = {
    "stack": Stack((LSTM(H), GRU(5))),
    "bidirectional": Bidirectional(GRU(H), LSTM(5)),
    "gated": Product((Linear(H, activation="gelu"), Stack((ShortConvolution(3), RMSNorm(groups=2), GRU(H))))),
    "learned": LearnedState(Stack((Elman(H), LSTM(5)))),
    "deep": Stack((Bidirectional(LSTM(H)), Residual(GRU(2 * H)), Zoneout(LSTM(5), 0.3), States(LSTM(H)))),
}
GATED = {name: cell for name, cell in CELLS.items() if isinstance(cell, GatedCell)}
MATRIX = {name: cell for name, cell in CELLS.items() if isinstance(cell, MatrixCell)}
AFFINE = {name: cell for name, cell in CELLS.items() if isinstance(cell, AffineCell)}
EVERY = CELLS | COMPOSITES

# Each driver with its tolerance against `Scan()`: (float32, float64).
DRIVERS = {
    "loop": (Loop(), (2e-6, 1e-13)),
    "scan": (Scan(), (0.0, 0.0)),
    "scan_unroll": (Scan(unroll=2), (2e-6, 1e-13)),
    "scan_hoist": (Scan(hoist=2), (2e-6, 1e-13)),
    "scan_remat": (Scan(remat=Remat(1)), (2e-6, 1e-13)),
    "scan_chunks": (Scan(remat=Remat()), (2e-6, 1e-13)),
    "bptt": (BPTT(), (2e-5, 1e-12)),
    "bptt_chunks": (BPTT(2), (2e-5, 1e-12)),
    "bptt_gates": (BPTT(2, keep_gates=True, hoist=2), (2e-5, 1e-12)),
    "associative": (Associative(), (2e-5, 1e-12)),
    "associative_chunks": (Associative(2), (2e-5, 1e-12)),
    "chunkwise": (Chunkwise(), (2e-5, 1e-11)),
    "chunkwise_chunks": (Chunkwise(2), (2e-5, 1e-11)),
    "newton": (Newton(fallback=None), (2e-5, 1e-11)),
    "newton_diagonal": (Newton(DiagonalJacobian(), fallback=None), (2e-5, 1e-11)),
}
# A driver in one configuration runs every cell that it takes; in others, cells that differ in kind: in their state,
# params, recurrence or methods.
KINDS = ("lstm", "gru", "layer_norm", "lstm_diagonal", "gru_heads", "mine")
PAIRS = [(c, "bptt_chunks") for c in GATED] + [(c, d) for c in KINDS for d in ("bptt_gates", "scan_hoist")]
PAIRS += [(c, "scan_chunks") for c in ("lstm", "mine", "projected", "reset_before", "lru", "rg_lru")]
PAIRS += [("mine", "scan_unroll"), ("lstm", "scan_remat"), ("lstm", "bptt"), ("mine", "bptt")]
PAIRS += [(c, "associative_chunks") for c in AFFINE] + [(c, "associative") for c in ("min_gru", "lru")]
PAIRS += [(c, "chunkwise_chunks") for c in MATRIX] + [("kda", "chunkwise")]
PAIRS += [(c, "newton") for c in ("elman", "lstm", "mine", "min_gru", "reset_before")]
PAIRS += [(c, "newton_diagonal") for c in ("gru_heads", "layer_norm", "lstm_diagonal")]


@functools.partial(quick.jit, static_argnames=("cell", "in_dim"))
def initial(cell, key, in_dim=D):
    """Return `cell.init`, compiled once."""
    return cell.init(key, in_dim)


@functools.partial(quick.jit, static_argnames=("cell", "batch"))
def initial_state(cell, params, batch):
    """Return `cell.initial_state`, compiled once."""
    return cell.initial_state(params, batch)


def draw(cell, seed=0, time=T, batch=(B,)):
    """Draw params, a nonzero state and inputs with noise added, in the default float dtype."""
    rng = np.random.default_rng(seed)
    float_type = jnp.zeros(()).dtype
    noise = lambda a: jnp.asarray(np.asarray(a) + (0.3 * rng.standard_normal(np.shape(a))).astype(a.dtype))
    params = jax.tree.map(noise, initial(cell, jax.random.key(seed)))
    state = jax.tree.map(noise, initial_state(cell, params, batch))
    xs = jnp.asarray(rng.standard_normal((time, *batch, D)), float_type)
    return params, state, xs


def masks(seed=0, time=T, batch=(B,)):
    """Draw ragged lengths, which include 0 and T, and some resets."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, time + 1, batch)
    lengths.flat[:2] = [time, 0]
    return {"lengths": jnp.asarray(lengths), "resets": jnp.asarray(rng.random((time, *batch)) < 0.3)}


def total(state, ys):
    """Return a number that depends on every element of the state and the outputs."""
    leaves = [part for leaf in jax.tree.leaves((state, ys)) for part in (leaf.real, leaf.imag)]
    return sum(jnp.sin(a * (1 + i)).sum() for i, a in enumerate(leaves))


def value_and_gradients(cell, params, state, xs, kw, driver=None, reverse=False):
    """Return ((number, (state, ys)), gradients for params, state and xs)."""

    def loss(params, state, xs):
        out = jaxrnn.unroll(cell, params, xs, state, driver=driver, reverse=reverse, **kw)
        return total(*out), out

    return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(params, state, xs)


run = quick.jit(value_and_gradients, static_argnames=("cell", "driver", "reverse"))
run_optimised = jax.jit(value_and_gradients, static_argnames=("cell", "driver", "reverse"))
unroll = quick.jit(jaxrnn.unroll, static_argnames=("cell", "driver", "reverse", "state_dtype"))


def far(a, b):
    """Return the largest difference between two trees of arrays of the same dtypes."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    pairs = [*zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
    assert [x.dtype for x, _ in pairs] == [y.dtype for _, y in pairs]
    return max(float(np.max(np.abs(np.asarray(x) - np.asarray(y)), initial=0.0)) for x, y in pairs)


def same_bits(a, b):
    """Return whether two trees are equal bit by bit."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)
