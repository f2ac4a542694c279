"""Batching by length: sequences padded to a few lengths, so that an epoch compiles once a length and no more."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .._core.checks import host_array
from .._pad import of_one_kind, side_by_side

MOST_CANDIDATES = 512  # lengths that the search for groups looks at; the search is quadratic in it


class Batch(NamedTuple):
    """Sequences side by side, as numpy arrays. The last batch of a group is filled up with empty rows of weight 0.

    Attributes:
        ids: (T, B, ...), zero in the padding: (T, B) ids, (T, B, N) bags of ids, (T, B, D) features.
        lengths: (B,) int32.
        labels: (B, ...) a sequence, (T, B, ...) a step (zero in the padding), or None.
        weights: (B,) float32, 1 or 0.
        rows: (B,) int32, where in the data each row stood; -1 for an empty row.
    """

    ids: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray | None
    weights: np.ndarray
    rows: np.ndarray


def shard_batch(batch: Batch, mesh: Mesh, axis: str = "batch") -> Batch:
    """Split the rows of a batch over an axis of a mesh, as global arrays: `map(partial(shard_batch, mesh=mesh), batches)`.

    Of several processes each hands in its own share, as many rows as every other; the batch is all of them together.

    Args:
        batch: as `epoch_batches` gives it; its rows are divided by the devices of this process along the axis.
        mesh: of the devices of all processes, its axes automatic (an embedding takes no others).
        axis: its name.

    >>> from jax.sharding import AxisType
    >>> mesh = jax.make_mesh((len(jax.devices()),), ("batch",), axis_types=(AxisType.Auto,))
    >>> batch = next(epoch_batches([[1, 2]] * 8, [0] * 8, groups=LengthGroups((4,)), batch_size=8))
    >>> shard_batch(batch, mesh).ids.shape
    (4, 8)
    """
    rows = len(batch.lengths)

    def one(array: np.ndarray | None, each_step: bool) -> Any:
        if array is None:
            return None
        spec = PartitionSpec(None, axis) if each_step else PartitionSpec(axis)
        return jax.make_array_from_process_local_data(NamedSharding(mesh, spec), array)

    labels = batch.labels
    each_step = labels is not None and labels.shape[:2] == (len(batch.ids), rows) and labels.ndim > 1
    return Batch(
        one(batch.ids, True),
        one(batch.lengths, False),
        one(labels, each_step),
        one(batch.weights, False),
        one(batch.rows, False),
    )


@dataclasses.dataclass(frozen=True)
class LengthGroups:
    """The lengths to pad to: a sequence of n steps belongs to the first boundary that is at least n.

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

    def of(self, lengths: Any) -> np.ndarray:
        """Give the group (n,) of each length (n,); raises ValueError for one beyond the last boundary."""
        lengths = _integers(lengths)
        if lengths.size and lengths.max() > self.boundaries[-1]:
            raise ValueError(
                f"a sequence of {lengths.max()} steps is longer than the last boundary, {self.boundaries[-1]}. Cut it, "
                "or add a boundary."
            )
        return np.searchsorted(self.boundaries, lengths)


def length_groups(lengths: Any, groups: int = 6) -> LengthGroups:
    """Choose at most `groups` lengths to pad to, such that the padding is least.

    By dynamic programming over the distinct lengths (over 512 of their quantiles where there are more).

    Args:
        lengths: (n,) integers, at least one.
        groups: the most that may be compiled for.

    >>> length_groups([3, 3, 4, 9, 10], groups=2)
    LengthGroups(boundaries=(4, 10))
    """
    lengths = np.maximum(_integers(lengths), 1)
    if lengths.size == 0 or not isinstance(groups, int | np.integer) or groups < 1:
        raise ValueError(f"length_groups needs lengths, and groups >= 1; got {lengths.size} lengths, groups={groups}")
    ends = np.unique(lengths)
    if ends.size > MOST_CANDIDATES:
        ends = np.unique(np.quantile(lengths, np.linspace(0, 1, MOST_CANDIDATES), method="higher"))
    return LengthGroups(tuple(int(ends[j]) for j in _cheapest(_costs(np.sort(lengths), ends), groups)))


