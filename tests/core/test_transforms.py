"""`unroll` under jit, vmap, checkpoint, eval_shape, export and meshes; compilations are cached; dtypes are kept."""

import dataclasses
import pickle
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxrnn
from jaxrnn import BPTT, GRU, LSTM, Associative, Loop, MinGRU, Native, Newton, Remat, Scan, Stack

from .. import quick
from .table import CELLS, COMPOSITES, EVERY, D, H, T, draw, far, masks, run, total, unroll

SOME = [Scan(), Scan(hoist=2, remat=Remat(2)), BPTT(2)]


@pytest.mark.parametrize("driver", [Loop(), *SOME], ids=str)
def test_vmap_equals_a_batch_in_value_and_gradient(driver):
    cell = CELLS["gru"]
    params, state, xs = draw(cell)
    kw = masks()
    (_, batched), grads = run(cell, params, state, xs, kw, driver)

    def rowwise(params):
        one = lambda s, x, m: jaxrnn.unroll(cell, params, x, s, driver=driver, **m)
        out = jax.vmap(one, in_axes=(0, 1, {"lengths": 0, "resets": 1}), out_axes=(0, 1))(state, xs, kw)
        return total(*out), out

    assert far(quick.jit(rowwise)(params)[1], batched) < 2e-6
    grad, _ = quick.jit(jax.grad(rowwise, has_aux=True))(params)
    assert far(grad, grads[0]) < 2e-4


def test_vmap_over_an_ensemble_of_params():
    cell = CELLS["lstm"]
    _, state, xs = draw(cell)
    params = [draw(cell, seed)[0] for seed in (0, 1)]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *params)
    _, ys = jax.vmap(lambda p: jaxrnn.unroll(cell, p, xs, state))(stacked)
    for p, y in zip(params, ys, strict=True):
        assert far(jaxrnn.unroll(cell, p, xs, state)[1], y) < 2e-6


@pytest.mark.parametrize("driver", SOME, ids=str)
def test_checkpoint_and_eval_shape(driver):
    cell = CELLS["lstm"]
    params, state, xs = draw(cell)
    f = lambda p: total(*jaxrnn.unroll(cell, p, xs, state, driver=driver))
    assert far(quick.jit(jax.grad(jax.checkpoint(f)))(params), run(cell, params, state, xs, {}, driver)[1][0]) < 2e-4
    _, ys = jax.eval_shape(lambda p: jaxrnn.unroll(cell, p, xs, driver=driver), params)
    assert ys.shape == (T, 3, H)


EXPORTED = [
    *((name, None, shape) for name in ("lstm", "min_gru", "stack") for shape in (f"9, 3, {D}", f"t, b, {D}")),
    *(("lru", Associative(), shape) for shape in (f"9, b, {D}", f"t, 3, {D}")),
    ("gru", Native(), f"9, 3, {D}"),
    ("bidirectional", None, f"9, b, {D}"),
]


@pytest.mark.parametrize(("name", "driver", "shape"), EXPORTED, ids=str)
def test_export_for_two_platforms(name, driver, shape):
    """Export with params as arguments, states as results and symbolic shapes; the gradient with static shapes."""
    cell = EVERY[name]
    params, state, xs = draw(cell, time=9)
    kw = masks(time=9)
    f = jax.jit(lambda p, s, x, n: jaxrnn.unroll(cell, p, x, s, lengths=n, driver=driver))
    dims = export.symbolic_shape(shape)
    sized = lambda tree: jax.tree.map(lambda a: jax.ShapeDtypeStruct((dims[1], *a.shape[1:]), a.dtype), tree)
    specs = sized(state), jax.ShapeDtypeStruct(dims, jnp.float32), sized(kw["lengths"])
    exported = export.export(f, platforms=("cpu", "cuda"))(params, *specs)
    loaded = export.deserialize(exported.serialize())
    operands = (params, state, xs, kw["lengths"])
    assert far(loaded.call(*operands), f(*operands)) < 2e-6
    if driver is None and "t" not in shape:
        grad = jax.jit(jax.grad(lambda p, *rest: total(*f(p, *rest))))
        exported = export.export(grad)(*operands)
        assert far(export.deserialize(exported.serialize()).call(*operands), grad(*operands)) < 2e-4


