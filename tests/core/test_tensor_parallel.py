"""Weights sharded over a mesh give the numbers of whole ones, in value and gradient."""

import jax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxrnn
from jaxrnn import (
    BPTT,
    GRU,
    LSTM,
    Associative,
    Diagonal,
    Elman,
    Heads,
    LayerNormLSTM,
    MinGRU,
    Native,
    Newton,
    Scan,
    Stack,
)

from .. import quick
from .table import draw, far, masks, total

H = 8
PAIRS = [
    (LSTM(H), BPTT(2)),
    (GRU(H), Scan(hoist=2)),
    (GRU(H), BPTT(2, keep_gates=True)),
    (Elman(H), BPTT(2)),
    (LSTM(H, recurrence=Heads(4)), BPTT(2)),
    (LSTM(H, recurrence=Diagonal()), BPTT(2)),
    (LayerNormLSTM(H), BPTT(2)),
    (MinGRU(H), Associative(2)),
    (Stack((LSTM(H), GRU(4))), BPTT(2)),
    (GRU(H), None),
]


def make_mesh(kind=AxisType.Explicit):
    return jax.make_mesh((2, 4), ("data", "model"), axis_types=(kind, kind))


def put(array, *spec):
    return jax.device_put(array, NamedSharding(jax.sharding.get_mesh(), P(*spec)))


def shard_units(w):
    """Shard the last axis, H; of `Heads`, which has four axes, the first."""
    return put(w, "model") if w.ndim == 4 else put(w, *[None] * (w.ndim - 1), "model")


def compare(kind, cell, driver, shard):
    """Check the value and the gradients for sharded params, and return those gradients."""
    params, _, xs = draw(cell, batch=(4,))
    kw = masks(batch=(4,))
    f = jax.value_and_grad(lambda p, x, kw: total(*jaxrnn.unroll(cell, p, x, driver=driver, **kw)), (0, 1))
    want = quick.jit(f)(params, xs, kw)
    with jax.set_mesh(make_mesh(kind)):
        kw = {"lengths": put(kw["lengths"], "data"), "resets": put(kw["resets"], None, "data")}
        got = quick.jit(f)(jax.tree.map(shard, params), put(xs, None, "data"), kw)
    assert far(jax.device_get(got), jax.device_get(want)) < 5e-4
    return got[1][0]


@pytest.mark.parametrize(("cell", "driver"), PAIRS, ids=[f"{type(c).__name__}-{d}" for c, d in PAIRS])
def test_units_over_an_explicit_axis(cell, driver):
    gradients = compare(AxisType.Explicit, cell, driver, shard_units)
    assert all("model" in g.sharding.spec for g in jax.tree.leaves(gradients))


@pytest.mark.parametrize("driver", [Scan(), BPTT(2)], ids=str)
def test_units_over_an_automatic_axis(driver):
    compare(AxisType.Auto, LSTM(H), driver, shard_units)


@pytest.mark.parametrize("driver", [Scan(), BPTT(2)], ids=str)
@pytest.mark.parametrize("spec", [("model",), (None, None, "data")], ids=str)
def test_other_axes_of_the_weights(spec, driver):
    gradients = compare(AxisType.Explicit, GRU(H), driver, lambda w: put(w, *spec) if w.ndim == 3 else put(w))
    assert gradients.w_h.sharding.spec == P(*spec, *[None] * (3 - len(spec)))


def test_the_state_and_the_outputs_are_sharded_as_the_units():
    cell = LSTM(H)
    params, _, xs = draw(cell, batch=(4,))
    with jax.set_mesh(make_mesh()):
        state, ys = jaxrnn.unroll(cell, jax.tree.map(shard_units, params), put(xs, None, "data"), driver=Scan())
        assert ys.sharding.spec == P(None, "data", "model")
        assert state.c.sharding.spec == P("data", "model")


@pytest.mark.parametrize("driver", [Native(), Newton()], ids=str)
def test_drivers_that_need_whole_weights_name_those_that_do_not(driver):
    cell = GRU(H)
    params, _, xs = draw(cell, batch=(4,))
    with jax.set_mesh(make_mesh()), pytest.raises(ValueError, match=r"needs whole .*Use Scan\(\)(,| or) BPTT\(\)"):
        jaxrnn.unroll(cell, jax.tree.map(shard_units, params), put(xs, None, "data"), driver=driver)