def _costs(lengths: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Give (m, m): the padded size of a group from end i up to end j; infinite for i > j."""
    upto = np.searchsorted(lengths, ends, side="right")
    before = np.concatenate([[0], upto[:-1]])
    sizes = ends * (upto - before[:, None]).astype(float)
    return np.where(np.tri(ends.size, k=-1, dtype=bool), np.inf, sizes)


def _cheapest(costs: np.ndarray, groups: int) -> list[int]:
    """Cut 0 to m - 1 into at most `groups` pieces of least cost: where each ends."""
    count = len(costs)
    best = costs[0]  # of everything up to j, in one piece
    cuts = []  # for a piece more: where the piece that ends at j begins
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
    sequences: Sequence[Any],
    labels: Any = None,
    *,
    groups: LengthGroups,
    batch_size: int,
    rng: np.random.Generator | None = None,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Go once through the sequences, in batches each of which holds one length group.

    Args:
        sequences: n arrays (T_i, ...) that agree in all but T_i: ids (T_i,), bags (T_i, N), features (T_i, D).
        labels: n numbers or an array (n, ...), one a sequence; or a list of n arrays (T_i, ...), one a step; or None.
        groups: the lengths to pad to.
        batch_size: B, of every batch.
        rng: shuffles rows within their groups, and the batches; None keeps the order. For training that can be taken
            up again make it from the epoch: `np.random.default_rng((seed, epoch))`.
        share: (i, n) gives only the rows of the i-th of n equal parts of every batch, for the i-th of n processes:
            `(jax.process_index(), jax.process_count())`. All must ask with the same rng.

    Raises:
        ValueError: if sequences, labels and groups do not fit.

    >>> batches = epoch_batches([[1, 2], [3], [4, 5, 6]], [0, 1, 1], groups=LengthGroups((2, 4)), batch_size=2)
    >>> [(batch.ids.shape, batch.lengths.tolist(), batch.weights.tolist()) for batch in batches]
    [((2, 2), [2, 1], [1.0, 1.0]), ((4, 2), [3, 0], [1.0, 0.0])]
    """
    arrays = of_one_kind("epoch_batches", sequences)
    answers, each_step = _answers(arrays, labels)
    if not isinstance(groups, LengthGroups):
        raise TypeError(f"groups must be LengthGroups, as length_groups returns; got {groups!r:.60}")
    _check_plan(batch_size, rng, share)
    lengths = np.array([len(a) for a in arrays])
    plan = _plan(groups.of(lengths), batch_size, rng)
    size = batch_size // share[1]
    mine = slice(share[0] * size, (share[0] + 1) * size)
    return (_batch(arrays, answers, each_step, rows[mine], groups.boundaries[group], size) for group, rows in plan)


def _integers(lengths: Any) -> np.ndarray:
    """Return lengths as an array, which must be of integers from 0 on."""
    lengths = np.asarray(lengths)
    if lengths.size and (lengths.dtype.kind not in "iu" or lengths.min() < 0):
        raise ValueError(f"lengths must be integers of at least 0; got {lengths.dtype}, {lengths.ravel()[:5]}")
    return lengths


def _check_plan(batch_size: Any, rng: Any, share: Any) -> None:
    """Raise what is wrong with how the batches of an epoch are to be made."""
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"epoch_batches needs an integer batch_size >= 1; got {batch_size!r}")
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a NumPy generator, as np.random.default_rng((seed, epoch)); got {rng!r:.60}")
    if len(share) != 2 or not 0 <= share[0] < share[1]:
        raise ValueError(f"share must be (i, n) with 0 <= i < n, the i-th of n parts; got {share}")
    if batch_size % share[1]:
        raise ValueError(f"batch_size must be a multiple of the {share[1]} shares; got {batch_size}")


def _answers(arrays: list[np.ndarray], labels: Any) -> tuple[list[np.ndarray] | None, bool]:
    """Give a label a sequence, and whether each is one a step."""
    if labels is None:
        return None, False
    if len(labels) != len(arrays):
        raise ValueError(f"each sequence needs a label; got {len(arrays)} sequences and {len(labels)} labels")
    each_step = isinstance(labels, list | tuple) and np.ndim(labels[0]) > 0
    answers = of_one_kind("the labels of epoch_batches", labels) if each_step else [*host_array("labels", labels)]
    if each_step and [len(a) for a in answers] != [len(a) for a in arrays]:
        raise ValueError(
            "a list of arrays is labels a step, which must be as many as the steps of their sequence. Labels a "
            "sequence are numbers, or one array (n, ...)."
        )
    return answers, each_step


def _plan(of: np.ndarray, batch_size: int, rng: np.random.Generator | None) -> list[tuple[int, np.ndarray]]:
    """Give the group and the rows of every batch."""
    plan = []
    for group in np.unique(of):
        rows = np.flatnonzero(of == group)
        rows = rows if rng is None else rng.permutation(rows)
        plan += [(int(group), rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
    return plan if rng is None else [plan[i] for i in rng.permutation(len(plan))]


def _batch(
    arrays: list[np.ndarray],
    answers: list[np.ndarray] | None,
    each_step: bool,
    rows: np.ndarray,
    length: int,
    batch_size: int,
) -> Batch:
    """Put `rows` side by side."""
    empty = batch_size - len(rows)
    lengths = np.array([len(arrays[row]) for row in rows] + [0] * empty, np.int32)
    labels = None
    if answers is not None:
        chosen = [answers[row] for row in rows]
        if each_step:
            labels = side_by_side(chosen, answers[0], length, batch_size)
        else:
            labels = _filled(np.array(chosen, answers[0].dtype).reshape(-1, *answers[0].shape), empty)
    return Batch(
        side_by_side([arrays[row] for row in rows], arrays[0], length, batch_size),
        lengths,
        labels,
        _filled(np.ones(len(rows), np.float32), empty),
        np.concatenate([rows, np.full(empty, -1)]).astype(np.int32),
    )


def _filled(array: np.ndarray, empty: int) -> np.ndarray:
    """Add `empty` rows of zeros."""
    return np.concatenate([array, np.zeros((empty, *array.shape[1:]), array.dtype)])
