"""Masked steps, and steps before a reset, take no part in what comes after them, in value and gradient."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import BPTT, Associative, Bidirectional, Chunkwise, Fused, LearnedState, Loop, Native, Newton, Remat, Scan

from .. import quick
from .table import CELLS, H, draw, far, total, unroll

DRIVERS = [
    ("reset_before", Scan()),
    ("lru", Scan(remat=Remat(2))),
    ("mine", Scan(hoist=3)),
    ("gru", Loop()),
    ("mine", BPTT(3)),
    ("lstm", BPTT(2, keep_gates=True, hoist=2)),
    ("lstm", Native()),
    ("gru", Native()),
    ("min_lstm", Native()),
    ("lru", Associative()),
    ("sru", Associative(2)),
    ("kda", Chunkwise(3)),
    ("mlstm", Chunkwise()),
    ("peephole", Fused(interpret=True)),
    ("elman", Newton(fallback=None)),
]
EACH = [(*pair, i % 2 == 0) for i, pair in enumerate(DRIVERS)]  # with a direction
TIME = 8


@pytest.mark.parametrize(("name", "driver", "reverse"), EACH, ids=str)
def test_a_mask_leaves_out_steps(name, driver, reverse):
    """As if the steps were not there: gaps and padding on either side, resets within gaps, NaN in what is masked."""
    cell = CELLS[name]
    params, state, xs = draw(cell, time=TIME, batch=(4,))
    rng = np.random.default_rng(1)
    mask = rng.random((TIME, 4)) < 0.6
    mask[:3, 0], mask[5:, 1], mask[:, 2] = False, False, False
    resets = rng.random((TIME, 4)) < 0.3
    resets[4, 0] = True
    dirty = jnp.where(mask[..., None], xs, jnp.nan)
    final, ys = unroll(cell, params, dirty, state, mask=mask, resets=resets, reverse=reverse, driver=driver)
    assert not np.where(mask[..., None], 0, ys).any()
    for row in range(4):
        steps = np.flatnonzero(mask[:, row])
        since = [0, *(steps + 1)][: len(steps)]
        between = np.array([resets[a : b + 1, row].any() for a, b in zip(since, steps, strict=True)], bool)
        one = jax.tree.map(lambda a: a[row], state)
        alone, ys_alone = unroll(cell, params, xs[steps, row], one, resets=between, reverse=reverse, driver=Scan())
        assert far(jax.tree.map(lambda a: a[row], final), alone) < 2e-5
        assert far(ys[steps, row], ys_alone) < 2e-5


def test_a_mask_beside_lengths_under_both_directions():
    cell = Bidirectional(LearnedState(CELLS["gru"]))
    params, _, xs = draw(cell, time=TIME, batch=(2,))
    lengths = np.array([TIME, 5])
    inside = np.arange(TIME)[:, None] < lengths
    mask = np.ones((TIME, 2), bool)
    mask[2] = False
    both = unroll(cell, params, xs, lengths=lengths, mask=mask)
    assert far(both, unroll(cell, params, xs, mask=mask & inside)) == 0
    assert far(unroll(cell, params, xs, lengths=lengths), unroll(cell, params, xs, mask=inside)) == 0


@dataclasses.dataclass(frozen=True)
class WithReadout(type(CELLS["elman"])):
    """An output with separate params, applied to states before a reset."""

    def output(self, params, s, x):
        return s * params.b[0] + x[..., :1]


@pytest.mark.parametrize(
    ("name", "driver", "reverse"),
    [(*pair, not reverse) for *pair, reverse in EACH] + [("readout", BPTT(2), True), ("lstm", None, False)],
    ids=str,
)
def test_nothing_before_a_reset_reaches_a_gradient_after_it(name, driver, reverse):
    """NaN in inputs and in the state handed in: the gradient is that of the steps after the reset by themselves."""
    cell = WithReadout(H) if name == "readout" else CELLS[name]
    params, state, xs = draw(cell, time=TIME, batch=(2,))
    k = 3
    after = slice(None, TIME - k) if reverse else slice(k, None)
    resets = np.zeros((TIME, 2), bool)
    resets[TIME - k if reverse else k] = True
    dirty = np.array(xs)
    before = slice(TIME - k, None) if reverse else slice(k)
    dirty[before] = np.nan
    lost = jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), state)

    def loss(params, xs, state=None, **kw):
        final, ys = jaxrnn.unroll(cell, params, xs, state, driver=driver, reverse=reverse, **kw)
        return total(final, ys[after] if kw else ys)

    grad = quick.jit(jax.grad(loss, (0, 1)))
    if isinstance(driver, Newton):  # its residual sees every step: NaN in a row is no convergence
        dirty, lost = np.where(np.isnan(dirty), 1.0, dirty).astype(np.float32), state
    (dparams, dxs), (want, dxs_alone) = grad(params, dirty, lost, resets=resets), grad(params, xs[after])
    assert far(dparams, want) < 1e-3 * max(1.0, max(float(jnp.abs(a).max()) for a in jax.tree.leaves(want)))
    assert far(dxs[after], dxs_alone) < 1e-3
    assert not dxs[before].any()


def test_a_row_of_no_steps_takes_no_part_whatever_its_state_is():
    for name, driver in (("gru", Scan()), ("gru", BPTT(2)), ("gru", Native()), ("mlstm", Chunkwise())):
        cell = CELLS[name]
        params, state, xs = draw(cell, time=TIME, batch=(2,))
        state = jax.tree.map(lambda a: a.at[1].set(jnp.nan), state)
        f = lambda p, s: jaxrnn.unroll(cell, p, xs, s, lengths=np.array([TIME, 0]), driver=driver)[1].sum()
        assert jnp.isfinite(jax.grad(f)(params, state).w_x).all()


SECOND = [pair for pair in DRIVERS if not isinstance(pair[1], Newton | Loop)]  # Newton is of first order


@pytest.mark.parametrize(("name", "driver"), SECOND, ids=str)
def test_the_backward_pass_is_linear_in_cotangents_that_are_zero(name, driver):
    """The derivative by cotangents of zero is J v, as forward mode computes it through `Scan`."""
    cell = CELLS[name]
    params, state, xs = draw(cell, time=TIME, batch=(2,))
    resets = np.zeros((TIME, 2), bool)
    resets[3] = True

    def outputs(driver, xs):
        return jaxrnn.unroll(cell, params, xs, state, resets=resets, driver=driver)[1]

    along = jnp.sin(jnp.arange(xs.size, dtype=xs.dtype).reshape(xs.shape))
    want = quick.jit(lambda xs: jax.jvp(functools.partial(outputs, Scan()), (xs,), (along,))[1])(xs)

    def twice(xs):
        ys, pull = jax.vjp(functools.partial(outputs, driver), xs)
        return jax.vjp(lambda ct: pull(ct)[0], jnp.zeros_like(ys))[1](along)[0]

    assert far(quick.jit(twice)(xs), want) < 1e-4


@pytest.mark.parametrize(("name", "driver"), [("gru", BPTT(3)), ("lstm", Native()), ("reset_before", Scan())], ids=str)
def test_nothing_before_a_reset_reaches_a_second_gradient(name, driver):
    cell = CELLS[name]
    params, _, xs = draw(cell, time=TIME, batch=(1,))
    dirty, resets = np.array(xs), np.zeros((TIME, 1), bool)
    dirty[1], resets[3] = np.nan, True

    def second(xs, **kw):
        loss = lambda p: (jaxrnn.unroll(cell, p, xs, driver=driver, **kw)[1][-5:] ** 2).sum()
        return jax.grad(lambda p: sum((g**2).sum() for g in jax.tree.leaves(jax.grad(loss)(p))))(params)

    want = quick.jit(second)(xs[3:])
    scale = max(float(jnp.abs(a).max()) for a in jax.tree.leaves(want))
    assert far(quick.jit(functools.partial(second, resets=resets))(dirty), want) < 1e-4 * max(1.0, scale)


def test_resets_under_vmap_a_scan_and_second_order():
    cell = CELLS["reset_before"]
    params, state, xs = draw(cell, time=TIME, batch=(3,))
    resets = np.zeros((TIME, 3), bool)
    resets[2, 0] = resets[5, 1] = True
    f = functools.partial(jaxrnn.unroll, cell, driver=Scan())
    whole = lambda p: total(*f(p, xs, state, resets=resets))
    rows = jax.vmap(lambda p, x, s, r: f(p, x, s, resets=r), in_axes=(None, 1, 0, 1), out_axes=(0, 1))
    assert (
        far(
            quick.jit(jax.grad(lambda p: total(*rows(p, xs, state, resets))))(params),
            quick.jit(jax.grad(whole))(params),
        )
        < 1e-4
    )

    def in_a_scan(p):
        half = lambda a: jnp.reshape(a, (2, TIME // 2, *a.shape[1:]))
        final, ys = jax.lax.scan(lambda s, a: f(p, a[0], s, resets=a[1]), state, (half(xs), half(jnp.asarray(resets))))
        return total(final, ys.reshape(TIME, *ys.shape[2:]))

    assert far(quick.jit(jax.grad(in_a_scan))(params), quick.jit(jax.grad(whole))(params)) < 1e-4
    gradient = lambda b: jax.grad(lambda b: whole(params._replace(b=b)))(b)
    forward, reverse = quick.jit(jax.jacfwd(gradient))(params.b), quick.jit(jax.jacrev(gradient))(params.b)
    assert far(forward, reverse) < 1e-3
