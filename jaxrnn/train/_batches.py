"""Batching by length: sequences are padded to a few lengths, so that training compiles once per length."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import ArrayLike

from .._core.checks import host_array
from .._pad import of_one_kind, side_by_side

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Shaped

AnyArray: TypeAlias = np.ndarray | jax.Array

Labels: TypeAlias = AnyArray | Sequence[ArrayLike]
"""One label per sequence, as an array or a sequence of numbers; or a sequence of arrays, one label per step."""

MAX_CANDIDATES = 512  # lengths among which the boundaries are searched; the search is quadratic in them


class Batch(NamedTuple):
    """A batch of padded sequences. The last batch of a group is filled with empty rows of weight 0.

    The arrays are those of NumPy, until `shard_batch` moves them to devices.

    Attributes:
        ids: (T, B, ...), zero in the padding: (T, B) ids, (T, B, N) bags of ids, (T, B, D) features.
        lengths: (B,) int32.
        labels: (B, ...), one per sequence; (T, B, ...), one per step, zero in the padding; or None.
        weights: (B,) float32, 1 or 0.
        rows: (B,) int32, the index of each row in the data; -1 for an empty row.
    """

    ids: Shaped[AnyArray, "T B ..."]
    lengths: Int[AnyArray, " B"]
    labels: AnyArray | None
    weights: Float[AnyArray, " B"]
    rows: Int[AnyArray, " B"]


def shard_batch(batch: Batch, mesh: Mesh, axis: str = "batch") -> Batch:
    """Return a batch as global arrays whose rows are sharded over an axis of a mesh.

    Over an epoch: `map(partial(shard_batch, mesh=mesh), batches)`. With several processes each passes its own share,
    of equal size, and the result is the batch of all of them.

    Args:
        batch: from `epoch_batches`; its rows are divided among the devices of this process along the axis.
        mesh: the devices of all processes, with automatic axes (an embedding takes no others).
        axis: the name of the axis.

    Raises:
        ValueError: if the rows cannot be divided among the devices.

    >>> from jax.sharding import AxisType
    >>> mesh = jax.make_mesh((len(jax.devices()),), ("batch",), axis_types=(AxisType.Auto,))
    >>> batch = next(epoch_batches([[1, 2]] * 8, [0] * 8, groups=LengthGroups((4,)), batch_size=8))
    >>> shard_batch(batch, mesh).ids.shape
    (4, 8)
    """
    rows = len(batch.lengths)

    def shard(array: AnyArray, each_step: bool) -> jax.Array:
        spec = PartitionSpec(None, axis) if each_step else PartitionSpec(axis)
        return jax.make_array_from_process_local_data(NamedSharding(mesh, spec), array)

    labels = batch.labels
    each_step = labels is not None and labels.shape[:2] == (len(batch.ids), rows) and labels.ndim > 1
    return Batch(
        shard(batch.ids, True),
        shard(batch.lengths, False),
        None if labels is None else shard(labels, each_step),
        shard(batch.weights, False),
        shard(batch.rows, False),
    )


@dataclasses.dataclass(frozen=True)
class LengthGroups:
    """The lengths to pad to: a sequence of n steps is padded to the smallest boundary that is at least n.

    Args:
        boundaries: ascending positive integers.

    >>> LengthGroups((4, 16)).of([3, 4, 5]).tolist()
    [0, 0, 1]
    """

    boundaries: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the boundaries."""
        if not isinstance(self.boundaries, tuple) or not all(isinstance(b, int | np.integer) for b in self.boundaries):
            raise TypeError(f"boundaries must be a tuple of integers; got {self.boundaries!r}")
        if not self.boundaries or self.boundaries[0] < 1 or list(self.boundaries) != sorted(set(self.boundaries)):
            raise ValueError(f"boundaries must be ascending positive integers, one or more; got {self.boundaries}")

    def of(self, lengths: Int[ArrayLike, " n"]) -> Int[np.ndarray, " n"]:
        """Return the index (n,) of the group of each length (n,).

        Raises:
            ValueError: for lengths that are no integers >= 0, or greater than the last boundary.
        """
        steps = _integers(lengths)
        if steps.size and steps.max() > self.boundaries[-1]:
            raise ValueError(
                f"a sequence of {steps.max()} steps is longer than the last boundary, {self.boundaries[-1]}. Truncate "
                "it, or add a boundary."
            )
        return np.searchsorted(self.boundaries, steps)


