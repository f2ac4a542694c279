"""Chunks of time as matmuls, for cells with a matrix memory."""

from __future__ import annotations

import dataclasses
import functools

from .._core.cell import Cell
from .._core.fields import Checked, convert, instance, size
from .._core.live import cut
from .._core.masks import StepMasks
from .._core.matrix_cell import MatrixCell
from .._core.types import Inputs, Output, Params, State
from .driver import num_steps
from .memory_chunks import solve_chunks
from .memory_groups import Groups
from .rows import rows_as_batch
from .time_axis import TimeAxis


@dataclasses.dataclass(frozen=True)
class Chunkwise(metaclass=Checked):
    """The recurrence of a `MatrixCell` as matmuls: inside a chunk of time between its steps, then from chunk to chunk.

    `Scan` reads and writes the memory (K, V) at every step, and keeps it for the gradient: K numbers for each number of
    a value. Here the memory is touched once a chunk. The gradient keeps it once for a group of chunks, and recomputes
    what is between. Decays are multiplied as sums of logarithms, so that no product overflows or vanishes.

    Args:
        chunk: C, the steps of a chunk. A step costs 2 N C (K + V) operations in the chunk, and 4 N K V between chunks.
        axis: the axis of a mesh that time is split over, inside a `jax.shard_map` that hands each device its part of
            xs, lengths (counted from the start of the part) and resets. `state` is used on the device where time
            starts; the state that is returned is the one at the end of each part. Each part is reduced to the matrices
            (A, U) of S -> A S + U, these are combined by log2(devices) `ppermute`s, and each part runs from its own
            first state.

    Numbers are computed in float32, or in the dtype of the state if that is wider. A NaN reaches all outputs of its
    chunk; with resets, those of the same segment alone.

    Raises:
        ValueError: for a cell that is no `MatrixCell`, a chunk below 1, T that is not known (`jax.export`), and resets
            with both an axis and reverse.

    >>> cell = DeltaNet(2, 4)
    >>> params = cell.init(jax.random.key(0), in_dim=3)
    >>> state, ys = unroll(cell, params, jnp.ones((100, 2, 3)), driver=Chunkwise(16))
    >>> ys.shape
    (100, 2, 8)

    Reference: Yang, Wang, Shen, Panda and Kim, "Gated linear attention transformers with hardware-efficient training",
    ICML 2024, section 4 (https://arxiv.org/abs/2312.06635); Yang et al., "Parallelizing linear transformers with the
    delta rule over sequence length", NeurIPS 2024 (https://arxiv.org/abs/2406.06484).
    """

    chunk: int = 64
    axis: str | None = None

    def __check_init__(self) -> None:
        """Check the fields."""
        convert(self, chunk=size, axis=instance(str | None, "'time', or None"))

    @rows_as_batch
    def __call__(
        self, cell: Cell, params: Params, state: State, xs: Inputs, masks: StepMasks, *, reverse: bool = False
    ) -> tuple[State, Output]:
        """Run the chunks."""
        if not isinstance(cell, MatrixCell):
            raise ValueError(
                f"{self} takes a MatrixCell; got {cell}. Use Scan(), which takes any cell, or name no driver: then "
                "each cell of a composite gets its own."
            )
        if not isinstance(num_steps(xs), int):
            raise ValueError(f"{self} needs a T that is known; got {num_steps(xs)}. Use Scan().")
        solve = functools.partial(solve_chunks, self.chunk)
        if self.axis is None:
            run = lambda *operands: Groups(cell, self.chunk, reverse, solve, *operands).run()
            return cut(run, params, state, xs, masks, reverse=reverse)
        if reverse and masks.reset is not None:
            raise ValueError(
                f"{self} takes no resets with reverse: the next device alone knows the boundary before its part."
            )
        groups = Groups(cell, self.chunk, reverse, solve, params, state, xs, masks)
        return groups.starting_on(TimeAxis(self.axis, reverse)).run()
