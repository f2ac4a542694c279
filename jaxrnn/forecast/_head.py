"""What a head is: from the outputs of a network to the distribution of a number, and the loss over steps.

T time, B batch (any number of leading axes), K targets, F outputs for each target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .._core.broadcasting import broadcasting
from .._core.checks import as_numbers
from .._core.fields import show
from .._core.trees import at_least_float32
from .._core.types import Key
from ._scaling import Scale, step_mask

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int


@runtime_checkable
class Head(Protocol):
    """A family of distributions: a frozen value that holds no array. `scale` is that of the series, None for none.

    The outputs of the network are (..., F); targets and results are (...), in the units of the series.
    """

    @property
    def features(self) -> int:
        """F, the number of outputs for each target."""
        ...

    def loss(
        self, outputs: Float[Array, "... F"], targets: Float[ArrayLike, ...], scale: Scale | None = None
    ) -> Float[Array, ...]:
        """Return the loss of each target: the negative log likelihood, in nats, or another proper score."""
        ...

    def mean(self, outputs: Float[Array, "... F"], scale: Scale | None = None) -> Float[Array, ...]:
        """Return the mean of each distribution."""
        ...

    def quantiles(
        self, outputs: Float[Array, "... F"], levels: Sequence[float], scale: Scale | None = None
    ) -> Float[Array, "... Q"]:
        """Return the quantile of each level, between 0 and 1."""
        ...

    def sample(self, outputs: Float[Array, "... F"], key: Key, scale: Scale | None = None) -> Float[Array, ...]:
        """Draw one number from each distribution. For more, map it over keys by `jax.vmap`."""
        ...

    def crps(
        self, outputs: Float[Array, "... F"], targets: Float[ArrayLike, ...], scale: Scale | None = None
    ) -> Float[Array, ...]:
        """Return the continuous ranked probability score of each target, in the units of the series."""
        ...


@broadcasting
def forecast_loss(
    head: Head,
    outputs: Float[Array, "T *batch K F"],
    targets: Float[ArrayLike, "T *batch K"],
    *,
    scale: Scale | None = None,
    lengths: Int[ArrayLike, "*batch"] | None = None,
    mask: Bool[ArrayLike, T * batch] | None = None,
) -> Float[Array, ""]:
    """Return the mean loss of a head over the valid steps and the targets; 0 where no step is valid.

    What the outputs and the targets hold in the padding, NaN included, reaches neither the loss nor a gradient.

    Args:
        head: `Gaussian()`, `Quantiles((0.1, 0.5, 0.9))`, or another head.
        outputs: (T, *batch, K, F) of the network.
        targets: (T, *batch, K).
        scale: of each series, as a `Scaling` computes it; None for targets as they are.
        lengths: integers (*batch): step t of row b counts where t < lengths[b].
        mask: booleans (T, *batch): the steps that count, such as those that were observed.

    Raises:
        ValueError: for shapes that do not fit.

    >>> from jaxrnn.forecast import Gaussian, forecast_loss
    >>> outputs = jnp.zeros((5, 2, 3, 2))
    >>> loss = forecast_loss(Gaussian(), outputs, jnp.zeros((5, 2, 3)), lengths=jnp.array([5, 2]))
    >>> round(float(loss), 3)
    0.553
    """
    outputs, numbers = check_targets(head, outputs, targets)
    if outputs.ndim < 3:
        raise ValueError(f"forecast_loss needs outputs (T, *batch, K, F); got {outputs.shape}. Call head.loss for one.")
    valid = step_mask(outputs.shape[0], outputs.shape[1:-2], lengths, mask)[..., None]
    outputs = jnp.where(valid[..., None], outputs, jnp.zeros_like(outputs))
    losses = head.loss(outputs, jnp.where(valid, numbers, jnp.zeros_like(numbers)), scale)
    count = jnp.maximum(valid.sum(), 1).astype(losses.dtype) * outputs.shape[-2]
    return jnp.where(valid, losses, jnp.zeros_like(losses)).sum() / count


def check_outputs(head: Head, outputs: ArrayLike) -> jax.Array:
    """Return outputs (..., F) as floats, of 32 bits at least; raise ValueError for another number of outputs."""
    outputs = jnp.asarray(as_numbers("outputs", outputs))
    if outputs.ndim == 0 or outputs.shape[-1] != head.features:
        raise ValueError(
            f"{show(head)} takes {head.features} outputs for each target, (..., {head.features}); got {outputs.shape}. "
            f"Let the last layer have K * {head.features} features, and reshape them to (..., K, {head.features})."
        )
    return outputs.astype(at_least_float32(outputs.dtype if jnp.issubdtype(outputs.dtype, jnp.floating) else None))


def check_targets(head: Head, outputs: ArrayLike, targets: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return outputs (..., F) and targets (...) as floats of one dtype; raise ValueError unless they fit."""
    outputs, numbers = check_outputs(head, outputs), jnp.asarray(as_numbers("targets", targets))
    if numbers.shape != outputs.shape[:-1]:
        raise ValueError(f"outputs {outputs.shape} need targets {outputs.shape[:-1]}; got {numbers.shape}")
    return outputs, numbers.astype(outputs.dtype)


def check_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Return levels as floats; raise ValueError unless they are one or more numbers between 0 and 1."""
    try:
        found = tuple(float(level) for level in levels)
    except TypeError as error:
        raise ValueError(f"levels must be numbers between 0 and 1, such as (0.1, 0.5, 0.9); got {levels!r}") from error
    if not found or not all(0 < level < 1 for level in found):
        raise ValueError(f"levels must be one or more numbers between 0 and 1, such as (0.1, 0.5, 0.9); got {found}")
    return found


def located(scale: Scale | None, like: jax.Array) -> tuple[jax.Array | float, jax.Array | float]:
    """Return the location and the scale in the dtype of `like`; 0 and 1 for None."""
    if scale is None:
        return 0.0, 1.0
    return (0.0 if scale.loc is None else scale.loc.astype(like.dtype)), scale.scale.astype(like.dtype)
