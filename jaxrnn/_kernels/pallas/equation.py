"""A cell's step between two matmuls, as functions that a kernel traces into itself: of flat lists of tiles."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal, jaxprs_in_params

from ..._core.cell import GatedCell
from ..._core.preactivations import merge_preactivations
from ..._core.recurrence import Dense, Heads
from ..._core.types import Params, State
from ..._core.wrapped_cell import WrappedGatedCell

CALLS = ("jit", "pjit", "custom_jvp_call", "custom_vjp_call")
KNOWN = """abs add add_any and broadcast_in_dim clamp convert_element_type copy cos div eq exp exp2 expm1 ge gt
integer_pow le log log1p logistic lt max min mul ne neg one_minus_square rsqrt select_n sign sin sqrt square
stop_gradient sub tanh"""
ELEMENTWISE = frozenset([*KNOWN.split(), *CALLS])
"""What kernels know of operations whose result at one unit of one row depends on that unit of that row alone."""

Tiles = list[jax.Array]  # (rows, units), all equal, float32


@dataclasses.dataclass(frozen=True)
class Equation:
    """What a step does besides its matmul. Every array is a tile: some rows of the batch by some of the units.

    A mark, `valid` or `reset`, is a tile of booleans or None; `local` are params of the gate, tiles (1, units).

    Attributes:
        cell: whose gate it is.
        state: the structure of its state.
        u: of its input terms.
        local: of the gate's own params.
        terms: of both terms, merged where the gate only adds them.
    """

    cell: GatedCell
    state: Any
    u: Any
    local: Any
    terms: Any

    def apply_reset(self, s: Tiles, reset: Any, initial: Tiles) -> Tiles:
        """Begin anew where a step is marked reset."""
        return s if reset is None else [jnp.where(reset, i, a) for a, i in zip(s, initial, strict=True)]

    def read(self, s: Tiles) -> jax.Array:
        """Take what the recurrent weights see."""
        return _inlined(self._read, s)

    def step(self, s: Tiles, u: Tiles, v: Tiles, local: Tiles, valid: Any) -> Tiles:
        """Go from the state that the step enters with to the one that it leaves with."""
        step = lambda s, u, v, local: self._leave(s, jax.tree.unflatten(self.u, u), tuple(v), local, valid)
        return _inlined(step, s, u, v, local)

    def linearise(self, s: Tiles, terms: Tiles, local: Tiles) -> Any:
        """Look at a step from s: a tree of tiles, all that `pull` and `pull_read` need of it."""

        def step(s: Tiles, terms: Tiles, local: Tiles) -> Tiles:
            merged = jax.tree.unflatten(self.terms, terms)
            return self._leave(s, merged.u, merged.recurrent_inputs(), local, None)

        wide = [jnp.broadcast_to(l, s[0].shape) for l in local]
        both = lambda s, terms, local: (jax.vjp(step, s, terms, local)[1], jax.vjp(self._read, s)[1])
        return _inlined(both, s, terms, wide)

    def pull(self, linear: Any, valid: Any, ds: Tiles) -> tuple[Tiles, Tiles, Tiles]:
        """Pull ds back through `step`: to the state that it entered with, the terms and the local params."""
        before, *more = _inlined(lambda pull, ds: pull(ds), linear[0], ds)
        if valid is None:
            return before, *more
        dterms, dlocal = ([jnp.where(valid, d, 0.0) for d in tiles] for tiles in more)
        return [jnp.where(valid, b, d) for b, d in zip(before, ds, strict=True)], dterms, dlocal

    def pull_read(self, linear: Any, dr: jax.Array) -> Tiles:
        """Pull dr back through `read`."""
        return _inlined(lambda pull, dr: pull(dr)[0], linear[1], dr)

    def begun(self, ds: Tiles, reset: Any, dinitial: Tiles) -> tuple[Tiles, Tiles]:
        """Pull ds back through `enter`, adding to the gradient for the initial state."""
        if reset is None:
            return ds, dinitial
        dinitial = [jnp.where(reset, i + d, i) for i, d in zip(dinitial, ds, strict=True)]
        return [jnp.where(reset, 0.0, d) for d in ds], dinitial

    @property
    def count(self) -> int:
        """The number of merged terms."""
        return int(self.terms.num_leaves)

    def recurrent_cotangents(self) -> list[int]:
        """Say which of the merged terms hold the cotangents of v."""
        return list(jax.tree.unflatten(self.terms, list(range(self.count))).recurrent_cotangents())

    def _read(self, s: Tiles) -> jax.Array:
        return self.cell.read(jax.tree.unflatten(self.state, s))

    def _leave(self, s: Tiles, u: Any, v: Any, local: Tiles, valid: Any) -> Tiles:
        old = jax.tree.unflatten(self.state, s)
        new = jax.tree.leaves(self.cell.advance(jax.tree.unflatten(self.local, local), old, u, v))
        return new if valid is None else [jnp.where(valid, n, o) for n, o in zip(new, s, strict=True)]


def recurrence_of(cell: GatedCell) -> Any:
    """Give the recurrence of the cell that does the work; None where it has its own."""
    while isinstance(cell, WrappedGatedCell):
        cell = cell.cell
    return cell.recurrence if type(cell).recur is GatedCell.recur else None


def equation(cell: GatedCell, params: Params, state: State, u: Any, v: tuple[Any, ...]) -> Equation:
    """Make the equation of a cell whose gate is elementwise, from shapes.

    Raises:
        ValueError: for another cell; it says why, as the end of a sentence.
    """
    if type(recurrence_of(cell)) not in (Dense, Heads):
        raise ValueError(f"takes Dense() recurrent weights or Heads(n), and no `recur` of a cell's own; got {cell}")
    local = jax.eval_shape(cell.local, params)
    _check_leaves(cell, (state, u, v), local)
    tile = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    tiles = lambda tree: jax.tree.map(lambda _: tile, tree)
    made = lambda tree: [tile] * len(jax.tree.leaves(tree))
    try:
        form = jax.eval_shape(functools.partial(merge_preactivations, cell), *map(tiles, (local, state, u, v)))
        equation = Equation(cell, *map(jax.tree.structure, (state, u, local, form)))
        step = lambda s, u, v, local: (equation.read(s), equation.step(s, u, v, local, None))

        def pull(s: Tiles, merged: Tiles, local: Tiles, dr: jax.Array) -> Any:
            linear = equation.linearise(s, merged, local)
            return equation.pull(linear, None, s), equation.pull_read(linear, dr)

        there = jax.make_jaxpr(step)(*map(made, (state, u, v, local)))
        back = jax.make_jaxpr(pull)(*map(made, (state, form, local)), tile)
    except (TypeError, ValueError, IndexError, AssertionError) as error:
        raise ValueError(f"hands the gate some units at a time, which {cell} does not take ({error})") from error
    for jaxpr in (there, back):
        if any(const.shape for const in jaxpr.consts):
            raise ValueError(f"has no place for the array in the gate of {cell}: draw it in `init_local`")
        if odd := _odd(jaxpr.jaxpr, tile.shape):
            raise ValueError(f"needs an elementwise gate, of operations that kernels know; that of {cell} has `{odd}`")
    return equation


def _check_leaves(cell: GatedCell, by_unit: Any, local: Any) -> None:
    """Raise ValueError unless every leaf is floating, and has a number a unit (of the gate's own params, or one)."""
    for leaf in jax.tree.leaves((by_unit, local)):
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.dtype.itemsize > 4:
            raise ValueError(f"reckons in float32 or narrower; got {leaf.dtype} in a state, a param or an input")
    for leaf in jax.tree.leaves(by_unit):
        if leaf.shape[-1:] != (cell.hidden,):
            raise ValueError(f"takes states and terms of {cell.hidden} units; {cell} has one of shape {leaf.shape}")
    for leaf in jax.tree.leaves(local):
        if leaf.shape not in ((), (1,), (cell.hidden,)):
            raise ValueError(f"takes params of the gate of shape ({cell.hidden},); {cell} has one of {leaf.shape}")


def _odd(jaxpr: Any, shape: tuple[int, ...]) -> str | None:
    """Name an operation that mixes units, or that kernels do not know, if there is one."""
    for step in jaxpr.eqns:
        if step.primitive.name not in ELEMENTWISE or any(v.aval.shape not in ((), shape) for v in step.outvars):
            return str(step.primitive.name)
        for inner in jaxprs_in_params(step.params):
            if odd := _odd(inner, shape):
                return odd
    return None


def _inlined(function: Callable[..., Any], *args: Any) -> Any:
    """Call `function` in operations that kernels know: see `_evaluate`. It knows of no mesh."""
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
        jaxpr, form = jax.make_jaxpr(function, return_shape=True)(*args)
    out = _evaluate(jaxpr.jaxpr, jaxpr.consts, jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(form), out)


REWRITTEN: dict[str, Callable[..., Any]] = {
    "add_any": jnp.add,
    "copy": lambda x: x,
    "stop_gradient": lambda x: x,
    "reshard": lambda x, **_: x,
    "log1p": lambda x, **_: jnp.log(1 + x),  # to 6e-8, absolute, as expm1 is
    "expm1": lambda x, **_: jnp.exp(x) - 1,
    "one_minus_square": lambda x: 1 - x * x,
    "integer_pow": lambda x, y: x**y if y >= 0 else 1 / x**-y,
}
"""What a kernel has no operation for, or not in all versions."""


def _evaluate(jaxpr: Any, consts: Any, args: Any) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    read = lambda atom: atom.val if isinstance(atom, Literal) else values[atom]
    for step in jaxpr.eqns:
        inputs, name = list(map(read, step.invars)), step.primitive.name
        if name in CALLS:
            inner = step.params["jaxpr" if "jit" in name else "call_jaxpr"]
            outputs = _evaluate(inner.jaxpr, inner.consts, inputs)
        elif name in REWRITTEN:
            outputs = [REWRITTEN[name](*inputs, **step.params)]
        else:
            how = step.params | ({"sharding": None} if "sharding" in step.params else {})
            outputs = step.primitive.bind(*inputs, **how)
            outputs = outputs if step.primitive.multiple_results else [outputs]
        values.update(zip(step.outvars, outputs, strict=True))
    return list(map(read, jaxpr.outvars))


def wide(tiles: Any) -> Tiles:
    """Give tiles in float32."""
    return [tile.astype(jnp.float32) for tile in tiles]


def plus(a: Tiles, b: Tiles) -> Tiles:
    """a + b."""
    return [x + y for x, y in zip(a, b, strict=True)]


def added(ds: Tiles, more: Any) -> Tiles:
    """Add what there is of gradients (None is zero)."""
    return [d if m is None else d + m.astype(d.dtype) for d, m in zip(ds, more, strict=True)]


def blocks(w_h: jax.Array) -> jax.Array:
    """Give dense weights (H, G, H), or those of heads, as blocks (N, K, G, K)."""
    return w_h[None] if w_h.ndim == 3 else w_h
