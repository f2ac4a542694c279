"""One definition for classification, tagging and language modelling: embedding, layers, pooling, readout.

T time, B batch (any number of leading axes), N ids in a bag, F embedding features, H hidden features, K outputs.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .._core.cell import Cell
from .._core.checks import as_numbers, check_cell, check_params, check_step, host_array
from .._core.composite import Composite, need_step, out_dim
from .._core.exportable import exportable
from .._core.fields import Checked, check_init_key, convert, instance, size
from .._core.randomness import step
from .._core.types import Inputs, Key, Params, State
from .._unroll import UnrollOptions, unroll
from ._embedding import Embed
from ._pooling import Pooling, every, last

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


@exportable
class ReadoutParams(NamedTuple):
    """The params of a readout.

    Attributes:
        v: weights (H, K).
        c: bias (K,).
    """

    v: Float[Array, "H K"]
    c: Float[Array, " K"]


def init_readout(key: Key, hidden: int, outputs: int) -> ReadoutParams:
    """Draw V (H, K) from the Glorot uniform distribution; c (K,) is zero."""
    check_init_key(key, "init_readout(jax.random.key(0), 8, 3)")
    shape = size(hidden, "hidden"), size(outputs, "outputs")
    return ReadoutParams(jax.nn.initializers.glorot_uniform()(key, shape), jnp.zeros(shape[1]))


def readout(params: ReadoutParams, h: Float[Array, "... H"]) -> Float[Array, "... K"]:
    """Return o_t = V s_t + c, for any leading axes.

    >>> readout(init_readout(jax.random.key(0), 8, 3), jnp.ones((5, 2, 8))).shape
    (5, 2, 3)
    """
    return h @ params.v + params.c


@exportable
class ModelParams(NamedTuple):
    """The params of a model, as its parts define them."""

    embed: Params
    layers: Params
    readout: ReadoutParams


@dataclasses.dataclass(frozen=True)
class SequenceModel(metaclass=Checked):
    """logits = V pooling(layers(embed(ids))) + c.

    Args:
        embed: `Embedding(vocabulary, features)`, `BagEmbedding(vocabulary, features)`, or another `Embed`.
        layers: a cell or a composite, e.g. `Stack((Dropout(0.3), Bidirectional(LSTM(128))))`.
        outputs: K, the number of classes, tags or tokens.
        pooling: `last`, `ends`, `mean` or `maximum` for one prediction a sequence, `every` for one a step; or another
            function of (ys, lengths).

    >>> from jaxrnn.model import Embedding, SequenceModel, ends
    >>> model = SequenceModel(Embedding(100, 16), Bidirectional(LSTM(8)), outputs=3, pooling=ends)
    >>> params = model.init(jax.random.key(0))
    >>> model(params, jnp.zeros((7, 2), jnp.int32), jnp.array([7, 4])).shape
    (2, 3)
    """

    embed: Embed
    layers: Cell | Composite
    outputs: int
    pooling: Pooling = last

    def __check_init__(self) -> None:
        """Check the fields."""
        check_cell(self.layers, Cell | Composite, "SequenceModel")
        convert(self, embed=instance(Embed, "Embedding(100, 16)"), outputs=size)
        if not callable(self.pooling):
            raise ValueError(f"SequenceModel needs a function for pooling, such as last or mean; got {self.pooling!r}")

    def init(self, key: Key) -> ModelParams:
        """Draw the params."""
        check_init_key(key)
        k_embed, k_layers, k_readout = jax.random.split(key, 3)
        features = self.embed.features
        hidden = out_dim(self.layers, features)
        return ModelParams(
            self.embed.init(k_embed),
            self.layers.init(k_layers, features),
            init_readout(k_readout, hidden, self.outputs),
        )

    def initial_state(self, params: ModelParams, batch: tuple[int, ...] = ()) -> State:
        """Return the layers' state before the first step, each leaf (*batch, features)."""
        return self.layers.initial_state(None if params is None else params.layers, batch)

    def hidden(
        self,
        params: ModelParams,
        ids: ArrayLike,
        lengths: Int[ArrayLike, "*batch"] | None = None,
        **options: Unpack[UnrollOptions],
    ) -> tuple[State, Float[Array, "T *batch H"]]:
        """Return the state after the last step, and the outputs of the layers (T, *batch, H), before the pooling.

        The arguments are those of `jaxrnn.unroll`, with ids in place of xs: state, mask, resets, reverse, context, key,
        state_dtype, driver.
        """
        xs = self._embedded(params, ids)
        return unroll(self.layers, params.layers, xs, lengths=lengths, **options)

    def _embedded(self, params: ModelParams, ids: ArrayLike) -> Inputs:
        """Return the embedded ids, after a check of ids and params."""
        check_params(self, params)
        ids = host_array("ids", ids) if isinstance(ids, list | tuple) else ids
        return self.embed(params.embed, as_numbers("ids", ids))

    def unroll(
        self,
        params: ModelParams,
        ids: ArrayLike,
        lengths: Int[ArrayLike, "*batch"] | None = None,
        **options: Unpack[UnrollOptions],
    ) -> tuple[State, jax.Array]:
        """Return the state after the last step, to continue from, and the logits of `model(...)`."""
        if self.pooling is not every and (options.get("mask") is not None or options.get("reverse")):
            raise ValueError(
                "pooling knows the padding by lengths alone: with mask or reverse use pooling=every, or pool what "
                "model.hidden(...) returns."
            )
        state, ys = self.hidden(params, ids, lengths, **options)
        return state, readout(params.readout, self.pooling(ys, lengths))

    def __call__(
        self,
        params: ModelParams,
        ids: ArrayLike,
        lengths: Int[ArrayLike, "*batch"] | None = None,
        **options: Unpack[UnrollOptions],
    ) -> jax.Array:
        """Return the logits: (*batch, K), or (T, *batch, K) where `pooling` is `every` (c in the padding).

        Args:
            params: from `init`.
            ids: (T, *batch), or (T, *batch, N) for bags.
            lengths: integers (*batch), or None if there is no padding.
            options: keywords of `jaxrnn.unroll`: state, resets, context, key (None is deterministic), state_dtype,
                driver; mask and reverse where `pooling` is `every`.
        """
        return self.unroll(params, ids, lengths, **options)[1]

    def step(
        self, params: ModelParams, state: State, ids: ArrayLike, *, key: Key | None = None
    ) -> tuple[State, Float[Array, "*batch K"]]:
        """Return (state, logits (*batch, K)) from ids (*batch), or (*batch, N) for bags: one step, for streaming.

        The logits after t steps are those of the whole run at t with `every`, or of the first t steps with `last`.

        Raises:
            ValueError: if a layer is bidirectional, or `pooling` needs more than the last step.
        """
        if self.pooling not in (every, last):
            name = getattr(self.pooling, "__name__", self.pooling)
            raise ValueError(
                f"{name} needs the whole sequence, so the model has no step. Use pooling=every or pooling=last, or "
                "call the model on the whole sequence."
            )
        x = self._embedded(params, ids)
        check_step(self.layers, params.layers, state, x)
        state, y = step(need_step(self.layers, self), params.layers, state, x, key)
        return state, readout(params.readout, y)
