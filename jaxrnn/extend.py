"""What authors of cells, layers and drivers build on.

A cell: `GatedCell`, `AffineCell`, or a plain class with `init`, `initial_state` and `step`. `gates_of` is the matmul
of a gated cell and `input_weights` draws its weights; `Checked`, `convert` (with `size`, `count`, `number`, `one_of`,
`instance`) and `check_init` check fields and arguments;
`WrappedGatedCell` is another gated cell with one method changed.

Randomness and context: `noise` of a cell, with `step_keys` for streaming; `with_context` of a cell, `TakesContext`.

A layer: `Composite`, or `WrappedCell` around one cell, or `Stateless`, or `jaxrnn.Apply` of two functions. Its `unroll`
gets a `Runner`, which runs its parts over time and shows the masks; `step`, `out_dim`, `need_step` and `split` are for
the parts in its other methods.

A driver: `Driver` is the protocol. `masked_step` puts the rule on padding and resets around a step; `StepMasks`,
`apply_reset`, `hold_padding` and `zero_padding` are that rule by parts, `length_mask` and `where` go with it.
`scan_chunks` runs over chunks of time. `Solver`, `linear_recurrence` and `run_affine` are for affine cells.
`rows_as_batch` decorates the `__call__` of a driver with a `custom_vjp`, so that `vmap` over rows with shared params
runs it on a larger batch.
"""

from ._core.activation import Activation as Activation
from ._core.affine_cell import Solver as Solver
from ._core.affine_cell import linear_recurrence as linear_recurrence
from ._core.affine_cell import run_affine as run_affine
from ._core.cell import zero_state as zero_state
from ._core.composite import Runner as Runner
from ._core.composite import WrappedCell as WrappedCell
from ._core.composite import need_step as need_step
from ._core.composite import out_dim as out_dim
from ._core.context import TakesContext as TakesContext
from ._core.context import with_context as with_context
from ._core.exportable import exportable as exportable
from ._core.extras import extra as extra
from ._core.fields import Checked as Checked
from ._core.fields import check_init as check_init
from ._core.fields import convert as convert
from ._core.fields import count as count
from ._core.fields import instance as instance
from ._core.fields import number as number
from ._core.fields import one_of as one_of
from ._core.fields import size as size
from ._core.masks import StepMasks as StepMasks
from ._core.masks import apply_reset as apply_reset
from ._core.masks import hold_padding as hold_padding
from ._core.masks import length_mask as length_mask
from ._core.masks import zero_padding as zero_padding
from ._core.randomness import split as split
from ._core.randomness import step as step
from ._core.randomness import step_keys as step_keys
from ._core.recurrence import Recurrence as Recurrence
from ._core.recurrence import gates_of as gates_of
from ._core.recurrence import input_weights as input_weights
from ._core.trees import where as where
from ._core.types import Context as Context
from ._core.types import Inputs as Inputs
from ._core.types import Key as Key
from ._core.types import Output as Output
from ._core.types import Params as Params
from ._core.types import State as State
from ._core.wrapped_cell import WrappedGatedCell as WrappedGatedCell
from ._drivers.driver import masked_step as masked_step
from ._drivers.driver import scan_chunks as scan_chunks
from ._drivers.rows import rows_as_batch as rows_as_batch
from ._layers.stateless import Stateless as Stateless
