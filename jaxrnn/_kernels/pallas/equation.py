"""The step of a cell without its matmul, as functions of flat lists of tiles that a kernel traces into itself.

The rule on lengths and resets of `jaxrnn._core.masks` is written again here for tiles, for speed:
`tests/core/test_fused.py::test_equals_scan_in_value_and_gradient` holds the two equal.
"""

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
PRIMITIVES = """abs add add_any and broadcast_in_dim clamp convert_element_type copy cos div eq exp exp2 expm1 ge gt
integer_pow le log log1p logistic lt max min mul ne neg one_minus_square rsqrt select_n sign sin sqrt square
stop_gradient sub tanh"""
ELEMENTWISE = frozenset([*PRIMITIVES.split(), *CALLS])
"""The elementwise operations that kernels support, and calls of them."""

Tiles = list[jax.Array]  # (rows, units), all of the same shape, float32


@dataclasses.dataclass(frozen=True)
class Equation:
    """The step of a cell without its matmul. Every array is a tile: some rows of the batch by some of the units.

    A mask, `valid` or `reset`, is a tile of booleans or None; `local` are params of the gate, tiles (1, units).

    Attributes:
        cell: the cell.
        state: the tree structure of its state.
        u: the structure of its input preactivations.
        local: the structure of the params of the gate.
        preactivations: the structure of its `Preactivations`.
    """

    cell: GatedCell
    state: Any
    u: Any
    local: Any
    preactivations: Any

    def apply_reset(self, s: Tiles, reset: Any, reset_state: Tiles) -> Tiles:
        """Return the state that a step starts from: `reset_state` where it is reset."""
        return s if reset is None else [jnp.where(reset, i, a) for a, i in zip(s, reset_state, strict=True)]

    def read(self, s: Tiles) -> jax.Array:
        """Return what the recurrent weights are applied to."""
        r: jax.Array = _inlined(self._read, s)
        return r

    def step(self, s: Tiles, u: Tiles, v: Tiles, local: Tiles, valid: Any) -> Tiles:
        """Return the state after a step from the state before it."""
        step = lambda s, u, v, local: self._advance(s, jax.tree.unflatten(self.u, u), tuple(v), local, valid)
        new: Tiles = _inlined(step, s, u, v, local)
        return new

    def linearize(self, s: Tiles, preactivations: Tiles, local: Tiles) -> Any:
        """Linearize a step at s: return a tree of tiles, the residuals of `step_vjp` and `read_vjp`."""

        def step(s: Tiles, preactivations: Tiles, local: Tiles) -> Tiles:
            merged = jax.tree.unflatten(self.preactivations, preactivations)
            return self._advance(s, merged.u, merged.recurrent_inputs(), local, None)

        wide = [jnp.broadcast_to(l, s[0].shape) for l in local]
        both = lambda s, preactivations, local: (jax.vjp(step, s, preactivations, local)[1], jax.vjp(self._read, s)[1])
        return _inlined(both, s, preactivations, wide)

    def step_vjp(self, linear: Any, valid: Any, ds: Tiles) -> tuple[Tiles, Tiles, Tiles]:
        """Return the cotangents of the state before `step`, of the preactivations and of the local params."""
        before, *more = _inlined(lambda vjp, ds: vjp(ds), linear[0], ds)
        if valid is None:
            return before, *more
        dpreactivations, dlocal = ([jnp.where(valid, d, 0.0) for d in tiles] for tiles in more)
        return [jnp.where(valid, b, d) for b, d in zip(before, ds, strict=True)], dpreactivations, dlocal

    def read_vjp(self, linear: Any, dr: jax.Array) -> Tiles:
        """Return the cotangent of the state for dr, that of `read`."""
        ds: Tiles = _inlined(lambda vjp, dr: vjp(dr)[0], linear[1], dr)
        return ds

    def reset_vjp(self, ds: Tiles, reset: Any, dreset_state: Tiles) -> tuple[Tiles, Tiles]:
        """Return the cotangent of the state before `apply_reset`, and the sum of the cotangents of the reset state."""
        if reset is None:
            return ds, dreset_state
        dreset_state = [jnp.where(reset, i + d, i) for i, d in zip(dreset_state, ds, strict=True)]
        return [jnp.where(reset, 0.0, d) for d in ds], dreset_state

    @property
    def num_preactivations(self) -> int:
        """Return the number of arrays of `Preactivations`."""
        return int(self.preactivations.num_leaves)

    def recurrent_cotangents(self) -> list[int]:
        """Return which arrays of `Preactivations` hold the cotangents of v."""
        return list(
            jax.tree.unflatten(self.preactivations, list(range(self.num_preactivations))).recurrent_cotangents()
        )

    def _read(self, s: Tiles) -> jax.Array:
        return self.cell.read(jax.tree.unflatten(self.state, s))

    def _advance(self, s: Tiles, u: Any, v: Any, local: Tiles, valid: Any) -> Tiles:
        old = jax.tree.unflatten(self.state, s)
        new = jax.tree.leaves(self.cell.advance(jax.tree.unflatten(self.local, local), old, u, v))
        return new if valid is None else [jnp.where(valid, n, o) for n, o in zip(new, s, strict=True)]


def recurrence_of(cell: GatedCell) -> Any:
    """Return the recurrence of the innermost cell; None if it overrides `recur`."""
    while isinstance(cell, WrappedGatedCell):
        cell = cell.cell
    return cell.recurrence if type(cell).recur is GatedCell.recur else None


