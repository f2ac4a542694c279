"""The cells, one file each."""

from .elman import Elman as Elman
from .gru import GRU as GRU
from .gru import ResetBeforeGRU as ResetBeforeGRU
from .ind_rnn import IndRNN as IndRNN
from .layer_norm_lstm import LayerNormLSTM as LayerNormLSTM
from .lru import LRU as LRU
from .lstm import LSTM as LSTM
from .lstm import LSTMState as LSTMState
from .minimal import MinGRU as MinGRU
from .minimal import MinLSTM as MinLSTM
from .peephole_lstm import PeepholeLSTM as PeepholeLSTM
from .projected_lstm import ProjectedLSTM as ProjectedLSTM
from .rg_lru import RGLRU as RGLRU
from .sru import SRU as SRU