@pytest.fixture
def compilations():
    seen = []
    listener = lambda event, *_, **__: seen.append(event) if event.endswith("backend_compile_duration") else None
    jax.monitoring.register_event_duration_secs_listener(listener)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listener)


@pytest.mark.parametrize("name", ["lstm", "deep"])
def test_a_second_call_compiles_nothing(name, compilations):
    make = {"lstm": lambda: LSTM(H), "deep": lambda: dataclasses.replace(COMPOSITES["deep"])}[name]
    params, state, xs = draw(make())
    kw = masks()
    jitted = jax.jit(jaxrnn.unroll, static_argnums=0)
    compilations.clear()
    for call in (jaxrnn.unroll, jitted):
        call(make(), params, xs, state, **kw)
    first = len(compilations)
    assert first >= 1  # newer jax shares one program between the two
    for call in (jaxrnn.unroll, jitted):
        call(make(), params, xs, state, **kw)
    assert len(compilations) == first


def test_generate_compiles_once(compilations):
    cell = GRU(D)
    params, state, xs = draw(cell)
    jaxrnn.generate(cell, params, xs[0], state, steps=3)
    first = len(compilations)
    jaxrnn.generate(GRU(D), params, xs[0], state, steps=3)
    assert len(compilations) == first


def test_cells_and_drivers_are_values():
    for value in [*CELLS.values(), *COMPOSITES.values(), *SOME]:
        again = dataclasses.replace(value)
        assert again == value
        assert hash(again) == hash(value)
        assert repr(value).startswith(type(value).__name__)
    assert LSTM(3) != LSTM(4)
    assert LSTM(3) != GRU(3)
    assert pickle.loads(pickle.dumps(LSTM(3))) == LSTM(3)


@pytest.mark.parametrize("driver", SOME, ids=str)
@pytest.mark.parametrize("name", ["elman", "lstm", "gru_heads", "layer_norm", "projected"])
def test_bfloat16_with_a_state_in_float32(name, driver):
    cell = CELLS[name]
    if name == "projected" and driver != Scan():
        driver = Scan(remat=Remat())
    params, state, xs = draw(cell)
    narrow = lambda tree: jax.tree.map(lambda a: jnp.asarray(np.asarray(a).astype(jnp.bfloat16)), tree)
    final, ys = unroll(cell, narrow(params), narrow(xs), state_dtype=jnp.float32, driver=driver)
    assert {a.dtype for a in jax.tree.leaves(final)} == {jnp.dtype(jnp.float32)}
    assert ys.dtype == jnp.bfloat16
    assert far(np.asarray(ys, np.float32), unroll(cell, params, xs)[1]) < 0.06
    users = jax.tree.map(lambda a: jnp.zeros(a.shape), state)
    assert far(unroll(cell, narrow(params), narrow(xs), users, driver=driver)[1], ys) == 0
    loss = lambda p: jaxrnn.unroll(cell, p, xs, users, driver=driver)[1].astype(jnp.float32).sum()
    grads = quick.jit(jax.grad(loss))(narrow(params))
    assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}


def test_all_bfloat16_and_all_float64(x64):
    cell = CELLS["gru"]
    params, state, xs = draw(cell)
    assert jaxrnn.unroll(cell, params, xs)[1].dtype == jnp.float64
    narrow = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    final, ys = jaxrnn.unroll(cell, narrow, xs.astype(jnp.bfloat16))
    assert (final.dtype, ys.dtype) == (jnp.bfloat16, jnp.bfloat16)


class Both(NamedTuple):
    left: jax.Array
    right: jax.Array


@dataclasses.dataclass(frozen=True)
class Sum:
    """A plain cell whose input is a pytree."""

    def init(self, key, in_dim):
        return ()

    def initial_state(self, params, batch=()):
        return jnp.zeros((*batch, 2))

    def step(self, params, state, x):
        state = state + x.left + x.right
        return state, state