def length_groups(lengths: Int[ArrayLike, " n"], groups: int = 6) -> LengthGroups:
    """Return the lengths to pad to, at most `groups`, that minimize the padding.

    They are found by dynamic programming over the distinct lengths, or over 512 quantiles if there are more.

    Args:
        lengths: integers (n,), at least one.
        groups: the maximum number of groups; training compiles once for each.

    Raises:
        ValueError: for no lengths, lengths that are no integers >= 0, or groups < 1.

    >>> length_groups([3, 3, 4, 9, 10], groups=2)
    LengthGroups(boundaries=(4, 10))
    """
    steps = np.maximum(_integers(lengths), 1)
    if steps.size == 0 or not isinstance(groups, int | np.integer) or groups < 1:
        raise ValueError(f"length_groups needs lengths, and groups >= 1; got {steps.size} lengths, groups={groups}")
    ends = np.unique(steps)
    if ends.size > MAX_CANDIDATES:
        ends = np.unique(np.quantile(steps, np.linspace(0, 1, MAX_CANDIDATES), method="higher"))
    return LengthGroups(tuple(int(ends[j]) for j in _cheapest(_costs(np.sort(steps), ends), groups)))


def _costs(lengths: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return (m, m): the padded size of the group of lengths above end i - 1 up to end j; infinite for i > j."""
    upto = np.searchsorted(lengths, ends, side="right")
    before = np.concatenate([[0], upto[:-1]])
    sizes = ends * (upto - before[:, None]).astype(float)
    return np.where(np.tri(ends.size, k=-1, dtype=bool), np.inf, sizes)


def _cheapest(costs: np.ndarray, groups: int) -> list[int]:
    """Return the last index of each of at most `groups` intervals of 0 to m - 1 that have the lowest total cost."""
    count = len(costs)
    best = costs[0]  # lowest cost of 0 to j, in one interval
    cuts = []  # with one more interval each: the start of the interval that ends at j
    for _ in range(min(groups, count) - 1):
        totals = np.concatenate([[0.0], best[:-1]])[:, None] + costs
        cuts.append(totals.argmin(axis=0))
        best = totals.min(axis=0)
    ends = [count - 1]
    for cut in reversed(cuts):
        ends.append(int(cut[ends[-1]]) - 1)
        if ends[-1] < 0:
            break
    else:
        return ends[::-1]
    return ends[-2::-1]


def epoch_batches(
    sequences: Sequence[ArrayLike],
    labels: Labels | None = None,
    *,
    groups: LengthGroups,
    batch_size: int,
    rng: np.random.Generator | None = None,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Return an iterator over the batches of one epoch, each of one length group.

    Args:
        sequences: n arrays (T_i, ...) that differ in T_i alone: ids (T_i,), bags (T_i, N), features (T_i, D).
        labels: n numbers or an array (n, ...), one per sequence; a list of n arrays (T_i, ...), one per step; or None.
        groups: the lengths to pad to.
        batch_size: B, the same for every batch.
        rng: shuffles the rows within their groups, and the batches; None keeps the order. For training that resumes
            from checkpoints derive it from the epoch: `np.random.default_rng((seed, epoch))`.
        share: (i, n) keeps only the i-th of n equal parts of the rows of every batch, for the i-th of n processes:
            `(jax.process_index(), jax.process_count())`. All processes must use the same rng.

    Raises:
        TypeError: if groups is no `LengthGroups`, or rng no NumPy generator.
        ValueError: if sequences, labels and groups do not fit, or batch_size is no multiple of the shares.

    >>> batches = epoch_batches([[1, 2], [3], [4, 5, 6]], [0, 1, 1], groups=LengthGroups((2, 4)), batch_size=2)
    >>> [(batch.ids.shape, batch.lengths.tolist(), batch.weights.tolist()) for batch in batches]
    [((2, 2), [2, 1], [1.0, 1.0]), ((4, 2), [3, 0], [1.0, 0.0])]
    """
    arrays = of_one_kind("epoch_batches", sequences)
    label_arrays, each_step = _label_arrays(arrays, labels)
    if not isinstance(groups, LengthGroups):
        raise TypeError(f"groups must be LengthGroups, as length_groups returns; got {groups!r:.60}")
    _check_plan(batch_size, rng, share)
    lengths = np.array([len(a) for a in arrays])
    plan = _plan(groups.of(lengths), batch_size, rng)
    size = batch_size // share[1]
    mine = slice(share[0] * size, (share[0] + 1) * size)
    return (_batch(arrays, label_arrays, each_step, rows[mine], groups.boundaries[group], size) for group, rows in plan)


def _integers(lengths: ArrayLike) -> np.ndarray:
    """Return lengths as an array; raise ValueError unless they are integers of at least 0."""
    array = np.asarray(lengths)
    if array.size and (array.dtype.kind not in "iu" or array.min() < 0):
        raise ValueError(f"lengths must be integers of at least 0; got {array.dtype}, {array.ravel()[:5]}")
    return array


def _check_plan(batch_size: object, rng: object, share: tuple[int, int]) -> None:
    """Raise an error unless batch_size, rng and share fit."""
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"epoch_batches needs an integer batch_size >= 1; got {batch_size!r}")
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a NumPy generator, such as np.random.default_rng((seed, epoch)); got {rng!r:.60}")
    if len(share) != 2 or not 0 <= share[0] < share[1]:
        raise ValueError(f"share must be (i, n) with 0 <= i < n, the i-th of n parts; got {share}")
    if batch_size % share[1]:
        raise ValueError(f"batch_size must be a multiple of the {share[1]} shares; got {batch_size}")


