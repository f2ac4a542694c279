"""Training with Optax: steps, epochs, batches by length, windows of time, checkpoints."""

from ._batches import Batch as Batch
from ._batches import LengthGroups as LengthGroups
from ._batches import epoch_batches as epoch_batches
from ._batches import length_groups as length_groups
from ._batches import shard_batch as shard_batch
from ._burn_in import unroll_after_burn_in as unroll_after_burn_in
from ._checkpoint_files import CheckpointError as CheckpointError
from ._checkpoint_files import DamagedCheckpointError as DamagedCheckpointError
from ._checkpoints import Checkpoints as Checkpoints
from ._early_stopping import EarlyStopping as EarlyStopping
from ._evaluation import evaluation as evaluation
from ._fit import Fit as Fit
from ._fit import fit as fit
from ._losses import CrossEntropy as CrossEntropy
from ._losses import carried_cross_entropy as carried_cross_entropy
from ._step import Carried as Carried
from ._step import TrainState as TrainState
from ._step import init as init
from ._step import make_step as make_step
from ._windows import Window as Window
from ._windows import streams as streams
from ._windows import windows as windows
