"""Names of types. T time, B batch (any number of leading axes, `*batch`), D input features, H hidden units."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax

Key: TypeAlias = jax.Array
"""A key of `jax.random`, or an array of them."""

Params: TypeAlias = Any
"""A pytree of arrays, as `cell.init` draws it."""

State: TypeAlias = Any
"""A pytree of arrays, each (*batch, features)."""

Inputs: TypeAlias = Any
"""An array (*batch, D), over time (T, *batch, D), or a pytree of such arrays."""

Output: TypeAlias = Any
"""An array (*batch, H), over time (T, *batch, H), or a pytree of such arrays."""

Context: TypeAlias = Any
"""A pytree of arrays that are constant over time."""

Projected: TypeAlias = Any
"""What `project` returns: a pytree of arrays (..., H), by default a tuple of G of them."""
