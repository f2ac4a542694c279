"""Lengths, resets, splits and steps: one rule, whatever runs over time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import BPTT, GRU, LSTM, Associative, DiagonalJacobian, Elman, Loop, Newton, Remat, Scan

from .. import quick
from .table import (
    CELLS,
    COMPOSITES,
    DRIVERS,
    B,
    H,
    T,
    draw,
    far,
    initial_state,
    masks,
    run_optimised,
    same_bits,
    unroll,
)

POISONS = (np.nan, np.inf, -1e30)
ROWS = [
    ("lstm", "scan"),
    ("lstm", "bptt_chunks"),
    ("gru", "scan_hoist"),
    ("mine", "bptt_chunks"),
    ("projected", "scan_chunks"),
    *[(name, "bptt_chunks") for name in COMPOSITES],
]


def fill_padding(xs, lengths, value):
    inside = (np.arange(len(xs))[:, None] < np.asarray(lengths))[..., None]
    return jnp.asarray(np.where(inside, xs, np.asarray(value, xs.dtype)))


EACH = [(*row, i % 2 == 1) for i, row in enumerate(ROWS)]  # with a direction


@pytest.mark.optimised
@pytest.mark.parametrize(
    ("name", "driver", "reverse"), [row for row in EACH if row[0] not in ("stack", "bidirectional")]
)
def test_nothing_in_the_padding_changes_a_bit(name, driver, reverse):
    cell, driver = (CELLS | COMPOSITES)[name], DRIVERS[driver][0]
    params, state, xs = draw(cell)
    kw = masks()
    padding = ~(np.arange(T)[:, None] < np.asarray(kw["lengths"]))
    clean = run_optimised(cell, params, state, fill_padding(xs, kw["lengths"], 0.0), kw, driver, reverse)
    for poison in POISONS:
        got = run_optimised(cell, params, state, fill_padding(xs, kw["lengths"], poison), kw, driver, reverse)
        assert same_bits(got, clean)
    (_, (_, ys)), (_, _, dxs) = clean
    for a in jax.tree.leaves((ys, dxs)):
        assert not np.where(padding[..., None], a, 0).any()
    more = kw | {"resets": jnp.asarray(np.asarray(kw["resets"]) | padding)}
    assert same_bits(run_optimised(cell, params, state, xs, more, driver, reverse), clean)


@pytest.mark.parametrize(
    ("name", "driver", "reverse"), EACH + [(*row, not reverse) for *row, reverse in EACH if row[0] in COMPOSITES]
)
def test_state_at_length_n_is_the_run_on_n_steps(name, driver, reverse):
    cell, (driver, (tolerance, _)) = (CELLS | COMPOSITES)[name], DRIVERS[driver]
    params, state, xs = draw(cell)
    lengths = np.array([T, 0, 2])
    final, ys = unroll(cell, params, xs, state, lengths=lengths, reverse=reverse, driver=driver)
    pick = lambda tree, *at: jax.tree.map(lambda a: np.asarray(a)[at], tree)
    for n in (0, 2, T):
        alone, ys_alone = unroll(cell, params, xs[:n], state, reverse=reverse, driver=driver)
        row = lengths.tolist().index(n)
        assert far(pick(final, row), pick(alone, row)) <= max(tolerance * 10, 1e-6)
        whole = slice(n), row
        assert far(pick(ys, *whole), pick(ys_alone, *whole)) <= max(tolerance * 10, 1e-6)
    assert same_bits(pick(final, 1), pick(state, 1))


@pytest.mark.parametrize(("name", "driver"), [row for row in ROWS if row[0] not in ("bidirectional", "deep")])
def test_resets_cut_a_sequence_in_two(name, driver):
    """A reset at k is a reset start there, from the cell's own (nonzero, learned) initial state; backward too."""
    cell, (driver, (tolerance, _)) = (CELLS | COMPOSITES)[name], DRIVERS[driver]
    params, state, xs = draw(cell)
    k = 2
    resets = jnp.zeros((T, B), bool).at[k].set(True)
    own = initial_state(cell, params, (B,))
    go = functools.partial(unroll, cell, params, driver=driver)
    forward = go(xs, state, resets=resets)[1], go(xs[:k], state)[1], go(xs[k:], own)[1]
    backward = go(xs, state, resets=resets, reverse=True)[1], go(xs[:k], own, reverse=True)[1], None
    backward = (*backward[:2], go(xs[k:], state, reverse=True)[1])
    for whole, first, second in (forward, backward):
        joined = jax.tree.map(lambda a, b: np.concatenate([a, b]), first, second)
        assert far(whole, joined) <= max(tolerance * 10, 1e-6)


@pytest.mark.optimised
@pytest.mark.parametrize("cell", [Elman(H), LSTM(H), GRU(H)], ids=lambda c: type(c).__name__)
def test_every_split_and_single_steps_equal_the_whole_bit_for_bit(cell):
    time = 7
    params, state, xs = draw(cell, time=time)
    kw = masks(time=time)
    go = functools.partial(jaxrnn.unroll, cell, params, driver=Scan())
    whole = go(xs, state, **kw)
    for k in range(time + 1):
        middle, first = go(xs[:k], state, lengths=jnp.minimum(kw["lengths"], k), resets=kw["resets"][:k])
        left = jnp.maximum(kw["lengths"] - k, 0)
        final, second = go(xs[k:], middle, lengths=left, resets=kw["resets"][k:])
        assert same_bits((final, jnp.concatenate([first, second])), whole)
    step = jax.jit(cell.step)
    plain = go(xs, state)
    stepped, ys = state, []
    for x in xs:
        stepped, y = step(params, stepped, x)
        ys.append(y)
    assert same_bits((stepped, jnp.stack(ys)), plain)


