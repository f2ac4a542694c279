"""Embeddings: from ids to the inputs of the layers.

T time, B batch (any number of leading axes), N ids in a bag, V vocabulary, F features.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .._core.fields import Checked, check_init_key, convert, size
from .._core.sharding import vary, varying, zeros_like
from .._core.trees import where
from .._core.types import Key, Params

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

SMALL_LOOKUP = 512
"""The number of ids below which, on a CPU, bags are looked up id by id, as those of one utterance. Untuned."""


@runtime_checkable
class Embed(Protocol):
    """A map from ids to the inputs of the layers: a frozen value that holds no array."""

    @property
    def features(self) -> int:
        """F, the number of features."""
        ...

    def init(self, key: Key) -> Params:
        """Draw the params."""
        ...

    def __call__(self, params: Params, ids: ArrayLike, /) -> jax.Array:
        """Return (T, *batch, F), or (*batch, F) for the ids of one step."""
        ...


@dataclasses.dataclass(frozen=True)
class Embedding(metaclass=Checked):
    """A vector for every id: ids (T, *batch) to (T, *batch, F).

    An id outside 0 to V - 1 yields NaN, never the vector of another id.

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

    def init(self, key: Key) -> Float[Array, "V F"]:
        """Draw the table (V, F) from a normal distribution of variance 1 / F."""
        check_init_key(key)
        return jax.random.normal(key, (self.vocabulary, self.features)) * self.features**-0.5

    def __call__(self, table: Float[Array, "V F"], ids: Int[ArrayLike, ...]) -> Float[Array, "... F"]:
        """Return the vectors of ids (T, *batch); raise ValueError unless they are integers."""
        return _rows(table, _integers(ids))


@dataclasses.dataclass(frozen=True)
class BagEmbedding(metaclass=Checked):
    """A vector for every bag of N ids, the mean of their vectors: ids (T, *batch, N) to (T, *batch, F).

    Id 0 is padding: it fills a bag up to N, is left out of the mean and gets no gradient; a bag of padding alone is
    zero. The mean, not the sum, gives a token of many ids the same scale as a token of one.

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

    def init(self, key: Key) -> Float[Array, "V F"]:
        """Draw the table (V, F) from a normal distribution of variance 1 / F; row 0 is never used."""
        check_init_key(key)
        return jax.random.normal(key, (self.vocabulary, self.features)) * self.features**-0.5

    def __call__(self, table: Float[Array, "V F"], ids: Int[ArrayLike, "... N"]) -> Float[Array, "... F"]:
        """Return the vectors of bags of ids (T, *batch, N); raise ValueError unless they are integers."""
        ids = _integers(ids)
        if ids.ndim == 0:
            raise ValueError(
                "BagEmbedding takes bags of ids (*batch, N); got one id. Use Embedding, or ids[..., None]."
            )
        return _sum_of_bag(table, ids, self.weights(ids).astype(table.dtype))

    def weights(self, ids: jax.Array) -> jax.Array:
        """Return the weight of each id in a bag, (*batch, N) from ids (*batch, N); that of id 0 is ignored."""
        count = jnp.maximum((ids != 0).sum(axis=-1, keepdims=True), 1)
        return jnp.broadcast_to(1 / count, ids.shape)


def _integers(ids: ArrayLike) -> jax.Array:
    ids = jnp.asarray(ids)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(f"an embedding takes integer ids; got {ids.dtype} {ids.shape}")
    return ids


@jax.custom_vjp
def _sum_of_bag(table: jax.Array, ids: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the weighted sums of the rows of a table (V, F) for ids and weights (*batch, N); id 0 is left out.

    It adds one id of every bag after the other, so that the rows of all ids, (*batch, N, F), are never stored.
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
    """Return the same sums, each bag up to its last id that is not 0."""
    width, features = ids.shape[-1], table.shape[1]
    ends = jnp.where(ids != 0, jnp.arange(1, width + 1), 0).max(axis=-1)
    zeros = vary(jnp.zeros(features, table.dtype), varying((table, ids, weights)))

    def bag(_: None, one: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        ids, weights, end = one
        add = lambda k, total: total + _weighted(table, ids[k], weights[k])
        return None, jax.lax.fori_loop(0, end, add, zeros)

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
    outside = jnp.where(ids == 0, len(table), ids)  # dropped by the scatter

    def add(dtable: jax.Array, one: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        ids, weights = one
        return dtable.at[ids].add(dsum * weights[..., None], mode="drop", wrap_negative_indices=False), None

    each = jnp.moveaxis(outside, -1, 0), jnp.moveaxis(weights, -1, 0)
    return jax.lax.scan(add, zeros_like(table), each)[0], None, jnp.zeros_like(weights)  # weights follow from ids


_sum_of_bag.defvjp(_sum_forward, _sum_backward)


def _rows(table: jax.Array, ids: jax.Array) -> jax.Array:
    return table.at[ids].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
