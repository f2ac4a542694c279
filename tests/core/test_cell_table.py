"""docs/cells.md has every public cell, and its kinds and drivers are those of the drivers' own checks."""

import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

import jaxrnn
from jaxrnn import GRUD, AffineCell, DiagonalJacobian, FullJacobian, GatedCell, GRUDInputs, MatrixCell, Newton
from jaxrnn._drivers.linearized import Steps
from jaxrnn._drivers.native import unsupported_reason
from jaxrnn._kernels.pallas.equation import equation

from .table import CELLS, MORE_CELLS, B, D, H

PAGE = (pathlib.Path(__file__).parents[2] / "docs/cells.md").read_text()
ROWS = {row[0].strip("`"): row[1:] for row in (re.split(r" *\| *", line)[1:-1] for line in PAGE.splitlines()) if row}
ROWS = {name: row for name, row in ROWS.items() if name[:1].isupper()}
INSTANCES = {type(cell).__name__: cell for cell in [*MORE_CELLS.values(), *CELLS.values()][::-1]} | {"GRUD": GRUD(H)}
FIELDS = {name: getattr(getattr(jaxrnn, name), "__dataclass_fields__", {}) for name in dir(jaxrnn)}
PUBLIC = {name for name, fields in FIELDS.items() if {"hidden", "heads"} & fields.keys()} - {"Heads", "MatrixCell"}


def accepts(check):
    """Return whether `check` raises no ValueError."""
    try:
        check()
    except ValueError:
        return False
    return True


def drivers(cell):
    """Return the drivers that take a cell, next to `Loop` and `Scan`, by their own checks."""
    array = jax.ShapeDtypeStruct((B, D), jnp.float32)
    x = GRUDInputs(array, array, array) if isinstance(cell, GRUD) else array
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), D))
    state = jax.eval_shape(lambda params: cell.initial_state(params, (B,)), params)
    dtypes = ({leaf.dtype for leaf in jax.tree.leaves(tree)} for tree in (params, state))
    gated = isinstance(cell, GatedCell)
    parts = ((cell.project, x), (cell.recur, state)) if gated else ()
    shapes = [jax.eval_shape(part, params, each) for part, each in parts]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)
    newton = lambda jacobian: accepts(lambda: Steps.of(cell, zeros, jacobian, Newton(jacobian)))
    takes = {
        "BPTT": gated,
        "Native": unsupported_reason(cell, *dtypes) is None,
        "Fused": gated and accepts(lambda: equation(cell, params, state, *shapes)),
        "Associative": isinstance(cell, AffineCell),
        "Chunkwise": isinstance(cell, MatrixCell),
        "Newton": newton(FullJacobian()),
        "diagonal": newton(DiagonalJacobian()),
    }
    return [name for name, does in takes.items() if does]


def test_every_public_cell_has_a_row():
    assert set(ROWS) == PUBLIC
    assert set(INSTANCES) >= PUBLIC


@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_the_truth(name):
    equation_, paper, kind, listed = ROWS[name]
    cell = INSTANCES[name]
    assert equation_
    assert "](https://" in paper
    kinds = {"gated": GatedCell, "affine": AffineCell, "matrix": MatrixCell, "plain": object}
    assert kind == next(name for name, base in kinds.items() if isinstance(cell, base))
    assert listed.split(", ") == drivers(cell)
