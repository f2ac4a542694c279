"""Embeddings: from ids to the inputs of the layers.

T time, B batch (any number of leading axes), N ids in a bag, V vocabulary, F features.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from .._core.fields import Checked, check_init_key, convert, size
from .._core.sharding import vary, varying, zeros_like
from .._core.trees import where
from .._core.types import Params

SMALL_LOOKUP = 512
"""Fewer ids than these, an utterance's, are looked up one after the other on a CPU, elsewhere all at once.

XLA:CPU adds up the rows of (16, 1, 16) ids in some 90 microseconds, in 40 one by one (trials that left no file).
"""


@runtime_checkable
class Embed(Protocol):
    """How ids become the inputs of the layers: a frozen value that holds no array."""

    @property
    def features(self) -> int:
        """F."""
        ...

    def init(self, key: jax.Array) -> Params:
        """Draw the params."""
        ...

    def __call__(self, params: Params, ids: Any, /) -> jax.Array:
        """Give (T, *batch, F), or (*batch, F) for the ids of one step."""
        ...


@dataclasses.dataclass(frozen=True)
class Embedding(metaclass=Checked):
    """A vector for every id: ids (T, *batch) to (T, *batch, F).

    An id that is not between 0 and V - 1 gives NaN, never another id's vector.

    Args:
        vocabulary: V, the number of ids.
        features: F.

    >>> embed = Embedding(100, 16)
    >>> embed(embed.init(jax.random.key(0)), jnp.zeros((7, 2), jnp.int32)).shape
    (7, 2, 16)
    """

    vocabulary: int
    features: int

    def __check_init__(self) -> None:
        """Check the sizes."""
        convert(self, vocabulary=size, features=size)

    def init(self, key: jax.Array) -> jax.Array:
        """Draw the table (V, F) from a normal distribution of variance 1 / F."""
        check_init_key(key)
        return jax.random.normal(key, (self.vocabulary, self.features)) * self.features**-0.5

    def __call__(self, table: jax.Array, ids: Any) -> jax.Array:
        """Look up ids (T, *batch), integers; raises ValueError for others."""
        return _rows(table, _integers(ids))


@dataclasses.dataclass(frozen=True)
class BagEmbedding(metaclass=Checked):
    """A vector for every bag of N ids, the mean of theirs: ids (T, *batch, N) to (T, *batch, F).

    Id 0 is nothing: it fills a bag up to N, counts for nothing and gets no gradient; a bag of nothing else is zero. It
    is the mean, not the sum, so that a token of many ids is as loud as a token of one.

    Args:
        vocabulary: V, the number of ids, 0 included.
        features: F.

    >>> embed = BagEmbedding(100, 16)
    >>> embed(embed.init(jax.random.key(0)), jnp.array([[[5, 7, 0]], [[9, 0, 0]]])).shape
    (2, 1, 16)
    """

    vocabulary: int
    features: int

    def __check_init__(self) -> None:
        """Check the sizes."""
        convert(self, vocabulary=size, features=size)

    def init(self, key: jax.Array) -> jax.Array:
        """Draw the table (V, F) from a normal distribution of variance 1 / F; row 0 is never used."""
        check_init_key(key)
        return jax.random.normal(key, (self.vocabulary, self.features)) * self.features**-0.5

    def __call__(self, table: jax.Array, ids: Any) -> jax.Array:
        """Look up ids (T, *batch, N), integers; raises ValueError for others."""
        ids = _integers(ids)
        if ids.ndim == 0:
            raise ValueError(
                "BagEmbedding takes bags of ids (*batch, N); got one id. Use Embedding, or ids[..., None]."
            )
        return _sum_of_bag(table, ids, self.weights(ids).astype(table.dtype))

    def weights(self, ids: jax.Array) -> jax.Array:
        """Say what each id of a bag counts, ids (*batch, N) to (*batch, N); what id 0 counts does not matter."""
        count = jnp.maximum((ids != 0).sum(axis=-1, keepdims=True), 1)
        return jnp.broadcast_to(1 / count, ids.shape)


def _integers(ids: Any) -> jax.Array:
    ids = jnp.asarray(ids)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"an embedding takes integer ids; got {ids.dtype} {ids.shape}")
    return ids


@jax.custom_vjp
def _sum_of_bag(table: jax.Array, ids: jax.Array, weights: jax.Array) -> jax.Array:
    """Add up the rows (V, F) that ids (*batch, N) name, 0 naming none, each times its weight (*batch, N).

    One id of every bag after the other: the rows of all ids, (*batch, N, F), would be written and read again, and a
    scatter of them all takes two to four times as long (B=128, N=8, V=19,550; a trial that left no file).
    """
    if all(isinstance(n, int) for n in ids.shape) and ids.size < SMALL_LOOKUP:
        at_once = lambda table, ids, weights: _weighted(table, ids, weights).sum(axis=-2)
        return jax.lax.platform_dependent(table, ids, weights, cpu=_one_by_one, default=at_once)

    def add(total: jax.Array, one: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + _weighted(table, *one), None

    first = _weighted(table, ids[..., 0], weights[..., 0])
    rest = jnp.moveaxis(ids[..., 1:], -1, 0), jnp.moveaxis(weights[..., 1:], -1, 0)
    return jax.lax.scan(add, first, rest)[0]


def _one_by_one(table: jax.Array, ids: jax.Array, weights: jax.Array) -> jax.Array:
    """Do the same, up to the last id of each bag that is not 0."""
    width, features = ids.shape[-1], table.shape[1]
    ends = jnp.where(ids != 0, jnp.arange(1, width + 1), 0).max(axis=-1)
    none = vary(jnp.zeros(features, table.dtype), varying((table, ids, weights)))

    def bag(_: None, one: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        ids, weights, end = one
        add = lambda k, total: total + _weighted(table, ids[k], weights[k])
        return None, jax.lax.fori_loop(0, end, add, none)

    rows = math.prod(ids.shape[:-1])
    bags = ids.reshape(rows, width), weights.reshape(rows, width), ends.reshape(rows)
    return jax.lax.scan(bag, None, bags)[1].reshape(*ids.shape[:-1], features)


def _weighted(table: jax.Array, ids: jax.Array, weights: jax.Array) -> jax.Array:
    rows = _rows(table, ids) * weights[..., None]
    return where(ids != 0, rows, jnp.zeros_like(rows))


def _sum_forward(table: jax.Array, ids: jax.Array, weights: jax.Array) -> tuple[jax.Array, Any]:
    return _sum_of_bag(table, ids, weights), (table, ids, weights)


def _sum_backward(residuals: Any, dsum: jax.Array) -> tuple[jax.Array, None, jax.Array]:
    table, ids, weights = residuals
    outside = jnp.where(ids == 0, len(table), ids)  # where nothing is added

    def add(dtable: jax.Array, one: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        ids, weights = one
        return dtable.at[ids].add(dsum * weights[..., None], mode="drop", wrap_negative_indices=False), None

    each = jnp.moveaxis(outside, -1, 0), jnp.moveaxis(weights, -1, 0)
    return jax.lax.scan(add, zeros_like(table), each)[0], None, jnp.zeros_like(weights)  # weights follow from ids


_sum_of_bag.defvjp(_sum_forward, _sum_backward)


def _rows(table: jax.Array, ids: jax.Array) -> jax.Array:
    return table.at[ids].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