def test_inputs_may_be_a_tree():
    xs = Both(jnp.ones((T, 3, 2)), jnp.full((T, 3, 2), jnp.nan))
    final, ys = jaxrnn.unroll(Sum(), (), xs, lengths=jnp.zeros(3, int))
    assert far(final, jnp.zeros((3, 2))) == 0
    final, _ = jaxrnn.unroll(Sum(), (), xs._replace(right=xs.left))
    assert far(final, jnp.full((3, 2), 2.0 * T)) == 0


def mesh_of_8(kind):
    return jax.make_mesh((8,), ("data",), axis_types=(kind,))


STACK, AFFINE = COMPOSITES["stack"], Stack((MinGRU(H), MinGRU(H)))
SHARDED = [(STACK, Scan()), (STACK, BPTT(2)), (CELLS["gru"], Newton(fallback=None)), (AFFINE, Associative(2))]


@pytest.mark.parametrize(("cell", "driver"), SHARDED, ids=["scan", "bptt", "newton", "associative"])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_a_sharded_batch_equals_a_whole_one(kind, cell, driver):
    params, _, xs = draw(cell, batch=(16,))
    kw = masks(batch=(16,))
    f = quick.jit(jax.value_and_grad(lambda p, x, kw: total(*jaxrnn.unroll(cell, p, x, driver=driver, **kw)), (0, 1)))
    want = f(params, xs, kw)
    with jax.set_mesh(mesh_of_8(kind)):
        lay = lambda a, *spec: jax.device_put(a, NamedSharding(jax.sharding.get_mesh(), PartitionSpec(*spec)))
        kw = {"lengths": lay(kw["lengths"], "data"), "resets": lay(kw["resets"], None, "data")}
        params = jax.tree.map(lay, params)
        got = f(params, lay(xs, None, "data", None), kw)
        assert got[1][1].sharding.spec[1] == "data"
    assert far(jax.device_get(got), jax.device_get(want)) < 5e-4


def test_dropout_on_an_explicit_mesh():
    stack = jaxrnn.Stack((jaxrnn.Dropout(0.2), GRU(H)))
    params, _, xs = draw(stack, batch=(16,))
    f = jax.jit(lambda p, x: jaxrnn.unroll(stack, p, x, key=jax.random.key(0))[1])
    with jax.set_mesh(mesh_of_8(AxisType.Explicit)):
        lay = lambda a, *spec: jax.device_put(a, NamedSharding(jax.sharding.get_mesh(), PartitionSpec(*spec)))
        got = f(jax.tree.map(lay, params), lay(xs, None, "data", None))
    assert far(jax.device_get(got), f(params, xs)) < 1e-5


@pytest.mark.parametrize(("cell", "driver"), SHARDED, ids=["scan", "bptt", "newton", "associative"])
def test_shard_map_sums_the_gradient_over_devices(cell, driver):
    params, _, xs = draw(cell, batch=(16,))
    kw = masks(batch=(16,))
    f = lambda p, x, kw: total(*jaxrnn.unroll(cell, p, x, driver=driver, **kw))
    want = quick.jit(jax.value_and_grad(f))(params, xs, kw)
    rows = PartitionSpec(None, "data")
    specs = (PartitionSpec(), rows, {"lengths": PartitionSpec("data"), "resets": rows})
    with jax.set_mesh(mesh_of_8(AxisType.Auto)):
        local = lambda *args: jax.lax.psum(f(*args), "data")
        whole = jax.shard_map(local, in_specs=specs, out_specs=PartitionSpec())
        got = quick.jit(jax.value_and_grad(whole))(params, xs, kw)
    assert far(jax.device_get(got), jax.device_get(want)) < 5e-4


def test_named_scopes_name_the_cell():
    cell = LSTM(H)
    params, _, xs = draw(cell)
    text = jax.jit(lambda p, x: jaxrnn.unroll(cell, p, x)).lower(params, xs).as_text(debug_info=True)
    assert "LSTM" in text


def test_numpy_inputs_work():
    cell = LSTM(H)
    params, _, xs = draw(cell)
    host = jax.tree.map(np.asarray, (params, xs))
    assert far(jaxrnn.unroll(cell, *host)[1], jaxrnn.unroll(cell, params, xs)[1]) == 0
    assert far(jaxrnn.unroll(cell, *host, driver=Loop())[1], jaxrnn.unroll(cell, params, xs)[1]) < 2e-6
