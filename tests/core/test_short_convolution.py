"""The short convolution: all steps at once, against NumPy step by step, whatever the masks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxrnn
from jaxrnn import GRU, Associative, LearnedState, Reversed, Scan, ShortConvolution, Stack

from .. import quick
from .table import B, D, T, draw, far, masks, total, unroll

ROWS = 4


def by_hand(layer, params, xs, state, mask, resets, reverse):
    """Return the final state and the outputs, step by step: the window moves at valid steps alone."""
    params, xs = jax.tree.map(np.asarray, (params, xs))
    time, rows, features = xs.shape
    ys, final = np.zeros_like(xs), np.array(state)
    reset_state = params.state.reshape(-1, features)
    for row in range(rows):
        window, reset = [*np.asarray(state[row]).reshape(-1, features)], False
        for t in reversed(range(time)) if reverse else range(time):
            reset |= not reverse and resets[t, row]
            if mask[t, row]:
                window = [*(reset_state if reset else window), xs[t, row]]
                taps = zip(params.cell.w, window[::-1], strict=True)
                ys[t, row] = params.cell.b + sum(w * x for w, x in taps)
                window, reset = window[1:], False
            reset |= reverse and resets[t, row] and mask[t:, row].any()  # a boundary between two valid steps
        final[row] = np.reshape(window, -1)
    return final, ys


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", ["plain", "mask", "resets", "mask and resets", "lengths", "lengths and resets"])
@pytest.mark.parametrize(("width", "time"), [(4, 9), (4, 2), (3, 0), (1, 5)])
def test_all_steps_at_once_are_the_steps_one_by_one(x64, width, time, kind, reverse):
    layer = ShortConvolution(width)
    cell = LearnedState(layer)  # so that resets go to a state that is not zero
    params, state, xs = draw(cell, time=time, batch=(ROWS,))
    rng = np.random.default_rng(3)
    mask, resets, kw = np.ones((time, ROWS), bool), np.zeros((time, ROWS), bool), {}
    if "mask" in kind:
        kw["mask"] = mask = rng.random((time, ROWS)) < 0.6
        mask[:, 1] = False
    if "lengths" in kind:
        kw["lengths"] = np.minimum([9, 0, 1, 5], time)
        mask = np.arange(time)[:, None] < kw["lengths"]
    if "resets" in kind:
        kw["resets"] = resets = rng.random((time, ROWS)) < 0.3
    dirty = jnp.where(mask[..., None], xs, jnp.nan)
    got = unroll(cell, params, dirty, state, reverse=reverse, **kw)
    want = by_hand(layer, params, xs, state, mask, resets, reverse)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), got, want)


@pytest.mark.parametrize("activation", [None, "silu"])
def test_steps_and_splits_equal_the_whole(activation):
    layer = ShortConvolution(3, activation=activation)
    params, state, xs = draw(layer, batch=(2, 3))
    assert state.shape == (2, 3, 2 * D)
    final, ys = unroll(layer, params, xs, state)
    step, stepped, each = quick.jit(layer.step), state, []
    for x in xs:
        stepped, y = step(params, stepped, x)
        each.append(y)
    assert far((stepped, jnp.stack(each)), (final, ys)) < 1e-6
    for k in (1, 3):
        middle, first = unroll(layer, params, xs[:k], state)
        last, second = unroll(layer, params, xs[k:], middle)
        assert far((last, jnp.concatenate([first, second])), (final, ys)) < 1e-6
    one = unroll(layer, params, xs[:, 1, 2], state[1, 2])
    assert far(one, (final[1, 2], ys[:, 1, 2])) < 1e-6
    backward = unroll(Reversed(layer), params, xs[::-1], state)
    assert far(backward, (final, ys[::-1])) < 1e-6


def test_a_state_in_another_dtype_holds_the_same_numbers():
    layer = ShortConvolution(3)
    params, _, xs = draw(layer)
    for state_dtype, params_dtype in ((jnp.bfloat16, jnp.float32), (jnp.float32, jnp.bfloat16)):
        params = jax.tree.map(lambda a: a.astype(params_dtype), params)
        final, ys = unroll(layer, params, xs, state_dtype=state_dtype, lengths=np.full(B, T))
        assert far((final, ys), unroll(layer, params, xs, state_dtype=state_dtype)) == 0
        state = layer.initial_state(params, (B,)).astype(state_dtype)
        for x, y in zip(xs, ys, strict=True):
            state, got = layer.step(params, state, x)
            assert got.dtype == params_dtype
            assert far(got, y) < (1e-6 if params_dtype == jnp.float32 else 0.02)
        assert far(state, final) == 0


@pytest.mark.parametrize("reverse", [False, True])
def test_the_gradient_is_that_of_the_valid_steps_after_a_reset(reverse):
    """NaN in padding, before a reset, and in the state of a row without steps: none reaches a gradient."""
    layer = ShortConvolution(3, activation="silu")
    params, state, xs = draw(layer, time=8, batch=(3,))
    mask, resets = np.ones((8, 3), bool), np.zeros((8, 3), bool)
    mask[[1, 5]], mask[:, 2] = False, False
    resets[3 if not reverse else 5, :2] = True
    after = slice(None, 5) if reverse else slice(3, None)
    dirty = np.array(xs)
    dirty[slice(5, None) if reverse else slice(3)] = np.nan
    dirty[~mask] = np.nan
    lost = jnp.full_like(state, jnp.nan)

    def loss(params, xs, state, **kw):
        final, ys = jaxrnn.unroll(layer, params, xs, state, reverse=reverse, **kw)
        return total(final[:2], ys[after] if len(xs) == 8 else ys)

    grad = quick.jit(jax.grad(loss, (0, 1, 2)))
    got, dxs, dstate = grad(params, dirty, lost, mask=mask, resets=resets)
    keep = np.arange(8)[after][mask[after, 0]]
    want, dxs_alone, _ = grad(params, xs[keep][:, :2], layer.initial_state(params, (2,)))
    assert far(got, want) < 1e-4
    assert far(dxs[keep][:, :2], dxs_alone) < 1e-4
    assert not np.delete(dxs, keep, 0).any()
    assert not dxs[:, 2].any()
    assert not dstate.any()


def test_resets_under_vmap_and_second_order():
    layer = ShortConvolution(3, activation="silu")
    params, state, xs = draw(layer)
    kw = masks()
    whole = lambda p: total(*jaxrnn.unroll(layer, p, xs, state, **kw))
    row = lambda p, x, s, n, r: jaxrnn.unroll(layer, p, x, s, lengths=n, resets=r)
    rows = jax.vmap(row, in_axes=(None, 1, 0, 0, 1), out_axes=(0, 1))
    by_rows = lambda p: total(*rows(p, xs, state, kw["lengths"], kw["resets"]))
    assert far(quick.jit(jax.grad(by_rows))(params), quick.jit(jax.grad(whole))(params)) < 1e-4
    gradient = lambda b: jax.grad(lambda b: whole(params._replace(b=b)))(b)
    assert far(quick.jit(jax.jacfwd(gradient))(params.b), quick.jit(jax.jacrev(gradient))(params.b)) < 1e-4


@pytest.mark.parametrize("reverse", [False, True])
def test_time_split_over_devices_equals_one_device(reverse):
    layer = Stack((ShortConvolution(4), jaxrnn.LRU(3)))
    params, state, xs = draw(layer, time=8 * 3)
    mesh = jax.make_mesh((8,), ("time",), axis_types=(jax.sharding.AxisType.Auto,))
    part = lambda driver, *operands: jaxrnn.unroll(layer, *operands, reverse=reverse, driver=driver)[1]
    along = P("time")
    split = jax.shard_map(
        functools.partial(part, Associative(axis="time")), mesh=mesh, in_specs=(P(), along, P()), out_specs=along
    )
    loss = lambda f, *operands: jnp.sin(f(*operands)).sum()
    both = quick.jit(jax.value_and_grad(functools.partial(loss, split), (0, 1, 2)))
    want = quick.jit(jax.value_and_grad(functools.partial(loss, functools.partial(part, Scan())), (0, 1, 2)))
    assert far(both(params, xs, state), want(params, xs, state)) < 2e-4


@pytest.mark.parametrize(
    ("time", "options", "match"),
    [(16, {}, "parts of 3 steps or more.*got 2"), (32, {"resets": True}, "no lengths, mask or resets.*'time'")],
)
def test_what_cannot_be_split_over_devices_is_refused(time, options, match):
    layer = ShortConvolution(4)
    params, _, xs = draw(layer, time=time)
    mesh = jax.make_mesh((8,), ("time",), axis_types=(jax.sharding.AxisType.Auto,))

    def part(params, xs):
        kw = {name: jnp.zeros(xs.shape[:2], bool) for name in options}
        return jaxrnn.unroll(layer, params, xs, driver=Associative(axis="time"), **kw)[1]

    with pytest.raises(ValueError, match=match):
        jax.shard_map(part, mesh=mesh, in_specs=(P(), P("time")), out_specs=P("time"))(params, xs)


def test_a_batch_on_a_mesh_stays_there():
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Explicit,))
    layer = Stack((ShortConvolution(3), GRU(4)))
    params, _, xs = draw(layer, batch=(8,))
    kw = masks(batch=(8,))
    want = unroll(layer, params, xs, driver=Scan())[1], unroll(layer, params, xs, driver=Scan(), **kw)[1]
    with jax.set_mesh(mesh):
        rows = jax.device_put(xs, P(None, "batch"))
        laid = {
            "lengths": jax.device_put(kw["lengths"], P("batch")),
            "resets": jax.device_put(kw["resets"], P(None, "batch")),
        }
        f = jax.jit(lambda params, xs, kw: jaxrnn.unroll(layer, params, xs, driver=Scan(), **kw)[1])
        got = f(params, rows, {}), f(params, rows, laid)
    assert all(jax.typeof(ys).sharding.spec[1] == "batch" for ys in got)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, want)


def test_a_symbolic_program_is_exported():
    layer = ShortConvolution(3)
    params, _, xs = draw(layer)
    shape = jax.export.symbolic_shape("t, b, 4", constraints=["t >= 1"])
    f = jax.jit(lambda xs, lengths: jaxrnn.unroll(layer, params, xs, lengths=lengths)[1])
    kinds = jax.ShapeDtypeStruct(shape, xs.dtype), jax.ShapeDtypeStruct(shape[1:2], jnp.int32)
    loaded = jax.export.export(f)(*kinds)
    lengths = jnp.array([T, 2, 0], jnp.int32)
    assert far(loaded.call(xs, lengths), unroll(layer, params, xs, lengths=lengths)[1]) < 1e-6
