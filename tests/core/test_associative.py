"""The parallel scan: long sequences, what overflows, and time split over devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxrnn
from jaxrnn import GRU, LRU, RGLRU, SRU, Associative, Chunkwise, MinGRU, Scan
from jaxrnn._drivers.associative import Chunks

from .. import quick
from .table import MATRIX, draw, far, masks, run, total, unroll

CELLS = {"min_gru": MinGRU(6), "lru": LRU(6)}
LONG = 8 * 37


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("reverse", [False, True])
def test_chunks_of_any_length_equal_scan(x64, name, reverse):
    cell, kw = CELLS[name], masks(time=LONG)
    arguments = draw(cell, time=LONG)
    want = run(cell, *arguments, kw, Scan(), reverse)
    for driver in (Associative(1), Associative(7), Associative(LONG - 1)):
        assert far(run(cell, *arguments, kw, driver, reverse), want) <= 1e-10


def test_a_second_order_equals_scan(x64):
    cell = MinGRU(6)
    params, state, xs = draw(cell, time=9)

    def slope(driver, xs):
        f = lambda xs: total(*jaxrnn.unroll(cell, params, xs, state, driver=driver))
        return jnp.sin(jax.grad(f)(xs)).sum()

    got, want = (quick.jit(jax.grad(functools.partial(slope, driver)))(xs) for driver in (Associative(2), Scan()))
    assert far(got, want) <= 1e-10


def test_products_that_overflow_within_a_chunk_lose_nothing():
    a = jnp.full((200, 2), 1e4).at[120].set(0.0)
    b = jnp.zeros((200, 2)).at[195, 0].set(1.0)
    solve = Chunks(20)
    got = solve(a, b, jnp.zeros(2), False)
    assert (got[:195] == 0).all()
    np.testing.assert_allclose(got[195:, 0], 1e4 ** np.arange(5), rtol=1e-6)
    assert (got[:, 1] == 0).all()
    assert (solve(a, b, jnp.full(2, jnp.inf), False)[120:195] == 0).all()


@pytest.mark.parametrize("name", [*CELLS, *MATRIX])
@pytest.mark.parametrize("reverse", [False, True])
def test_time_split_over_devices_equals_one_device(x64, name, reverse):
    cell = (CELLS | MATRIX)[name]
    driver = Associative(axis="time") if name in CELLS else Chunkwise(8, axis="time")
    params, state, xs = draw(cell, time=LONG, batch=(2,))
    resets = None if reverse else masks(3, LONG, (2,))["resets"] & (jnp.arange(LONG)[:, None] % 5 == 0)
    mesh = jax.make_mesh((8,), ("time",), axis_types=(jax.sharding.AxisType.Auto,))

    def part(driver, params, state, xs, resets):
        return jaxrnn.unroll(cell, params, xs, state, resets=resets, reverse=reverse, driver=driver)[1]

    along = P("time")
    split = jax.shard_map(
        functools.partial(part, driver),
        mesh=mesh,
        in_specs=(P(), P(), along, None if reverse else along),
        out_specs=along,
    )
    loss = lambda f, *arguments: jnp.sin(f(*arguments)).sum()
    both = quick.jit(jax.value_and_grad(functools.partial(loss, split), (0, 1, 2)))
    want = quick.jit(jax.value_and_grad(functools.partial(loss, functools.partial(part, Scan())), (0, 1, 2)))
    laid = jax.device_put((xs, resets), jax.NamedSharding(mesh, along))  # resets may be None
    program = both.lower(params, state, *laid).compile()
    assert far(program(params, state, *laid), want(params, state, xs, resets)) <= 1e-7
    program = program.as_text()
    assert "all-gather" not in program
    assert "collective-permute" in program


def test_other_cells_are_refused():
    params, _, xs = draw(GRU(6))
    with pytest.raises(ValueError, match="takes an AffineCell"):
        jaxrnn.unroll(GRU(6), params, xs, driver=Associative())
    with pytest.raises(ValueError, match="1 or more"):
        Associative(0)


@pytest.mark.parametrize("cell", [RGLRU(6), SRU(6)], ids=["rg_lru", "sru"])
def test_a_unit_for_every_feature(cell):
    with pytest.raises(ValueError, match=r"got hidden=6, in_dim=4\. Use \w+\(4\)"):
        cell.init(jax.random.key(0), 4)


def test_an_lru_is_drawn_from_its_ring():
    params = LRU(400, r_min=0.5, r_max=0.9, max_phase=1.0).init(jax.random.key(0), 4)
    size = np.exp(-np.exp(params.decay))
    assert 0.5 <= size.min() < 0.55 < 0.85 < size.max() <= 0.9
    assert np.exp(params.phase).max() <= 1
    np.testing.assert_allclose(np.exp(params.gain) ** 2, 1 - size**2, rtol=1e-4)
    with pytest.raises(ValueError, match="r_min < r_max"):
        LRU(4, r_min=0.9, r_max=0.5)


@dataclasses.dataclass(frozen=True)
class Average(jaxrnn.AffineCell):
    """An affine cell whose decay lacks the axes of time and batch."""

    def init(self, key, in_dim):
        return jnp.linspace(0.1, 0.9, in_dim)

    def initial_state(self, params, batch=()):
        return jnp.zeros((*batch, 4))

    def affine(self, params, x):
        return params, (1 - params) * x


@pytest.mark.parametrize("batch", [(), (2,)])
def test_a_constant_decay_is_broadcast(batch):
    cell = Average()
    params = cell.init(jax.random.key(0), 4)
    xs = jax.random.normal(jax.random.key(1), (4, *batch, 4))  # as many steps as units
    want = unroll(cell, params, xs, driver=Scan())[1]
    for driver in (None, Associative(), Associative(2)):
        assert far(unroll(cell, params, xs, driver=driver)[1], want) < 1e-6