@pytest.mark.parametrize("name", [*CELLS, "stack", "learned"])
def test_steps_equal_unroll(name):
    cell = (CELLS | COMPOSITES)[name]
    params, state, xs = draw(cell)
    final, ys = unroll(cell, params, xs, state)
    step = quick.jit(cell.step)
    for t, x in enumerate(xs):
        state, y = step(params, state, x)
        assert far(y, ys[t]) < 2e-6
    assert far(state, final) < 2e-6


@pytest.mark.parametrize("driver", [Scan(), BPTT(2)])
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_any_number_of_batch_axes(driver, batch):
    cell = CELLS["lstm"]
    params, state, xs = draw(cell, batch=batch)
    kw = {"resets": jnp.zeros((T, *batch), bool).at[1].set(True)}
    kw["lengths"] = jnp.full(batch, 4)
    final, ys = unroll(cell, params, xs, state, driver=driver, **kw)
    flat = lambda tree, lead: jax.tree.map(
        lambda a: a.reshape(*a.shape[:lead], -1, *a.shape[lead + len(batch) :]), tree
    )
    kw = {"resets": flat(kw["resets"], 1), "lengths": flat(kw["lengths"], 0)}
    final_flat, ys_flat = unroll(cell, params, flat(xs, 1), flat(state, 0), driver=driver, **kw)
    assert far(flat(final, 0), final_flat) < 2e-6
    assert far(flat(ys, 1), ys_flat) < 2e-6


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8])
def test_narrow_lengths_do_not_overflow(dtype):
    cell = Elman(H)
    params, _, xs = draw(cell, time=300, batch=(2,))
    _, ys = jaxrnn.unroll(cell, params, xs, lengths=jnp.array([100, 20], dtype))
    assert (ys != 0).any(-1).sum(0).tolist() == [100, 20]


@pytest.mark.parametrize("dtype", [bool, jnp.int32])
def test_bptt_takes_inputs_that_are_no_floats(dtype):
    cell = LSTM(H)
    params, state, xs = draw(cell)
    xs = (xs > 0).astype(dtype)
    grad = lambda driver: quick.jit(jax.grad(lambda p: jaxrnn.unroll(cell, p, xs, state, driver=driver)[1].sum()))(
        params
    )
    assert far(grad(BPTT(2)), grad(Scan())) < 1e-5


def test_arrays_of_the_host_are_taken_as_they_are_meant():
    cell = CELLS["lru"]
    params, _, xs = draw(cell)
    whole = np.round(np.asarray(xs) * 3)
    want = jaxrnn.unroll(cell, params, whole.astype(np.float32))
    for kind in (">f4", ">i8", np.longdouble, np.float16, np.int8):
        assert far(jaxrnn.unroll(cell, params, whole.astype(kind)), want) < 1e-6
    swapped = jax.tree.map(lambda a: np.asarray(a).astype(a.dtype.newbyteorder()), params)
    assert far(jaxrnn.unroll(cell, swapped, whole), want) < 1e-6


@pytest.mark.parametrize("kind", [np.float32, np.int32, ">i2"])
def test_resets_may_be_numbers(kind):
    cell = CELLS["gru"]
    params, state, xs = draw(cell)
    resets = np.asarray(masks()["resets"])
    want = jaxrnn.unroll(cell, params, xs, state, resets=resets)
    assert far(jaxrnn.unroll(cell, params, xs, state, resets=resets.astype(kind)), want) == 0
    assert far(jaxrnn.unroll(cell, params, xs, state, resets=jnp.asarray(resets, jnp.float32)), want) == 0


@pytest.mark.parametrize("driver", [Newton(), Newton(DiagonalJacobian()), Scan(remat=Remat()), BPTT(2)])
@pytest.mark.parametrize(("time", "rows"), [(0, 2), (3, 0)])
def test_no_steps_and_no_rows(driver, time, rows):
    cell = GRU(2)
    params, state, xs = draw(cell, time=time, batch=(rows,))
    loss = lambda params, xs: sum(
        a.sum() for a in jax.tree.leaves(jaxrnn.unroll(cell, params, xs, state, driver=driver))
    )
    value, (dparams, dxs) = quick.jit(jax.value_and_grad(loss, (0, 1)))(params, xs)
    assert float(value) == pytest.approx(float(state.sum()))
    assert dxs.shape == xs.shape
    assert far(dparams, jax.tree.map(jnp.zeros_like, params)) == 0


STRICT = [
    ("lstm", jaxrnn.Native()),
    ("layer_norm", BPTT(2)),
    ("gru", Newton()),
    ("sru", Associative(2)),
    ("reset_before", Loop()),
]


@pytest.mark.parametrize(("name", "driver"), STRICT)
def test_cells_broadcast_in_whatever_mode_the_caller_is(name, driver):
    cell = CELLS[name]
    params, state, xs = draw(cell)
    loss = lambda params: jaxrnn.unroll(cell, params, xs, state, driver=driver, **masks())[1].sum()
    want = quick.jit(jax.grad(loss))(params)
    with jax.numpy_rank_promotion("raise"):
        assert far(quick.jit(jax.grad(loss))(params), want) == 0