def equation(cell: GatedCell, params: Params, state: State, u: Any, v: tuple[Any, ...]) -> Equation:
    """Build the equation of a cell with an elementwise gate, from shapes.

    Raises:
        ValueError: for another cell; the message is the end of a sentence.
    """
    if type(recurrence_of(cell)) not in (Dense, Heads):
        raise ValueError(f"takes Dense() recurrent weights or Heads(n), and no overridden `recur`; got {cell}")
    local = jax.eval_shape(cell.local, params)
    _check_leaves(cell, (state, u, v), local)
    tile = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    tiles = lambda tree: jax.tree.map(lambda _: tile, tree)
    made = lambda tree: [tile] * len(jax.tree.leaves(tree))
    try:
        treedef = jax.eval_shape(functools.partial(merge_preactivations, cell), *map(tiles, (local, state, u, v)))
        equation = Equation(cell, *map(jax.tree.structure, (state, u, local, treedef)))
        step = lambda s, u, v, local: (equation.read(s), equation.step(s, u, v, local, None))

        def backward_step(s: Tiles, merged: Tiles, local: Tiles, dr: jax.Array) -> Any:
            linear = equation.linearize(s, merged, local)
            return equation.step_vjp(linear, None, s), equation.read_vjp(linear, dr)

        forward = jax.make_jaxpr(step)(*map(made, (state, u, v, local)))
        backward = jax.make_jaxpr(backward_step)(*map(made, (state, treedef, local)), tile)
    except (TypeError, ValueError, IndexError, AssertionError) as error:
        raise ValueError(f"calls the gate with some of the units, which {cell} does not accept ({error})") from error
    for jaxpr in (forward, backward):
        if any(const.shape for const in jaxpr.consts):
            raise ValueError(f"cannot pass the constant array in the gate of {cell}: draw it in `init_local`")
        if unsupported := _unsupported(jaxpr.jaxpr, tile.shape):
            raise ValueError(
                f"needs an elementwise gate of operations that kernels support; that of {cell} has `{unsupported}`"
            )
    return equation


def _check_leaves(cell: GatedCell, by_unit: Any, local: Any) -> None:
    """Raise ValueError unless every leaf is floating with one number a unit (a param of the gate may be a scalar)."""
    for leaf in jax.tree.leaves((by_unit, local)):
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.dtype.itemsize > 4:
            raise ValueError(f"computes in float32 or narrower; got {leaf.dtype} in a state, a param or an input")
    for leaf in jax.tree.leaves(by_unit):
        if leaf.shape[-1:] != (cell.hidden,):
            raise ValueError(
                f"takes states and preactivations of {cell.hidden} units; {cell} has one of shape {leaf.shape}"
            )
    for leaf in jax.tree.leaves(local):
        if leaf.shape not in ((), (1,), (cell.hidden,)):
            raise ValueError(f"takes params of the gate of shape ({cell.hidden},); {cell} has one of {leaf.shape}")


def _unsupported(jaxpr: Any, shape: tuple[int, ...]) -> str | None:
    """Return the name of an operation that mixes units or that kernels do not support; None if there is none."""
    for step in jaxpr.eqns:
        if step.primitive.name not in ELEMENTWISE or any(v.aval.shape not in ((), shape) for v in step.outvars):
            return str(step.primitive.name)
        for inner in jaxprs_in_params(step.params):
            if unsupported := _unsupported(inner, shape):
                return unsupported
    return None


def _inlined(function: Callable[..., Any], *args: Any) -> Any:
    """Call `function` without a mesh, in operations that kernels support: see `_evaluate`."""
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
        jaxpr, treedef = jax.make_jaxpr(function, return_shape=True)(*args)
    out = _evaluate(jaxpr.jaxpr, jaxpr.consts, jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(treedef), out)


REWRITTEN: dict[str, Callable[..., Any]] = {
    "add_any": jnp.add,
    "copy": lambda x: x,
    "stop_gradient": lambda x: x,
    "reshard": lambda x, **_: x,
    "log1p": lambda x, **_: jnp.log(1 + x),  # absolute error 6e-8, as for expm1
    "expm1": lambda x, **_: jnp.exp(x) - 1,
    "one_minus_square": lambda x: 1 - x * x,
    "integer_pow": lambda x, y: x**y if y >= 0 else 1 / x**-y,
}
"""Replacements for operations that kernels lack, at least in some versions of jax."""


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
            params = step.params | ({"sharding": None} if "sharding" in step.params else {})
            outputs = step.primitive.bind(*inputs, **params)
            outputs = outputs if step.primitive.multiple_results else [outputs]
        values.update(zip(step.outvars, outputs, strict=True))
    return list(map(read, jaxpr.outvars))


def wide(tiles: Any) -> Tiles:
    """Return tiles in float32."""
    return [tile.astype(jnp.float32) for tile in tiles]


def plus(a: Tiles, b: Tiles) -> Tiles:
    """Return a + b."""
    return [x + y for x, y in zip(a, b, strict=True)]


def added(ds: Tiles, more: Any) -> Tiles:
    """Return ds + more, where None stands for zero."""
    return [d if m is None else d + m.astype(d.dtype) for d, m in zip(ds, more, strict=True)]


def blocks(w_h: jax.Array) -> jax.Array:
    """Return dense weights (H, G, H), or those of heads, as blocks (N, K, G, K)."""
    return w_h[None] if w_h.ndim == 3 else w_h
