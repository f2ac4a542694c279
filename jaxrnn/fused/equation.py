"""A cell's step between two matmuls, as functions that a kernel traces into itself: of flat lists of tiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal, jaxprs_in_params

from ..cell import GatedCell, Params, State
from ..drivers.terms import merge
from ..recurrence import Dense, Heads
from ..wrap import Delegate

ELEMENTWISE = frozenset(
    [
        "abs",
        "add",
        "add_any",
        "and",
        "cbrt",
        "ceil",
        "clamp",
        "convert_element_type",
        "copy",
        "cos",
        "div",
        "eq",
        "erf",
        "exp",
        "exp2",
        "expm1",
        "floor",
        "ge",
        "gt",
        "integer_pow",
        "is_finite",
        "le",
        "log",
        "log1p",
        "logistic",
        "lt",
        "max",
        "min",
        "mul",
        "ne",
        "neg",
        "not",
        "or",
        "pow",
        "round",
        "rsqrt",
        "select_n",
        "sign",
        "sin",
        "sqrt",
        "square",
        "stop_gradient",
        "sub",
        "tan",
        "tanh",
        "broadcast_in_dim",
        "jit",
        "pjit",
        "custom_jvp_call",
        "custom_vjp_call",
    ]
)
"""The operations whose result at one unit of one row depends on that unit of that row alone."""

Tiles = list[jax.Array]  # (rows, units), all equal, float32


@dataclasses.dataclass(frozen=True)
class Equation:
    """What a step does besides its matmul. Every array is a tile: some rows of the batch by some of the units.

    A mark, `valid` or `fresh`, is a tile of booleans or None; `local` are params of the gate, tiles (1, units).

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

    def enter(self, s: Tiles, fresh: Any, initial: Tiles) -> Tiles:
        """Begin anew where a step is marked fresh."""
        return s if fresh is None else [jnp.where(fresh, i, a) for a, i in zip(s, initial, strict=True)]

    def read(self, s: Tiles) -> jax.Array:
        """Take what the recurrent weights see."""
        return self.cell.read(jax.tree.unflatten(self.state, s))

    def step(self, s: Tiles, u: Tiles, v: Tiles, local: Tiles, valid: Any) -> Tiles:
        """Go from the state that the step enters with to the one that it leaves with."""
        return self._leave(s, jax.tree.unflatten(self.u, u), tuple(v), local, valid)

    def pull(self, s: Tiles, terms: Tiles, local: Tiles, valid: Any, ds: Tiles) -> tuple[Tiles, Tiles, Tiles]:
        """Pull ds back through `step`: to the state that it entered with, the terms and the local params."""

        def step(s: Tiles, terms: Tiles, local: Tiles) -> Tiles:
            merged = jax.tree.unflatten(self.terms, terms)
            return self._leave(s, merged.u, merged.as_v(), local, valid)

        wide = [jnp.broadcast_to(l, s[0].shape) for l in local]
        return _inlined(lambda s, terms, local, ds: jax.vjp(step, s, terms, local)[1](ds), s, terms, wide, ds)

    def pull_read(self, s: Tiles, dr: jax.Array) -> Tiles:
        """Pull dr back through `read`."""
        return _inlined(lambda s, dr: jax.vjp(self.read, s)[1](dr)[0], s, dr)

    @property
    def count(self) -> int:
        """The number of merged terms."""
        return int(self.terms.num_leaves)

    def of_v(self) -> list[int]:
        """Say which of the merged terms hold the cotangents of v."""
        return list(jax.tree.unflatten(self.terms, list(range(self.count))).of_v())

    def _leave(self, s: Tiles, u: Any, v: Any, local: Tiles, valid: Any) -> Tiles:
        old = jax.tree.unflatten(self.state, s)
        new = jax.tree.leaves(self.cell.advance(jax.tree.unflatten(self.local, local), old, u, v))
        return new if valid is None else [jnp.where(valid, n, o) for n, o in zip(new, s, strict=True)]


def recurrence_of(cell: GatedCell) -> Any:
    """Give the recurrence of the cell that does the work."""
    while isinstance(cell, Delegate):
        cell = cell.cell
    return cell.recurrence if type(cell).recur is GatedCell.recur else None


def equation(cell: GatedCell, params: Params, state: State, u: Any, v: tuple[Any, ...]) -> Equation:
    """Make the equation of a cell whose gate is elementwise; raise ValueError, with the reason, for another."""
    if not isinstance(recurrence_of(cell), Dense | Heads):
        raise ValueError(f"takes dense recurrent weights or heads; got {cell}")
    local = cell.local(params)
    for leaf in jax.tree.leaves((state, u, v, local)):
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.dtype.itemsize > 4:
            raise ValueError(f"reckons in float32 or narrower; got {leaf.dtype} in a state, a param or an input")
    tile = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    tiles = lambda tree: jax.tree.map(lambda _: tile, tree)
    try:
        form = jax.eval_shape(lambda *a: merge(cell, *a), *map(tiles, (local, state, u, v)))
        forms = map(jax.tree.structure, (state, u, local, form))
        equation = Equation(cell, *forms)
        made = lambda tree: [tile] * len(jax.tree.leaves(tree))
        step = lambda s, u, v, local: (equation.read(s), equation.step(s, u, v, local, None))
        jaxpr = jax.make_jaxpr(step)(made(state), made(u), made(v), made(local))
    except (TypeError, ValueError) as error:
        raise ValueError(f"hands the gate some units at a time, which {cell} does not take ({error})") from error
    if jaxpr.consts or (odd := _odd(jaxpr.jaxpr, tile.shape)):
        raise ValueError(
            f"needs an elementwise gate; that of {cell} has {odd if not jaxpr.consts else 'an array in it'}"
        )
    return equation


def _odd(jaxpr: Any, shape: tuple[int, ...]) -> str | None:
    """Name an operation that mixes units, if there is one."""
    for step in jaxpr.eqns:
        if step.primitive.name not in ELEMENTWISE or any(v.aval.shape not in ((), shape) for v in step.outvars):
            return f"`{step.primitive.name}`"
        for inner in jaxprs_in_params(step.params):
            if odd := _odd(inner, shape):
                return odd
    return None


def _inlined(function: Callable[..., Any], *args: Any) -> Any:
    """Call `function` with its `add_any`, which no kernel knows, as an `add`."""
    jaxpr, form = jax.make_jaxpr(function, return_shape=True)(*args)
    out = _evaluate(jaxpr.jaxpr, jaxpr.consts, jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(form), out)


def _evaluate(jaxpr: Any, consts: Any, args: Any) -> list[Any]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    read = lambda atom: atom.val if isinstance(atom, Literal) else values[atom]
    for step in jaxpr.eqns:
        inputs, name = list(map(read, step.invars)), step.primitive.name
        if name in ("jit", "pjit", "custom_jvp_call"):
            inner = step.params["jaxpr" if "jit" in name else "call_jaxpr"]
            outputs = _evaluate(inner.jaxpr, inner.consts, inputs)
        elif name == "add_any":
            outputs = [jnp.add(*inputs)]
        else:
            outputs = step.primitive.bind(*inputs, **step.params)
            outputs = outputs if step.primitive.multiple_results else [outputs]
        values.update(zip(step.outvars, outputs, strict=True))
    return list(map(read, jaxpr.outvars))


def blocks(w_h: jax.Array) -> jax.Array:
    """Give dense weights (H, G, H), or those of heads, as blocks (N, K, G, K)."""
    return w_h[None] if w_h.ndim == 3 else w_h
