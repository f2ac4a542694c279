"""Matrix memories in chunks: every kind of update, long sequences, decays that vanish, and bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import GRU, MLSTM, Chunkwise, DeltaNet, Mamba2, MatrixCell, MemoryUpdate, Packed, RetNet, Scan

from .table import draw, far, masks, run, unroll


@dataclasses.dataclass(frozen=True)
class Memory(MatrixCell):
    """Every kind of update: a decay a head or a key, with and without erasing and a strength."""

    _: dataclasses.KW_ONLY
    decays: int = 1
    erases: bool = False
    scaled: bool = False

    def sizes(self):
        return self.keys, self.keys, self.values, self.heads * self.decays, self.heads, self.heads

    def initial_state(self, params, batch=()):
        return self.zeros(params, batch, scaled=self.scaled)

    def update(self, local, *parts):
        q, k, v, a = map(self.split_heads, parts[:4])
        k = k / jnp.sqrt((k * k).sum(-1, keepdims=True) + 1e-6)
        erase = 2 * jax.nn.sigmoid(parts[4]) if self.erases else None
        return MemoryUpdate(q, k, v, jax.nn.log_sigmoid(a), erase, parts[5] if self.scaled else None)


KINDS = {
    "a decay a head": Memory(2, 3, value_dim=4),
    "a decay a key": Memory(2, 3, decays=3),
    "erasing": Memory(2, 3, erases=True),
    "erasing, a decay a key": Memory(2, 3, decays=3, erases=True),
    "strengths": Memory(2, 3, scaled=True),
    "erasing, strengths": Memory(2, 3, erases=True, scaled=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_of_any_length_equal_scan(x64, kind):
    """More steps than a block of `memory_chunks`, and than two chunks."""
    cell, steps = KINDS[kind], 37
    arguments, kw = draw(cell, time=steps, batch=(2,)), masks(0, steps, (2,))
    want = run(cell, *arguments, kw, Scan())
    for chunk in (1, 16, steps) if kind == "erasing, a decay a key" else (7, 64):
        assert far(run(cell, *arguments, kw, Chunkwise(chunk)), want) <= 1e-9


@pytest.mark.parametrize("kind", ["a decay a head", "a decay a key", "erasing", "strengths"])
def test_decays_that_vanish(kind):
    """Products of decays down to exp(-20,000), next to steps that forget nothing."""
    cell = KINDS[kind]
    params, state, xs = draw(cell, time=300, batch=(2,))
    xs = xs.at[::2].multiply(300.0)
    got, want = (unroll(cell, params, xs, state, driver=driver) for driver in (Chunkwise(), Scan()))
    assert far(got, want) <= 2e-3 * float(jnp.abs(want[1]).max())
    gradients = jax.grad(lambda p: jaxrnn.unroll(cell, p, xs, state, driver=Chunkwise())[1].mean())(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_an_error_in_float32_is_that_of_scan():
    cell = DeltaNet(1, 8, max_beta=2.0)
    params, state, xs = draw(cell, time=2000, batch=(1,))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(a, "float64"), (params, xs, state))
        exact = np.asarray(jaxrnn.unroll(cell, *wide, driver=Scan())[1])
    chunks, steps = (np.abs(unroll(cell, params, xs, state, driver=d)[1] - exact).max() for d in (Chunkwise(), Scan()))
    assert chunks <= 4 * steps


def test_the_delta_rule_tracks_parity():
    """β = 2 turns the sign of what is stored along a key: the product of all signs so far is read."""
    cell = DeltaNet(1, 1, max_beta=2.0, activation="identity", projection=Packed())
    flips = np.random.default_rng(0).random(1000) < 0.5
    ones, beta = np.ones((1000, 1)), np.where(flips, 50.0, -50.0)[:, None]
    xs = np.concatenate([ones, ones, 0 * ones, beta], -1).astype(np.float32)
    params = cell.init(jax.random.key(0), 4)
    state = cell.initial_state(params)._replace(memory=jnp.ones((1, 1, 1)))
    _, ys = jaxrnn.unroll(cell, params, xs, state, driver=Chunkwise())
    np.testing.assert_allclose(ys[:, 0], (-1.0) ** np.cumsum(flips), atol=2e-3)


PACKED = RetNet(2, 4, projection=Packed())
BAD = {
    "a chunk of 0": (lambda: Chunkwise(0), "Chunkwise.chunk must be an int of 1 or more"),
    "another cell": (lambda: run_with(GRU(4)), r"takes a MatrixCell; got GRU.*Use Scan\(\)"),
    "Newton": (lambda: run_with(RetNet(1, 2), jaxrnn.Newton()), r"needs a state of vectors.*Use Chunkwise\(\)"),
    "no heads": (lambda: RetNet(0, 4), "RetNet.heads must be an int of 1 or more"),
    "heads that are no number": (lambda: RetNet(2, "4"), "RetNet.key_dim must be an int"),
    "a bound of beta": (lambda: DeltaNet(2, 4, max_beta=2.5), "at most 2, or the memory explodes; got 2.5"),
    "step sizes": (lambda: Mamba2(2, 4, min_step=0.1, max_step=0.01), "min_step must be at most max_step=0.01"),
    "packed features": (
        lambda: RetNet(2, 4, projection=Packed()).init(jax.random.key(0), 3),
        "24 features; got in_dim=3",
    ),
    "a forget gate": (lambda: MLSTM(2, 4, forget_activation="relu"), 'must be "sigmoid" or "exp"'),
    "a projection": (lambda: RetNet(2, 4, projection=8), "projection must be an instance such as Projected"),
    "packed integers": (
        lambda: jaxrnn.unroll(PACKED, jaxrnn.MatrixParams(()), np.ones((2, 24), int)),
        "as floating features",
    ),
    "a strength without a log_scale": (lambda: run_with(NoScale(1, 2, scaled=True)), "return self.zeros"),
}


class NoScale(Memory):
    """A cell whose state lacks the log_scale that its updates need."""

    def initial_state(self, params, batch=()):
        return self.zeros(params, batch)


def run_with(cell, driver=Chunkwise()):  # noqa: B008
    return jaxrnn.unroll(cell, cell.init(jax.random.key(0), 3), jnp.ones((4, 3)), driver=driver)


@pytest.mark.parametrize("what", BAD)
def test_the_error_names_the_fix(what):
    call, match = BAD[what]
    with pytest.raises(ValueError, match=match):
        call()


def test_an_unknown_number_of_steps_is_refused():
    cell = RetNet(1, 2)
    params = cell.init(jax.random.key(0), 3)
    (time,) = jax.export.symbolic_shape("T")
    xs = jax.ShapeDtypeStruct((time, 3), jnp.float32)
    with pytest.raises(ValueError, match=r"needs a T that is known; got T\. Use Scan"):
        jax.export.export(jax.jit(lambda xs: jaxrnn.unroll(cell, params, xs, driver=Chunkwise())))(xs)
