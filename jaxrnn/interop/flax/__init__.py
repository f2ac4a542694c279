"""Conversion from and to cells of flax's `nnx` and `linen`: weights and carries; and a module of each around any cell.

| flax | jaxrnn | gates | where flax keeps the bias |
|---|---|---|---|
| `SimpleCell` | `Elman` | one | with the input weights |
| `LSTMCell`, `OptimizedLSTMCell` | `LSTM` | i, f, g, o | with the recurrent weights |
| `nnx.GRUCell` | `GRU` | r, z, n | with the input weights; it has no b_hn |
| `linen.GRUCell` | `GRU` | r, z, n | with the input weights, b_hn with the recurrent ones |
| `RNN(cell)` | the cell | | |
| `RNN(cell, reverse=True, keep_order=True)` | `Reversed(cell)` | | |
| `Bidirectional(RNN(cell), RNN(cell))` | `Bidirectional(cell, cell)` | | |

Flax's `activation_fn` is `activation`, its `gate_fn` is `gate_activation`. An LSTM's carry is `(c, h)` in flax and
`LSTMState(h, c)` in jaxrnn: `state_from_flax` and `state_to_flax` convert between them. Flax draws its initial carry
with `carry_init`; only zeros, its default, can be converted. Flax's initial forget bias is zero, where `LSTM` adds
`forget_bias`; that concerns `init`, not converted weights. To draw as flax does, use `FlaxInit` or `NnxInit`.
"""

from ._carry import state_from_flax as state_from_flax
from ._carry import state_to_flax as state_to_flax
from ._linen import from_linen as from_linen
from ._linen import to_linen as to_linen
from ._modules import LinenRNN as LinenRNN
from ._modules import NnxRNN as NnxRNN
from ._nnx import from_nnx as from_nnx
from ._nnx import to_nnx as to_nnx
