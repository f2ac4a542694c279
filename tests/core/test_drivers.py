"""Every driver computes the same numbers, in value and gradient, and the gradients are right."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import BPTT, Scan

from .. import quick
from .table import CELLS, COMPOSITES, DRIVERS, EVERY, PAIRS, draw, far, masks, run, total, unroll

MARKS = {"plain": ({}, False), "marked": (masks(), False), "marked_reverse": (masks(1), True)}


@functools.cache
def reference(name, how):
    kw, reverse = MARKS[how]
    cell = EVERY[name]
    return run(cell, *draw(cell), kw, Scan(), reverse)


@pytest.mark.parametrize(
    ("name", "driver", "how"),
    [(*pair, "marked_reverse") for pair in PAIRS]
    + [("lstm", "loop", "marked"), ("gru", "bptt_gates", "marked"), ("mine", "bptt_gates", "marked")]
    + [(name, "bptt_chunks", "plain") for name in ("lstm", "gru", "mine")],
)
def test_equals_scan_in_value_and_gradient(x64, name, driver, how):
    kw, reverse = MARKS[how]
    driver, (_, tolerance) = DRIVERS[driver]
    got = run(CELLS[name], *draw(CELLS[name]), kw, driver, reverse)
    assert far(got, reference(name, how)) <= tolerance * 100  # of sums of some hundred terms


@pytest.mark.parametrize(("name", "reverse"), [(name, i % 2 == 1) for i, name in enumerate(EVERY)])
def test_the_python_loop_equals_scan(x64, name, reverse):
    cell = EVERY[name]
    params, state, xs = draw(cell)
    go = functools.partial(unroll, cell, params, xs, state, reverse=reverse, **masks())
    assert far(go(driver=jaxrnn.Loop()), go(driver=Scan())) <= 1e-12


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, "marked_reverse") for name in COMPOSITES] + [("bidirectional", "marked"), ("learned", "plain")],
)
def test_composites_under_bptt_equal_scan(x64, name, how):
    kw, reverse = MARKS[how]
    got = run(COMPOSITES[name], *draw(COMPOSITES[name]), kw, BPTT(2), reverse)
    assert far(got, reference(name, how)) <= 1e-10


def on_a_line(cell, driver):
    """`total` as a function of one real vector, all params, state and inputs; a point, and a direction there."""
    leaves, form = jax.tree.flatten(draw(cell))
    parts = [(a.real, a.imag) if jnp.iscomplexobj(a) else (a,) for a in map(np.asarray, leaves)]
    point = np.concatenate([part.ravel() for pair in parts for part in pair])
    kw = masks()

    def f(vector):
        rest, made = vector, []
        for pair in parts:
            taken = [rest[i * pair[0].size : (i + 1) * pair[0].size].reshape(pair[0].shape) for i in range(len(pair))]
            rest = rest[len(pair) * pair[0].size :]
            made.append(jax.lax.complex(*taken) if len(pair) == 2 else taken[0])
        params, state, xs = jax.tree.unflatten(form, made)
        return total(*jaxrnn.unroll(cell, params, xs, state, driver=driver, **kw))

    return f, point, np.random.default_rng(1).standard_normal(point.shape)


def slope(f, point, along, eps=1e-6):
    """The derivative of every output of `f` along a direction, by a central difference."""
    return jax.tree.map(lambda a, b: (np.asarray(a) - b) / (2 * eps), f(point + eps * along), f(point - eps * along))


@pytest.mark.parametrize("name", CELLS)
def test_scan_against_finite_differences(x64, name):
    """The derivative along one direction, and the derivative of the whole gradient along it, forward over reverse."""
    f, point, along = on_a_line(CELLS[name], Scan())
    both = quick.jit(lambda v: jax.jvp(jax.value_and_grad(f), (v,), (along,)))
    (_, gradient), got = both(point)
    want = slope(lambda v: both(v)[0], point, along)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), got, want)
    np.testing.assert_allclose(gradient @ along, want[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["mine", "lru"])
def test_each_mode_over_each(x64, name):
    f, point, along = on_a_line(CELLS[name], Scan())
    push = lambda f: lambda v: jax.jvp(f, (v,), (along,))[1]
    pull = lambda f: lambda v: jnp.vdot(jax.grad(f)(v), along)
    modes = quick.jit(lambda v: (pull(push(f))(v), push(push(f))(v), pull(pull(f))(v), push(pull(f))(v)))
    *others, want = modes(point)  # `want` was compared with finite differences
    np.testing.assert_allclose(others, [want] * 3, rtol=1e-8)


def test_hessian_goes_through_bptt(x64):
    cell = CELLS["lstm"]
    params, state, xs = draw(cell)
    f = lambda b, driver: total(*jaxrnn.unroll(cell, params._replace(b=b), xs, state, driver=driver))
    by_scan, by_bptt = (
        quick.jit(jax.jacrev(jax.grad(functools.partial(f, driver=d))))(params.b) for d in (Scan(), BPTT(2))
    )
    assert far(by_scan, by_bptt) < 1e-10


def test_forward_mode_is_for_scan():
    cell = CELLS["elman"]
    params, state, xs = draw(cell)
    kw = masks()
    push = lambda driver: jax.jvp(lambda x: jaxrnn.unroll(cell, params, x, state, driver=driver, **kw)[1], (xs,), (xs,))
    assert far(push(Scan()), push(jaxrnn.Loop())) < 1e-5


FORWARD = {
    "jvp": lambda f, x: jax.jvp(f, (x,), (x,)),
    "linearize": lambda f, x: jax.linearize(f, x)[1](x),
    "jacfwd": lambda f, x: jax.jacfwd(f)(x),
    "in a jit": lambda f, x: jax.jit(lambda x: jax.jvp(f, (x,), (x,)))(x),
    "of a vmap": lambda f, x: jax.jvp(jax.vmap(f), (x[None],), (x[None],)),
    "hessian": lambda f, x: jax.hessian(f)(x),
}


REVERSE_ONLY = [("gru", None), ("gru", jaxrnn.Native()), ("gru", jaxrnn.Newton())]
REVERSE_ONLY += [("min_gru", jaxrnn.Associative()), ("min_gru", jaxrnn.Native())]


@pytest.mark.parametrize(
    ("name", "driver", "mode"),
    [("gru", BPTT(), mode) for mode in FORWARD]
    + [(*pair, mode) for pair in REVERSE_ONLY for mode in ("jvp", "of a vmap", "hessian")],
    ids=str,
)
def test_where_there_is_no_forward_mode_the_error_names_the_driver_that_has_one(name, driver, mode):
    cell = CELLS[name]
    params, _, xs = draw(cell, time=9, batch=())
    f = lambda x: (jaxrnn.unroll(cell, params, x, driver=driver)[1] ** 2).sum()
    if mode == "hessian" and isinstance(driver, BPTT):
        assert far(FORWARD[mode](f, xs), jax.jacrev(jax.grad(f))(xs)) < 1e-4
    else:
        with pytest.raises(TypeError, match=r"need driver=jaxrnn.Scan\(\).*supports reverse mode only"):
            FORWARD[mode](f, xs)


def test_no_steps_give_back_the_state(x64):
    for cell in EVERY.values():
        params, state, xs = draw(cell)
        (_, (final, ys)), grads = run(cell, params, state, xs[:0], {})
        assert far(final, state) == 0
        assert {y.shape[0] for y in jax.tree.leaves(ys)} == {0}
        assert jax.tree.structure(grads[0]) == jax.tree.structure(params)


@pytest.mark.parametrize("driver", [Scan(hoist=2), BPTT()])
def test_a_named_driver_never_falls_back(driver):
    cell = CELLS["reset_before"]
    params, state, xs = draw(cell)
    with pytest.raises(ValueError, match=r"needs a GatedCell.*Use Scan\(\)"):
        jaxrnn.unroll(cell, params, xs, state, driver=driver)


@pytest.mark.optimised
def test_memory_of_a_gradient():
    """LSTM T=512 B=32 I=64 H=128, in arrays of (T, B, H): BPTT at most 5, Scan in chunks at most 3."""
    cell = jaxrnn.LSTM(128)
    params = jax.eval_shape(lambda k: cell.init(k, 64), jax.random.key(0))
    xs = jax.ShapeDtypeStruct((512, 32, 64), jnp.float32)

    def arrays(driver):
        grad = jax.grad(lambda p, x: jnp.square(jaxrnn.unroll(cell, p, x, driver=driver)[1]).sum(), (0, 1))
        return jax.jit(grad).lower(params, xs).compile().memory_analysis().temp_size_in_bytes / (512 * 32 * 128 * 4)

    assert arrays(BPTT()) <= 5
    assert arrays(Scan(remat=jaxrnn.Remat())) <= 3
    assert arrays(Scan()) > 10
