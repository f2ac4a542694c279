"""Residual blocks of published models, as composites of the cells and layers of this library.

Each function returns a composite that maps `features` to as many, for a `Stack`:

>>> model = Stack((Linear(4), *[s5(4)] * 2, RMSNorm(), Linear(5)))
>>> params = model.init(jax.random.key(0), in_dim=3)
>>> unroll(model, params, jnp.ones((6, 2, 3)))[1].shape
(6, 2, 5)

Blocks are values: one may be listed several times, and each place gets its own params. To change a block, copy its few
lines.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from ._cells import MLSTM, RGLRU, S5, S6, SLSTM, GatedDeltaNet, Mamba2
from ._core.fields import size
from ._core.projection import Packed
from ._core.recurrence import Heads
from ._layers.linear import Linear
from ._layers.normalization import LayerNorm, RMSNorm
from ._layers.parallel import Concat, Product
from ._layers.residual import Residual
from ._layers.short_convolution import ShortConvolution
from ._layers.stack import Stack
from ._layers.stateless import Apply


def gated_mlp(features: int, width: int, *, activation: Any = "gelu", bias: bool = True) -> Stack:
    """Return y = (activation(x W_1) * (x W_2)) W_3: a gated layer without a state, with `width` units.

    Args:
        features: the number of output features.
        width: the number of units in between.
        activation: by name or as a function: "gelu" makes it a GeGLU, "silu" a SwiGLU.
        bias: whether each of the three matrices has a bias.

    >>> gated_mlp(4, 12).out_dim(4)
    4

    Reference: Shazeer, "GLU variants improve transformer", 2020, eq. 6 (https://arxiv.org/abs/2002.05202).
    """
    gate = Linear(width, activation=activation, bias=bias)
    return Stack((Product((gate, Linear(width, bias=bias))), Linear(features, bias=bias)))


def griffin(features: int, *, width: int | None = None, expansion: int = 3) -> Stack:
    """Return Griffin's residual block: a gated RG-LRU after a short convolution, then a GeGLU, each after a norm.

    Args:
        features: D, the number of features of inputs and outputs.
        width: the number of recurrent units; None for 4 D / 3, rounded up.
        expansion: M: the GeGLU has M D units.

    >>> griffin(6).out_dim(6)
    6

    Reference: De et al., "Griffin: mixing gated linear recurrences with local attention for efficient language models",
    2024, section 2 (https://arxiv.org/abs/2402.19427).
    Note: as in Hawk, the recurrent block alone; every third block of Griffin has a local attention in its place. The
    gates of the RG-LRU have dense weights; the published code has block-diagonal ones. Initial weights are those of
    `Linear`, `ShortConvolution` and `RGLRU`, whose scale differs from that of the published code.
    """
    features = size(features, "features of griffin")
    units = -(-4 * features // 3) if width is None else width
    recurrent = Stack((Linear(units), ShortConvolution(4), RGLRU(units)))
    mixing = Stack((RMSNorm(), Product((recurrent, Linear(units, activation="gelu"))), Linear(features)))
    return Stack((Residual(mixing), Residual(Stack((RMSNorm(), gated_mlp(features, expansion * features))))))


def s5(features: int, *, states: int | None = None, blocks: int = 1) -> Residual:
    """Return S5's residual block: x + g * σ(g W + b) with g = gelu(S5(norm(x))).

    Args:
        features: H, the number of features of inputs and outputs.
        states: the complex states of the `S5`; None for H / 2.
        blocks: the copies of a HiPPO matrix that its λ starts as.

    >>> s5(6).out_dim(6)
    6

    Reference: Smith, Warrington and Linderman, "Simplified state space layers for sequence modeling", ICLR 2023
    (https://arxiv.org/abs/2208.04933): the layer of its code with `activation="half_glu1"` and `prenorm=True`.
    Note: without its dropout (put `Dropout` on top), and always with a layer norm; the code may have a batch norm.
    """
    gate = Product((Apply(_no_params, _same), Linear(features, activation="sigmoid")))
    return Residual(Stack((LayerNorm(), S5(features, states=states, blocks=blocks), Apply(_no_params, _gelu), gate)))


def mamba(features: int, *, states: int = 16, expansion: int = 2) -> Residual:
    """Return Mamba's residual block: a selective state-space model after a short convolution, gated.

    x + (S6(silu(conv(u W_1))) * silu(u W_2)) W_3, with u = norm(x).

    Args:
        features: D, the number of features of inputs and outputs.
        states: N, the states of each feature of the `S6`.
        expansion: E: the `S6` has E D features.

    >>> mamba(6).out_dim(6)
    6

    Reference: Gu and Dao, "Mamba: linear-time sequence modeling with selective state spaces", 2023, section 3.4
    (https://arxiv.org/abs/2312.00752).
    Note: the three matrices without bias start Glorot uniform; the published code draws them from U(-1/sqrt(D),
    1/sqrt(D)), D their inputs, and divides the last by the root of the number of layers.
    """
    features = size(features, "features of mamba")
    inner = expansion * features
    selective = S6(inner, states=states, step_rank=-(-features // 16))
    recurrent = Stack((Linear(inner, bias=False), ShortConvolution(4, activation="silu"), selective))
    gate = Linear(inner, bias=False, activation="silu")
    return Residual(Stack((RMSNorm(epsilon=1e-5), Product((recurrent, gate)), Linear(features, bias=False))))


def slstm(features: int, heads: int = 4) -> Stack:
    """Return xLSTM's residual block with a scalar memory: an sLSTM after a short convolution, then a GeGLU.

    Args:
        features: D, the number of features of inputs and outputs, and of units.
        heads: the number of heads, a divisor of D.

    >>> slstm(6, heads=2).out_dim(6)
    6

    Reference: Beck et al., "xLSTM: extended long short-term memory", 2024, appendix A.1 and figure 10
    (https://arxiv.org/abs/2405.04517). The GeGLU has 4 D / 3 units, rounded up.
    Note: the paper applies the convolution to the inputs of the gates i and f alone, and the input weights of all gates
    are block diagonal; here all four gates read the convolution, through dense weights. Norms have a bias, which those
    of the published code do not, and initial weights and biases are those of `SLSTM` and `Linear`.
    """
    features = size(features, "features of slstm")
    cell = SLSTM(features, recurrence=Heads(heads))
    norm, mlp = LayerNorm(epsilon=1e-5), gated_mlp(features, -(-4 * features // 3), bias=False)
    of_heads = LayerNorm(groups=heads, epsilon=1e-5)
    memory = Stack((norm, ShortConvolution(4, activation="silu"), cell, of_heads))
    return Stack((Residual(memory), Residual(Stack((norm, mlp)))))


def mlstm(features: int, heads: int = 4) -> Residual:
    """Return xLSTM's residual block with a matrix memory: an mLSTM of twice the features, gated.

    x + (norm(MLSTM(q, k, v)) * silu(u W_2)) W_3 with u = norm(x), p = u W_1, q and k from silu(conv(p)), v from p.

    Args:
        features: D, the number of features of inputs and outputs.
        heads: the number of heads, a divisor of 2 D.

    >>> mlstm(6, heads=2).out_dim(6)
    6

    Reference: Beck et al., "xLSTM: extended long short-term memory", 2024, appendix A.1 and figure 11
    (https://arxiv.org/abs/2405.04517).
    Note: the output gate of the cell (its eq. 25) is kept next to the gate of the block; q, k and v have dense weights
    in place of block-diagonal ones, the gates i and f read p in place of q, k and v, and the convolution has no skip
    connection.
    """
    inner = 2 * size(features, "features of mlstm")
    if inner % size(heads, "heads of mlstm"):
        raise ValueError(f"mlstm needs heads that divide 2 * {features} features; got {heads}")
    cell = MLSTM(heads, inner // heads, projection=Packed())
    keys = Stack((ShortConvolution(4, activation="silu"), Linear(2 * inner, bias=False)))
    parts = Concat((keys, Linear(sum(cell.sizes()[2:]), bias=False)))
    memory = Stack((Linear(inner, bias=False), parts, cell, LayerNorm(groups=heads, epsilon=1e-5)))
    gated = Product((memory, Linear(inner, bias=False, activation="silu")))
    return Residual(Stack((LayerNorm(epsilon=1e-5), gated, Linear(features, bias=False))))


def mamba2(features: int, *, heads: int | None = None, states: int = 64, expansion: int = 2) -> Residual:
    """Return Mamba-2's residual block: x + norm(SSD(silu(conv(u W_1)), u W_2) * silu(u W_3)) W_4, with u = norm(x).

    Args:
        features: D, the number of features of inputs and outputs.
        heads: the number of heads, a divisor of E D; None for heads of 64 features, or one.
        states: K, the states of each feature.
        expansion: E: the memory has E D features.

    >>> mamba2(6, heads=2, states=4).out_dim(6)
    6

    Reference: Dao and Gu, "Transformers are SSMs", ICML 2024, section 7.1 and figure 6
    (https://arxiv.org/abs/2405.21060).
    Note: Δ is not bounded, and the matrices start Glorot uniform.
    """
    inner = expansion * size(features, "features of mamba2")
    heads = max(1, inner // 64) if heads is None else size(heads, "heads of mamba2")
    if inner % heads:
        raise ValueError(f"mamba2 needs heads that divide {inner} features; got {heads}")
    cell = Mamba2(heads, states, value_dim=inner // heads, projection=Packed())
    convolved = Stack((Linear(sum(cell.sizes()[:3]), bias=False), ShortConvolution(4, activation="silu")))
    memory = Stack((Concat((convolved, Linear(heads, bias=False))), cell))
    gated = Product((memory, Linear(inner, bias=False, activation="silu")))
    norm = RMSNorm(epsilon=1e-5)
    return Residual(Stack((norm, gated, norm, Linear(features, bias=False))))


def gated_delta_net(features: int, heads: int = 4, *, max_beta: float = 1.0) -> Stack:
    """Return the residual block of Gated DeltaNet: a memory with keys and values after a convolution, then a SwiGLU.

    x + (norm(GatedDeltaNet(silu(conv(u W_1)), u W_2)) * silu(u W_3)) W_4, with u = norm(x).

    Args:
        features: D, the number of features of inputs and outputs.
        heads: the number of heads. Keys have 3 D / 4 features, and values twice as many.
        max_beta: the bound of β: with 2 the memory has eigenvalues down to -1.

    >>> gated_delta_net(8, heads=2).out_dim(8)
    8

    Reference: Yang, Kautz and Hatamizadeh, "Gated delta networks: improving Mamba2 with delta rule", ICLR 2025,
    section 3.4 and figure 1 (https://arxiv.org/abs/2412.06464).
    Note: the convolution has a bias; the SwiGLU has 8 D / 3 units, rounded up; the matrices start Glorot uniform.
    """
    features = size(features, "features of gated_delta_net")
    keys = max(1, 3 * features // (4 * size(heads, "heads of gated_delta_net")))
    rule = GatedDeltaNet(heads, keys, value_dim=2 * keys, max_beta=max_beta, activation="identity")
    cell = dataclasses.replace(rule, projection=Packed())
    convolved = Stack((Linear(sum(cell.sizes()[:3]), bias=False), ShortConvolution(4, activation="silu")))
    memory = Stack((Concat((convolved, Linear(2 * heads, bias=False))), cell, RMSNorm(groups=heads, epsilon=1e-5)))
    gated = Product((memory, Linear(cell.values, bias=False, activation="silu")))
    mlp = gated_mlp(features, -(-8 * features // 3), activation="silu", bias=False)
    mixing = Stack((RMSNorm(epsilon=1e-5), gated, Linear(features, bias=False)))
    return Stack((Residual(mixing), Residual(Stack((RMSNorm(epsilon=1e-5), mlp)))))


def _no_params(key: jax.Array, in_dim: int) -> tuple[()]:
    """Return no params."""
    return ()


def _same(params: tuple[()], x: jax.Array) -> jax.Array:
    """Return x."""
    return x


def _gelu(params: tuple[()], x: jax.Array) -> jax.Array:
    """Return gelu(x)."""
    return jax.nn.gelu(x)
