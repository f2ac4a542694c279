"""`vmap` over rows: each row by itself, as under `Scan` row after row, in the memory of a batch axis."""

import functools

import jax
import jax.numpy as jnp
import pytest

import jaxrnn
from jaxrnn import BPTT, LSTM, Associative, DiagonalJacobian, Fused, Native, Newton, Scan

from .. import quick
from .table import CELLS, COMPOSITES, draw, far, masks, total

ROWS, BATCH = 3, (2,)
NEWTON = Newton(fallback=None)
RUNS = [
    ("gru", Scan()),
    ("lstm", None),
    ("lstm", BPTT(2, keep_gates=True, hoist=2)),
    ("lstm", Native()),
    ("elman", NEWTON),
    ("min_gru", Associative()),
    ("bidirectional", BPTT(2)),
]
AXES = {"state": 0, "xs": 1, "lengths": 0, "resets": 1}
"""The axis of the rows; a batch axis follows."""


def rows_of(cell):
    """Return params, and the other arguments with a row axis."""
    params, state, xs = draw(cell, batch=(ROWS, *BATCH))
    return params, {"state": state, "xs": xs, **masks(batch=(ROWS, *BATCH))}


def loss_of(cell, driver):
    """Return a function of params and the arguments of one row."""
    return lambda params, rows: total(*jaxrnn.unroll(cell, params, driver=driver, **rows))


def by_vmap(f, axes):
    """Return `f(params, rows)` for every row."""
    return lambda params, rows: jax.vmap(f, (None, axes))(params, rows)


def one_by_one(f, axes):
    """Return `f(params, rows)` for every row, one after the other."""

    def each(params, rows):
        front = lambda key: jax.tree.map(lambda a: jnp.moveaxis(a, axes[key], 0), rows[key])
        moved = {key: front(key) for key, axis in axes.items() if axis is not None}
        return jax.lax.map(lambda row: f(params, rows | row), moved)

    return each


TRANSFORMS = {
    "the gradient of vmap": lambda f, over: jax.grad(
        lambda p, rows: over(f, AXES)(p, rows).sum(), (0, 1), allow_int=True
    ),
    "vmap of the gradient": lambda f, over: over(jax.grad(f), AXES),
    "vmap twice": lambda f, over: jax.grad(lambda p, rows: over(over(f, AXES), AXES)(p, rows).sum()),
}


@functools.partial(quick.jit, static_argnames=("cell", "driver", "over"))
def transformed(cell, driver, over, params, rows):
    """Return the result of every transform."""
    f = loss_of(cell, driver)
    results = {name: transform(f, over)(params, rows) for name, transform in TRANSFORMS.items()}
    numbers = lambda tree: jax.tree.map(lambda a: None if a.dtype == jax.dtypes.float0 else a, tree)
    return jax.tree.map(numbers, results)


@pytest.mark.parametrize(("name", "driver"), RUNS, ids=str)
def test_transforms_equal_those_row_after_row(name, driver):
    cell = (CELLS | COMPOSITES)[name]
    params, rows = rows_of(cell)
    got = transformed(cell, driver, by_vmap, params, rows)
    assert far(got, transformed(cell, Scan(), one_by_one, params, rows)) < 2e-4


PARTLY = [
    ("lstm", BPTT(2), "state"),
    ("min_gru", None, "lengths"),
    ("min_gru", Native(), "state"),
    ("reset_before", NEWTON, "xs"),
]


@pytest.mark.parametrize(("name", "driver", "mapped"), PARTLY, ids=str)
def test_arrays_that_are_not_mapped_are_shared(name, driver, mapped):
    cell = CELLS[name]
    params, rows = rows_of(cell)
    first = lambda key: jax.tree.map(lambda a: a.take(0, AXES[key]), rows[key])
    rows = {key: rows[key] if key == mapped else first(key) for key in rows}
    axes = {key: AXES[key] if key == mapped else None for key in rows}
    grads = lambda driver, over: jax.grad(lambda p, rows: over(loss_of(cell, driver), axes)(p, rows).sum())
    want = quick.jit(grads(Scan(), one_by_one))(params, rows)
    assert far(quick.jit(grads(driver, by_vmap))(params, rows), want) < 2e-4


MEMORY = [
    *((driver, False) for driver in (BPTT(), BPTT(keep_gates=True), Fused(interpret=True), Newton(DiagonalJacobian()))),
    *((driver, resets) for driver in (Scan(), Native()) for resets in (False, True)),
]


@pytest.mark.optimised
@pytest.mark.parametrize(("driver", "resets"), MEMORY, ids=str)
def test_a_gradient_takes_the_memory_of_a_batch_axis(driver, resets):
    """16 rows: a gradient of the weights for every row would be 16 times as large."""
    cell = LSTM(32)
    params, _, xs = draw(cell, batch=(16,))
    kw = {"resets": masks(batch=(16,))["resets"]} if resets else {}
    loss = lambda p, xs, kw: (jaxrnn.unroll(cell, p, xs, driver=driver, **kw)[1] ** 2).sum()
    by_rows = lambda p, xs, kw: jax.vmap(functools.partial(loss, p), 1)(xs, kw).sum()
    temporary = lambda f: jax.jit(jax.grad(f)).lower(params, xs, kw).compile().memory_analysis().temp_size_in_bytes
    assert temporary(by_rows) <= 1.2 * temporary(loss)


def test_vmap_of_jit_keeps_the_precision_of_matmuls():
    """A default that is set inside the function, which is traced again when it is mapped."""
    cell = LSTM(4)
    params, xs = cell.init(jax.random.key(0), 3), jnp.ones((5, 2, 3))

    @jax.jit
    def exact(xs):
        with jax.default_matmul_precision("highest"):
            return jaxrnn.unroll(cell, params, xs, driver=BPTT())[1]

    found = [str(jax.make_jaxpr(f)(x)).count("HIGHEST") for f, x in ((exact, xs), (jax.vmap(exact), xs[None]))]
    assert found[0] == found[1] > 0