def _label_arrays(arrays: list[np.ndarray], labels: Labels | None) -> tuple[list[np.ndarray] | None, bool]:
    """Return the label array of each sequence, and whether it has one label per step."""
    if labels is None:
        return None, False
    if len(labels) != len(arrays):
        raise ValueError(f"each sequence needs a label; got {len(arrays)} sequences and {len(labels)} labels")
    if not isinstance(labels, list | tuple) or np.ndim(labels[0]) == 0:
        return [*host_array("labels", labels)], False
    found = of_one_kind("the labels of epoch_batches", labels)
    if [len(a) for a in found] != [len(a) for a in arrays]:
        raise ValueError(
            "a list of arrays holds one label per step, so each must have as many steps as its sequence. One label per "
            "sequence is a number, or a row of one array (n, ...)."
        )
    return found, True


def _plan(group_of: np.ndarray, batch_size: int, rng: np.random.Generator | None) -> list[tuple[int, np.ndarray]]:
    """Return the group and the rows of every batch."""
    plan = []
    for group in np.unique(group_of):
        rows = np.flatnonzero(group_of == group)
        rows = rows if rng is None else rng.permutation(rows)
        plan += [(int(group), rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
    return plan if rng is None else [plan[i] for i in rng.permutation(len(plan))]


def _batch(
    arrays: list[np.ndarray],
    label_arrays: list[np.ndarray] | None,
    each_step: bool,
    rows: np.ndarray,
    length: int,
    batch_size: int,
) -> Batch:
    """Return the batch of `rows`, filled up to `batch_size`."""
    empty = batch_size - len(rows)
    lengths = np.array([len(arrays[row]) for row in rows] + [0] * empty, np.int32)
    labels = None
    if label_arrays is not None:
        chosen = [label_arrays[row] for row in rows]
        if each_step:
            labels = side_by_side(chosen, label_arrays[0], length, batch_size)
        else:
            labels = _filled(np.array(chosen, label_arrays[0].dtype).reshape(-1, *label_arrays[0].shape), empty)
    return Batch(
        side_by_side([arrays[row] for row in rows], arrays[0], length, batch_size),
        lengths,
        labels,
        _filled(np.ones(len(rows), np.float32), empty),
        np.concatenate([rows, np.full(empty, -1)]).astype(np.int32),
    )


def _filled(array: np.ndarray, empty: int) -> np.ndarray:
    """Append `empty` rows of zeros."""
    return np.concatenate([array, np.zeros((empty, *array.shape[1:]), array.dtype)])
