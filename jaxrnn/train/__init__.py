"""Training with Optax: steps, epochs, batches by length, windows of time, checkpoints."""

from .batches import Batch as Batch
from .batches import LengthGroups as LengthGroups
from .batches import epoch_batches as epoch_batches
from .batches import length_groups as length_groups
from .batches import over as over
from .checkpoint_files import CheckpointError as CheckpointError
from .checkpoint_files import DamagedCheckpointError as DamagedCheckpointError
from .checkpoints import Checkpoints as Checkpoints
from .evaluation import evaluation as evaluation
from .fit import Fit as Fit
from .fit import fit as fit
from .losses import CrossEntropy as CrossEntropy
from .losses import carried_cross_entropy as carried_cross_entropy
from .step import Carried as Carried
from .step import TrainState as TrainState
from .step import init as init
from .step import make_step as make_step
from .windows import Window as Window
from .windows import streams as streams
from .windows import windows as windows
