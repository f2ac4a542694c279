"""The preactivations u and v of a step's gates, in as few arrays as the cell's equation allows."""

from __future__ import annotations

import collections
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from .cell import GatedCell
from .trees import cast, float_dtype
from .types import Inputs, Params, State


@functools.partial(jax.tree_util.register_dataclass, data_fields=("u", "v"), meta_fields=("pairs",))
@dataclasses.dataclass(frozen=True)
class Preactivations:
    """u and v, in the dtype of the state.

    Where an equation uses u_j and v_k only in the sum u_j + v_k, u_j is that sum and v_k is None: an LSTM has G arrays,
    not 2 G. Cotangents have the same form, for the cotangent of a sum is that of both summands.

    Attributes:
        u: x_t W_x + b, as returned by the cell's `project`, with v_k added where `pairs` says so.
        v: read(s_{t-1}) W_h; None for each v_k that is part of u.
        pairs: for each v_k, the index j of the leaf of u that it is added to, or None.
    """

    u: Inputs
    v: tuple[Any, ...]
    pairs: tuple[int | None, ...]

    def recurrent_inputs(self) -> tuple[jax.Array, ...]:
        """Return v for a transition, with zeros where u is the sum."""
        u = jax.tree.leaves(self.u)
        return tuple(v if j is None else jnp.zeros_like(u[j]) for v, j in zip(self.v, self.pairs, strict=True))

    def recurrent_cotangents(self) -> tuple[jax.Array, ...]:
        """Return the cotangents of v: those of the sum where u is the sum."""
        u = jax.tree.leaves(self.u)
        return tuple(v if j is None else u[j] for v, j in zip(self.v, self.pairs, strict=True))


def merge_preactivations(
    cell: GatedCell, local: Params, s: State, u: Inputs, v: tuple[jax.Array, ...]
) -> Preactivations:
    """Return the preactivations of one step of `cell` from s_{t-1}, u_t and v_t."""
    local, u, v = cast((local, u, v), float_dtype(s))
    pairs = _pairs(cell, local, s, u, v)
    leaves, form = jax.tree.flatten(u)
    for v_k, j in zip(v, pairs, strict=True):
        if j is not None:
            leaves[j] = leaves[j] + v_k
    rest = tuple(v_k if j is None else None for v_k, j in zip(v, pairs, strict=True))
    return Preactivations(jax.tree.unflatten(form, leaves), rest, pairs)


def _pairs(cell: GatedCell, local: Params, s: State, u: Inputs, v: tuple[jax.Array, ...]) -> tuple[int | None, ...]:
    """Return for each v_k the leaf of u that the cell's equation adds it to, where neither has another use, or None."""
    equation = jax.make_jaxpr(cell.advance)(local, s, u, v).jaxpr
    end = len(equation.invars)
    start = end - len(jax.tree.leaves(v))
    us, vs = equation.invars[start - len(jax.tree.leaves(u)) : start], equation.invars[start:]
    places = {var: j for j, var in enumerate(us)}
    uses = collections.defaultdict(list)
    for step in equation.eqns:
        for var in step.invars:
            if not isinstance(var, Literal):
                uses[var].append(step)
    for var in equation.outvars:
        if not isinstance(var, Literal):
            uses[var].append(None)

    def partner(var: Any) -> int | None:
        if len(uses[var]) != 1 or uses[var][0] is None or uses[var][0].primitive.name != "add":
            return None
        (other,) = [a for a in uses[var][0].invars if a is not var]
        paired = not isinstance(other, Literal) and other in places and len(uses[other]) == 1
        return places[other] if paired and other.aval.shape == var.aval.shape else None

    return tuple(partner(var) for var in vs)
