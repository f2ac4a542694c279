"""The cells, one file each."""

from .antisymmetric_rnn import AntisymmetricRNN as AntisymmetricRNN
from .elman import Elman as Elman
from .gru import GRU as GRU
from .gru import ResetBeforeGRU as ResetBeforeGRU
from .ind_rnn import IndRNN as IndRNN
from .janet import JANET as JANET
from .layer_norm_lstm import LayerNormLSTM as LayerNormLSTM
from .light_gru import LightGRU as LightGRU
from .lru import LRU as LRU
from .lstm import LSTM as LSTM
from .lstm import LSTMState as LSTMState
from .minimal import MinGRU as MinGRU
from .minimal import MinLSTM as MinLSTM
from .peephole_lstm import PeepholeLSTM as PeepholeLSTM
from .projected_lstm import ProjectedLSTM as ProjectedLSTM
from .rg_lru import RGLRU as RGLRU
from .s4d import S4D as S4D
from .s5 import S5 as S5
from .slstm import SLSTM as SLSTM
from .slstm import SLSTMState as SLSTMState
from .sru import SRU as SRU
from .state_space import Bilinear as Bilinear
from .state_space import ZeroOrderHold as ZeroOrderHold
from .ugrnn import UGRNN as UGRNN
from .unicornn import OscillatorState as OscillatorState
from .unicornn import UnICORNN as UnICORNN
