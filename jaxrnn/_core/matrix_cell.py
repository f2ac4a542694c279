"""Cells whose state is a matrix a head, which keys write and queries read.

T time, B batch (any number of leading axes), D input features, N heads, K key features, V value features.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from .broadcasting import broadcasting
from .checks import check_step
from .exportable import exportable
from .fields import Checked, check_init, convert, instance, size, size_or_none
from .hooks import forbid
from .initializers import GlorotOrthogonal, Initializer
from .projection import Projected, Projection
from .recurrence import an_initializer
from .trees import cast, cast_like, float_dtype
from .types import Inputs, Key, Output, Params

if TYPE_CHECKING:
    from jaxtyping import Array, Float

INSTEAD = (
    "override `update` for another state, `output` for another output; or write a plain cell (init, initial_state, "
    "step) that has this one as a field."
)


@exportable
class MatrixParams(NamedTuple):
    """The params of a matrix cell.

    Attributes:
        w_x: weights of the P features that `update` takes; () with `Packed()`.
        local: other params, as the cell defines them; () for none.
    """

    w_x: Float[Array, "D P"] | tuple[()]
    local: Params = ()


@exportable
class MatrixState(NamedTuple):
    """The state of a matrix cell: S = memory exp(log_scale).

    Attributes:
        memory: one matrix a head.
        log_scale: a common exponent of the numbers of a head; () for a cell whose writes have no `log_strength`.
    """

    memory: Float[Array, "*batch N K V"]
    log_scale: Float[Array, "*batch N"] | tuple[()] = ()


class MemoryUpdate(NamedTuple):
    """What one step, or every step of (T, *batch), does to a matrix memory.

    Attributes:
        query: what the memory is read with.
        key: the direction that is written, and erased.
        value: what is written.
        log_decay: log a, at most 0: one number a head, or one a key feature.
        erase: β, the share of what the memory returns for the key that is taken away; None for none.
        log_strength: log w, the strength of the write; None for w = 1. It takes one decay a head.
    """

    query: Float[Array, "*batch N K"]
    key: Float[Array, "*batch N K"]
    value: Float[Array, "*batch N V"]
    log_decay: Float[Array, "*batch N 1"] | Float[Array, "*batch N K"]
    erase: Float[Array, "*batch N"] | None = None
    log_strength: Float[Array, "*batch N"] | None = None


@dataclasses.dataclass(frozen=True)
class MatrixCell(metaclass=Checked):
    """S_t = (I - β_t k_t k_tᵀ) diag(a_t) S_{t-1} + w_t k_t v_tᵀ, read as o_t = S_tᵀ q_t, for each of N heads.

    A subclass is a frozen dataclass that defines `sizes`, the features that it needs of an input, and `update`, which
    makes of them queries, keys, values and decays for any leading axes, time among them. It inherits `init`, `step` and
    the drivers `Scan`, `Loop` and `Chunkwise`, and `Native` where it has one decay a head:

    >>> class FastWeights(MatrixCell):
    ...     def sizes(self): return self.keys, self.keys, self.values
    ...     def update(self, local, q, k, v):
    ...         q, k, v = map(self.split_heads, (q, k, v))
    ...         return MemoryUpdate(q, k, v, jnp.zeros_like(q[..., :1]))
    >>> cell = FastWeights(2, 3, value_dim=4)
    >>> params = cell.init(jax.random.key(0), in_dim=5)
    >>> state, y = cell.step(params, cell.initial_state(params, (7,)), jnp.ones((7, 5)))
    >>> state.memory.shape, y.shape
    ((7, 2, 3, 4), (7, 8))

    Args:
        heads: N.
        key_dim: K, the key features of a head.
        value_dim: V, the value features of a head; None for K.
        projection: how an input becomes the parts: `Projected()`, or `Packed()` for parts from a layer below.
        initializer: how the weights W_x are drawn.

    More methods have a default and may be overridden: `init_local` (other params), `output` (another y_t) and
    `initial_state`: where updates have a `log_strength` the state has a `log_scale`, `self.zeros(..., scaled=True)`.

    Reference: Schlag, Irie and Schmidhuber, "Linear transformers are secretly fast weight programmers", ICML 2021
    (https://arxiv.org/abs/2102.11174); Yang, Kautz and Hatamizadeh, "Gated delta networks", ICLR 2025, table 1
    (https://arxiv.org/abs/2412.06464).
    """

    heads: int
    key_dim: int
    _: dataclasses.KW_ONLY
    value_dim: int | None = None
    projection: Projection = Projected()
    initializer: Initializer = GlorotOrthogonal()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse what drivers would ignore."""
        super().__init_subclass__(**kwargs)
        for name in ("step", "advance"):
            forbid(cls, MatrixCell, name, INSTEAD)

    def __check_init__(self) -> None:
        """Check the sizes and the parts."""
        convert(self, heads=size, key_dim=size, value_dim=size_or_none, initializer=an_initializer)
        convert(self, projection=instance(Projection, "Projected() or Packed()"))
        if self.value_dim is None:
            object.__setattr__(self, "value_dim", self.key_dim)

    @abc.abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """Return the numbers of features of the parts that `update` takes."""

    @abc.abstractmethod
    def update(self, local: Params, *parts: jax.Array) -> MemoryUpdate:
        """Return what a step does to the memory, from parts (..., size) of the features. Any leading axes."""

    # Methods with a default.

    def init_local(self, key: Key) -> Params:
        """Draw the other params, stored as `params.local`. Empty here."""
        return ()

    def initial_state(self, params: MatrixParams, batch: tuple[int, ...] = ()) -> MatrixState:
        """Return S_0 = 0."""
        return self.zeros(params, batch)

    def output(self, local: Params, read: jax.Array, log_scale: Any, *parts: jax.Array) -> Output:
        """Return y_t (..., N V) from the parts and o_t = read exp(log_scale), (..., N, V). Any leading axes."""
        return self.merge_heads(read)

    # Methods that are the same for every matrix cell.

    @property
    def keys(self) -> int:
        """N K, the key features of all heads."""
        return self.heads * self.key_dim

    @property
    def values(self) -> int:
        """N V, the value features of all heads."""
        return self.heads * (self.value_dim or self.key_dim)

    def init(self, key: Key, in_dim: int) -> MatrixParams:
        """Draw the params for inputs of `in_dim` features."""
        return _draw(self, key, check_init(self, key, in_dim))

    def zeros(
        self, params: MatrixParams, batch: tuple[int, ...], *, columns: int = 0, scaled: bool = False
    ) -> MatrixState:
        """Return a state of zeros in the dtype of the params.

        Args:
            params: the params; None for the default float dtype.
            batch: the batch axes.
            columns: the number of value features, if not V.
            scaled: whether the state has a `log_scale`.
        """
        zeros = functools.partial(jnp.zeros, dtype=float_dtype(params))
        rows = (*batch, self.heads)
        memory = zeros((*rows, self.key_dim, columns or self.values // self.heads))
        return MatrixState(memory, zeros(rows) if scaled else ())

    def split_heads(self, part: jax.Array) -> jax.Array:
        """Return (..., N, F) for (..., N F)."""
        return part.reshape(*part.shape[:-1], self.heads, part.shape[-1] // self.heads)

    def merge_heads(self, read: jax.Array) -> jax.Array:
        """Return (..., N F) for (..., N, F)."""
        return read.reshape(*read.shape[:-2], math.prod(read.shape[-2:]))

    def parts(self, params: MatrixParams, x: jax.Array) -> list[jax.Array]:
        """Return the parts (..., size) of the features of x (..., D)."""
        features = self.projection(params.w_x, x)
        if features.shape[-1] != sum(self.sizes()) or not jnp.issubdtype(features.dtype, jnp.floating):
            raise ValueError(
                f"{self} takes the parts {self.sizes()} as floating features (..., {sum(self.sizes())}); got "
                f"{features.dtype} {features.shape}"
            )
        if (dtype := float_dtype(params)) is not None:
            features = features.astype(dtype)
        return jnp.split(features, [*itertools.accumulate(self.sizes())][:-1], axis=-1)

    def advance(self, state: MatrixState, update: MemoryUpdate) -> tuple[MatrixState, jax.Array]:
        """Return the state after one step and what the queries read of it (..., N, V), in the dtype of the state."""
        update = cast(update, float_dtype(state))
        update, log_scale = rescaled(update, state.log_scale)
        memory = jnp.exp(update.log_decay)[..., None] * state.memory
        written = update.value
        if update.erase is not None:
            written = written - update.erase[..., None] * jnp.einsum("...k,...kv->...v", update.key, memory)
        memory = memory + update.key[..., :, None] * written[..., None, :]
        return MatrixState(memory, log_scale), jnp.einsum("...k,...kv->...v", update.query, memory)

    @broadcasting
    def step(self, params: MatrixParams, state: MatrixState, x: Inputs) -> tuple[MatrixState, Output]:
        """Return (S_t, y_t) from S_{t-1} and x_t (*batch, D)."""
        check_step(self, params, state, x)
        parts = self.parts(params, x)
        new, read = self.advance(state, self.update(params.local, *parts))
        y = self.output(params.local, read, new.log_scale, *parts)
        return cast_like(new, state), y.astype(parts[0].dtype)


def rescaled(update: MemoryUpdate, log_scale: Any) -> tuple[MemoryUpdate, Any]:
    """Return the update of memory = S exp(-log_scale) in place of S, and the log_scale after the step.

    That is the larger of what decays and what is written, so neither overflows: max(log a + log_scale, log w).
    """
    if update.log_strength is None:
        return update, log_scale
    decayed = update.log_decay[..., 0] + need_log_scale(log_scale)
    new = jnp.maximum(decayed, update.log_strength)
    return write_scaled(update, decayed - new, update.log_strength - new), new


def need_log_scale(log_scale: Any) -> jax.Array:
    """Return the log_scale of a state; raise ValueError for ()."""
    if isinstance(log_scale, tuple):
        raise ValueError(
            "updates with a log_strength need a state with a log_scale: return self.zeros(params, batch, scaled=True) "
            "from initial_state"
        )
    scale: jax.Array = log_scale
    return scale


def write_scaled(update: MemoryUpdate, log_decay: jax.Array, log_strength: jax.Array) -> MemoryUpdate:
    """Return the update with another decay a head, and values multiplied by the strength."""
    value = jnp.exp(log_strength)[..., None] * update.value
    return update._replace(log_decay=log_decay[..., None], value=value, log_strength=None)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _draw(cell: MatrixCell, key: jax.Array, in_dim: int) -> MatrixParams:
    k_x, k_local = jax.random.split(key)
    return MatrixParams(cell.projection.init(k_x, cell.initializer, in_dim, cell.sizes()), cell.init_local(k_local))
