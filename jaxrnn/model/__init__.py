"""Models of sequences of ids: embedding, layers, pooling, readout."""

from ._embedding import BagEmbedding as BagEmbedding
from ._embedding import Embed as Embed
from ._embedding import Embedding as Embedding
from ._pooling import Pooling as Pooling
from ._pooling import ends as ends
from ._pooling import every as every
from ._pooling import last as last
from ._pooling import maximum as maximum
from ._pooling import mean as mean
from ._ridge import ridge_readout as ridge_readout
from ._sequence_model import ModelParams as ModelParams
from ._sequence_model import ReadoutParams as ReadoutParams
from ._sequence_model import SequenceModel as SequenceModel
from ._sequence_model import init_readout as init_readout
from ._sequence_model import readout as readout
