"""The equations, a file each."""

from .elman import Elman as Elman
from .gru import GRU as GRU
from .gru import ResetBeforeGRU as ResetBeforeGRU
from .layer_norm_lstm import LayerNormLSTM as LayerNormLSTM
from .lstm import LSTM as LSTM
from .lstm import LSTMState as LSTMState
from .min_gru import MinGRU as MinGRU
from .peephole_lstm import PeepholeLSTM as PeepholeLSTM
from .projected_lstm import ProjectedLSTM as ProjectedLSTM
