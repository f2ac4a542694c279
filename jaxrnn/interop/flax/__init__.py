"""Flax, unforced: weights of `nnx` and `linen` cells in and out, and a module of each kind around any jaxrnn cell.

| flax cell | jaxrnn | gates | where flax keeps the bias |
|---|---|---|---|
| `SimpleCell` | `Elman` | one | with the input weights |
| `LSTMCell`, `OptimizedLSTMCell` | `LSTM` | i, f, g, o | with the recurrent weights |
| `nnx.GRUCell` | `GRU` | r, z, n | with the input weights; it has no b_hn |
| `linen.GRUCell` | `GRU` | r, z, n | with the input weights, b_hn with the recurrent ones |

Flax's `activation_fn` is our `activation`, its `gate_fn` our `gate_activation`. An LSTM's carry is `(c, h)` in flax
and `LSTMState(h, c)` here: `state_from_flax` and `state_to_flax` exchange them. Flax's initial carry is drawn by
`carry_init`; only zeros, its default, can be converted. Flax draws its initial forget bias as zeros, where `LSTM` adds
`forget_bias`: a matter of `init`, not of converted weights. To begin as flax does, draw with `FlaxInit` or `NnxInit`.
"""

from ._carry import state_from_flax as state_from_flax
from ._carry import state_to_flax as state_to_flax
from ._linen import from_linen as from_linen
from ._linen import to_linen as to_linen
from ._modules import LinenRNN as LinenRNN
from ._modules import NnxRNN as NnxRNN
from ._nnx import from_nnx as from_nnx
from ._nnx import to_nnx as to_nnx
