"""The default driver: one table, each row of which cites what was measured."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._core.affine_cell import AffineCell
from ._core.cell import Cell, GatedCell
from ._core.checks import check_cell
from ._core.composite import Composite
from ._core.fields import count, show
from ._core.matrix_cell import MatrixCell
from ._drivers import BPTT, Associative, Chunkwise, Driver, Native, Scan
from ._drivers.native import unsupported_reason
from ._kernels.cpu import library

MIN_BPTT_STEPS = {"cpu": 8, "gpu": 32, "tpu": 32}
"""The least number of steps for `BPTT`. Untuned; on a GPU and a TPU it is taken for its memory."""

MIN_NATIVE_ROWS = 8
"""The least T * B for `Native` on a CPU: with fewer, packing weights costs more than it gains. Untuned."""

MIN_CHUNKWISE_STEPS = 8
"""The least number of steps for `Chunkwise`. Untuned."""


def select(
    cell: Any, xs_shape: tuple[Any, ...], dtype: Any, platform: str, state: Any = None, *, resets: bool = False
) -> Driver:
    """Return the driver that `unroll(driver=None)` takes for a cell.

    For a CPU it follows the results in `benchmarks/results` (docs/benchmarks.md); `MIN_NATIVE_ROWS` and
    `MIN_BPTT_STEPS` are untuned.

    Args:
        cell: a cell, not a composite: `unroll` asks for each innermost cell of a composite.
        xs_shape: (T, *batch, D).
        dtype: the dtype of the params; None if they differ, and for weights that are sharded over explicit axes, which
            no kernel takes.
        platform: "cpu", "gpu" or "tpu", or another that `jax.default_backend()` names.
        state: the state before the first step, or its shapes and dtypes; None for one in the dtype of the params.
        resets: whether the state is reset within the sequence, for which `Native` takes no `MatrixCell`.

    Returns:
        On a CPU `Native()` for the cells and dtypes that it takes, if its library was built, and `Associative()` for
        any other `AffineCell`. For any other `MatrixCell`, on any platform, `Chunkwise()` unless steps are few.
        Otherwise `Scan()` for a plain cell, a state with leaves that are not floating (such as counters), a symbolic T
        (`jax.export`) and few steps, and `BPTT` for the rest: on a CPU it keeps the gates, which is faster (an LSTM's
        gradient then keeps 7.7 arrays of (T, B, H), that of `Scan()` 14, of `BPTT()` 4.2), and projects inputs ahead
        where that pays; elsewhere it is `BPTT()`. `Native`, `Associative` and `BPTT` have no forward mode: for
        `jax.jvp` and `jax.jacfwd` name `Scan()`. `Fused()` is never chosen: name it on a Hopper GPU
        (docs/gpu.md); it takes fewer cells and sizes.

    >>> select(PeepholeLSTM(8), (100, 32, 4), jnp.bfloat16, "cpu")
    BPTT(chunk=32, keep_gates=True, hoist=0)
    >>> select(LSTM(8), (100, 32, 4), jnp.float32, "gpu")
    BPTT(chunk=32, keep_gates=False, hoist=0)
    >>> select(PeepholeLSTM(8), (4, 32, 4), jnp.bfloat16, "cpu")
    Scan(unroll=1, hoist=0, remat=None)
    """
    check_cell(cell, Cell, "select")
    if isinstance(cell, Composite):
        raise ValueError(
            f"select chooses for one cell, and `unroll` asks it for each cell of a composite; got {show(cell)}"
        )
    length, *batch, features = xs_shape = _shape(xs_shape)
    _check(dtype, platform, state)
    if not all(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(state)):
        return Scan()
    matrix = isinstance(cell, MatrixCell)
    if platform == "cpu" and not (matrix and resets) and _native(cell, xs_shape, dtype, state):
        return Native()
    if matrix:
        return Chunkwise() if isinstance(length, int) and length >= MIN_CHUNKWISE_STEPS else Scan()
    if platform == "cpu" and isinstance(cell, AffineCell) and isinstance(length, int) and length > 1:
        return Associative()
    if not isinstance(cell, GatedCell) or not isinstance(length, int) or length < MIN_BPTT_STEPS.get(platform, 32):
        return Scan()
    if platform != "cpu":
        return BPTT()
    rows = math.prod(batch)
    chunk = 128 if rows == 1 else 32
    return BPTT(chunk, keep_gates=True, hoist=chunk if _hoists(cell, rows, features) else 0)


def _shape(xs_shape: Any) -> tuple[Any, ...]:
    """Return the shape with ints for NumPy's; raise ValueError unless it is (T, *batch, D), symbolic or not."""
    sizes = xs_shape if isinstance(xs_shape, tuple | list) else ()
    if len(sizes) < 2 or any(isinstance(n, str | bool | float) or n is None for n in sizes):
        raise ValueError(f"xs_shape is (T, *batch, D), as xs.shape; got {xs_shape!r}")
    return tuple(count(n, "a size in xs_shape") if isinstance(n, int | np.integer) else n for n in sizes)


def _check(dtype: Any, platform: Any, state: Any) -> None:
    """Raise ValueError unless the other arguments of `select` are of their kinds."""
    known = (*MIN_BPTT_STEPS, jax.default_backend())
    if not isinstance(platform, str) or platform not in known:
        raise ValueError(f"platform is {', '.join(MIN_BPTT_STEPS)} or jax.default_backend(); got {platform!r}")
    leaves = jax.tree.leaves(state)
    if not all(hasattr(leaf, "dtype") for leaf in leaves):
        raise ValueError(f"state is the state before the first step, or its shapes and dtypes; got {state!r}")
    try:
        kind = jnp.float32 if dtype is None else jnp.dtype(dtype)
    except TypeError:
        kind = None
    floating = state is None or any(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves)
    if kind is None or (floating and not jnp.issubdtype(kind, jnp.inexact)):
        raise ValueError(f"dtype is that of params and state, such as jnp.float32, or None; got {dtype!r}")


def _native(cell: Any, xs_shape: tuple[Any, ...], dtype: Any, state: Any) -> bool:
    """Return whether the kernel takes the cell, and there is enough work for it."""
    if dtype is None or not all(isinstance(n, int) for n in xs_shape) or math.prod(xs_shape[:-1]) < MIN_NATIVE_ROWS:
        return False
    of_params = {jnp.dtype(dtype)}
    of_state = {jnp.dtype(leaf.dtype) for leaf in jax.tree.leaves(state)}
    return unsupported_reason(cell, of_params, of_state) is None and library.unavailable_reason() is None


def _hoists(cell: GatedCell, rows: Any, features: int) -> bool:
    """Return whether projecting a chunk of inputs at once pays on a CPU: one row, a large projection, or one feature.

    At (T, B, D, H) = (128, 1, 64, 64), (150, 16, 256, 256) and, with more than one gate, (784, 100, 1, 128) it is
    faster; at (128, 32, 64, 128) the difference is within the noise.
    """
    return rows == 1 or features >= cell.hidden or (features == 1 and cell.gates > 1)
