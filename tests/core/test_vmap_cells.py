"""`vmap` over rows with every kind of cell: what it was written for, what it draws, takes, calls and closes over."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, PartitionSpec

import jaxrnn
from jaxrnn import BPTT, GRU, LSTM, Associative, Dropout, Elman, Native, Scan, Stack, Zoneout
from jaxrnn.extend import WrappedGatedCell

from .. import quick
from .table import CELLS, D, H, draw, far, masks, total
from .test_vmap import NEWTON, ROWS, by_vmap, one_by_one


class OneRow(WrappedGatedCell):
    """A gate written for the units of one row (H,) alone: it divides by their norm."""

    def transition(self, local, s, u, v):
        s = self.cell.transition(local, s, u, v)
        return jax.tree.map(lambda a: a / (1 + jnp.linalg.norm(a)), s)


class Noisy(WrappedGatedCell):
    """A gate with noise."""

    def noise(self, key, batch):
        return jax.random.normal(key, (*batch, H))

    def transition(self, local, s, u, v):
        *u, noise = u
        return self.cell.transition(local, s, (u[0] + noise, *u[1:]), v)


class Told(WrappedGatedCell):
    """A gate that prints, and takes the mean of the mapped axis."""

    def transition(self, local, s, u, v):
        jax.debug.print("told")
        return self.cell.transition(local, s, (u[0] + jax.lax.pmean(u[0], "rows"), *u[1:]), v)


class WithContext(WrappedGatedCell):
    """A gate with a context (H,), which scales u."""

    def with_context(self, params, context):
        return params._replace(local=(params.local, context))

    def local(self, params):
        return params.local

    def transition(self, local, s, u, v):
        own, context = local
        return self.cell.transition(own, s, tuple(context * a for a in u), v)


@dataclasses.dataclass(frozen=True)
class Keyed:
    """A plain cell for one row that draws at every step."""

    def init(self, key, in_dim):
        return jax.random.normal(key, (in_dim, in_dim))

    def initial_state(self, params, batch=()):
        return jnp.zeros((*batch, D))

    def step(self, params, state, x, *, key=None):
        noise = 0.0 if key is None else jax.random.normal(key, (D,))
        state = jnp.tanh(params @ state / jnp.linalg.norm(x) + x + noise)
        return state, state


NONE, SAME, OWN = "no key", "one key for all rows", "a key for each row"
SINGLE = [
    (OneRow(GRU(H)), BPTT(2), NONE),
    (OneRow(GRU(H)), NEWTON, NONE),
    (Keyed(), NEWTON, SAME),
    (Keyed(), None, OWN),
    (Noisy(GRU(H)), BPTT(2), OWN),
    (Zoneout(LSTM(H), 0.5), BPTT(2), OWN),
    (Stack((Dropout(0.5), LSTM(H))), None, OWN),
]


@pytest.mark.parametrize(("cell", "driver", "key"), SINGLE, ids=[f"{type(c).__name__}-{d}-{k}" for c, d, k in SINGLE])
def test_cells_written_for_one_row_and_what_they_draw(cell, driver, key):
    params, state, xs = draw(cell, batch=(ROWS,))
    keys = {NONE: None, SAME: jax.random.key(7), OWN: jax.random.split(jax.random.key(7), ROWS)}
    resets = masks(batch=(ROWS,))["resets"]

    def grad(driver, over):
        one = lambda p, row: total(
            *jaxrnn.unroll(cell, p, row["xs"], row["state"], driver=driver, resets=row["resets"], key=row["key"])
        )
        axes = {"xs": 1, "state": 0, "resets": 1, "key": 0 if key == OWN else None}
        return quick.jit(jax.value_and_grad(lambda p, rows: over(one, axes)(p, rows).sum()))

    rows = {"xs": xs, "state": state, "resets": resets, "key": keys[key]}
    assert far(grad(driver, by_vmap)(params, rows), grad(Scan(), one_by_one)(params, rows)) < 2e-4


@pytest.mark.parametrize("shared", [False, True])
def test_a_context_of_each_row_and_of_all(shared):
    cell = WithContext(GRU(H))
    params, state, xs = draw(cell, batch=(ROWS,))
    context = jnp.arange(1.0 * H) if shared else jnp.arange(1.0 * ROWS * H).reshape(ROWS, H) / H
    grad = lambda driver, over: quick.jit(
        jax.grad(
            lambda p, rows: over(
                lambda p, row: total(*jaxrnn.unroll(cell, p, row["xs"], driver=driver, context=row["context"])),
                {"xs": 1, "context": None if shared else 0},
            )(p, rows).sum(),
            (0, 1),
        )
    )
    rows = {"xs": xs, "context": context}
    assert far(grad(BPTT(2), by_vmap)(params, rows), grad(Scan(), one_by_one)(params, rows)) < 2e-4


def test_a_row_that_does_not_converge_leaves_the_others():
    cell = CELLS["elman"]
    params, _, xs = draw(cell, batch=(ROWS,))
    xs = xs.at[2, 1].set(jnp.nan)
    ys = jax.vmap(lambda xs: jaxrnn.unroll(cell, params, xs, driver=NEWTON)[1], 1, 1)(xs)
    assert np.isnan(ys[2:, 1]).all()
    rest = np.array([0, 2])
    assert far(ys[:, rest], jaxrnn.unroll(cell, params, xs[:, rest], driver=Scan())[1]) < 2e-5


def test_forward_mode_names_scan():
    cell = CELLS["min_gru"]
    params, _, xs = draw(cell, batch=(ROWS,))
    kw = {"resets": masks(batch=(ROWS,))["resets"]}
    f = lambda driver, p: jax.vmap(lambda x, kw: jaxrnn.unroll(cell, p, x, driver=driver, **kw)[1], 1)(xs, kw)
    pushed = lambda driver: jax.jvp(functools.partial(f, driver), (params,), (params,))
    assert far(pushed(Scan())[0], f(None, params)) < 2e-5
    with pytest.raises(TypeError, match=r"Scan\(\)"):
        pushed(Associative())


def test_an_ensemble_with_resets_has_a_gradient():
    cell = CELLS["min_gru"]
    _, _, xs = draw(cell)
    params = jax.tree.map(lambda *a: jnp.stack(a), *(draw(cell, seed)[0] for seed in (0, 1)))
    grad = lambda driver: quick.jit(
        jax.grad(lambda p: jax.vmap(lambda p: total(*jaxrnn.unroll(cell, p, xs, driver=driver, **masks())))(p).sum())
    )
    assert far(grad(Associative())(params), grad(Scan())(params)) < 2e-4


def test_callbacks_and_collectives_in_a_gate_work(capfd):
    cell = Told(GRU(H))
    params, _, xs = draw(cell, batch=(ROWS,))
    one = lambda p, xs: jaxrnn.unroll(cell, p, xs, driver=BPTT())[1]
    ys = jax.vmap(one, (None, 1), 1, axis_name="rows")(params, xs)
    jax.effects_barrier()
    assert "told" in capfd.readouterr().out
    want = jax.vmap(lambda p, xs: jaxrnn.unroll(cell, p, xs, driver=Scan())[1], (None, 1), 1, axis_name="rows")(
        params, xs
    )
    assert far(ys, want) < 2e-5


def test_what_a_cell_closes_over_may_be_mapped():
    def one(scale, xs):
        cell = Elman(H, activation=lambda x: jnp.tanh(scale * x))
        params = draw(Elman(H))[0]
        return jaxrnn.unroll(cell, params, xs, driver=BPTT(2))[1]

    _, _, xs = draw(Elman(H), batch=(ROWS,))
    scales = jnp.arange(1.0, 1.0 + ROWS)
    want = jnp.stack([one(scale, xs[:, i]) for i, scale in enumerate(scales)], 1)
    assert far(jax.vmap(one, (0, 1), 1)(scales, xs), want) < 2e-5


def test_a_gradient_of_vmap_is_exported_and_sharded():
    """By rows over a mesh inside `shard_map`, and as a program without the library."""
    cell = CELLS["lstm"]
    params, _, xs = draw(cell, batch=(ROWS, 8))
    loss = lambda p, xs: jax.vmap(lambda x: total(*jaxrnn.unroll(cell, p, x, driver=Native())), 1)(xs).sum()
    grad = quick.jit(jax.grad(loss))
    want = grad(params, xs)
    exported = export.export(grad)(params, xs)
    assert far(export.deserialize(exported.serialize()).call(params, xs), want) < 2e-4
    rows = PartitionSpec(None, None, "data")
    with jax.set_mesh(jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))):
        local = lambda p, xs: jax.lax.psum(loss(p, xs), "data")
        whole = jax.shard_map(local, in_specs=(PartitionSpec(), rows), out_specs=PartitionSpec())
        assert far(jax.device_get(quick.jit(jax.grad(whole))(params, xs)), jax.device_get(want)) < 2e-4
