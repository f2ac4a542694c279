"""What a step's gates are made of, u and v, in as few arrays as the cell's equation allows."""

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
from .types import State


@functools.partial(jax.tree_util.register_dataclass, data_fields=("u", "v"), meta_fields=("pairs",))
@dataclasses.dataclass(frozen=True)
class Preactivations:
    """u and v, in the dtype of the state; where the two only ever meet as u_j + v_k, u_j is that sum and v_k is None.

    So an LSTM has G arrays in place of 2 G. A `Preactivations` of cotangents has the same form: the sum's cotangent is both's.

    Attributes:
        u: the input terms, as the cell's `project` gives them.
        v: the recurrent terms; None for those that u holds.
        pairs: for each of v, the leaf of u that holds it; None for those that stand alone.
    """

    u: Any
    v: tuple[Any, ...]
    pairs: tuple[int | None, ...]

    def recurrent_inputs(self) -> tuple[jax.Array, ...]:
        """Give v for a transition: zero where u holds the sum."""
        u = jax.tree.leaves(self.u)
        return tuple(v if j is None else jnp.zeros_like(u[j]) for v, j in zip(self.v, self.pairs, strict=True))

    def recurrent_cotangents(self) -> tuple[jax.Array, ...]:
        """Give the cotangents of v: the sum's where u holds it."""
        u = jax.tree.leaves(self.u)
        return tuple(v if j is None else u[j] for v, j in zip(self.v, self.pairs, strict=True))


def merge_preactivations(cell: GatedCell, local: Any, s: State, u: Any, v: tuple[jax.Array, ...]) -> Preactivations:
    """Give the terms of one step of `cell` from s_{t-1}, u_t and v_t."""
    local, u, v = cast((local, u, v), float_dtype(s))
    pairs = _pairs(cell, local, s, u, v)
    leaves, form = jax.tree.flatten(u)
    for v_k, j in zip(v, pairs, strict=True):
        if j is not None:
            leaves[j] = leaves[j] + v_k
    alone = tuple(v_k if j is None else None for v_k, j in zip(v, pairs, strict=True))
    return Preactivations(jax.tree.unflatten(form, leaves), alone, pairs)


def _pairs(cell: GatedCell, local: Any, s: State, u: Any, v: tuple[jax.Array, ...]) -> tuple[int | None, ...]:
    """Read the equation: for each of v, the leaf of u that it is added to, where that is the only use of both."""
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
        met = not isinstance(other, Literal) and other in places and len(uses[other]) == 1
        return places[other] if met and other.aval.shape == var.aval.shape else None

    return tuple(partner(var) for var in vs)
