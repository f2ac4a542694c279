"""A linear readout in closed form, for states that are not trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .._core.broadcasting import broadcasting
from .._core.checks import as_flags, as_lengths, as_numbers
from .._core.fields import not_negative
from .._core.masks import length_mask
from ._sequence_model import ReadoutParams

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int


@broadcasting
def ridge_readout(
    hs: Float[Array, "T *batch H"],
    targets: Float[Array, "T *batch K"],
    *,
    regularization: float = 1e-6,
    lengths: Int[ArrayLike, "*batch"] | None = None,
    mask: Bool[ArrayLike, T * batch] | None = None,
) -> ReadoutParams:
    """Return the readout that minimizes Σ_t |h_t V + c - target_t|² + λ |V|²: linear regression with a penalty.

    Args:
        hs: states or outputs of a cell, (T, *batch, H).
        targets: (T, *batch, K).
        regularization: λ, at least 0; the bias c has no penalty.
        lengths: integers (*batch): step t of row b counts where t < lengths[b].
        mask: booleans (T, *batch): the steps that count, such as those after a washout.

    The products are summed in the dtype of `hs`: with λ near 0 and many units, use float64.

    >>> from jaxrnn.model import readout, ridge_readout
    >>> cell, key = EchoState(50, initializer=Reservoir(input_scale=0.1)), jax.random.key(0)
    >>> xs = jax.random.uniform(key, (200, 1, 1))
    >>> state, ys = unroll(cell, cell.init(key, in_dim=1), xs)
    >>> params = ridge_readout(ys[3:], xs[:-3])  # the input of three steps before
    >>> jnp.abs(readout(params, ys[3:]) - xs[:-3]).max().item() < 0.05
    True

    Raises:
        ValueError: for shapes that do not fit, for λ = 0 where the solution is not unique, and for a λ that is lost in
            the rounding. The last two are not checked under `jax.jit`.

    Reference: Lukoševičius, "A practical guide to applying echo state networks", 2012, eq. 9.
    """
    strength = not_negative(regularization, "regularization")
    hs, targets = (jnp.asarray(as_numbers(name, a)) for name, a in (("hs", hs), ("targets", targets)))
    if hs.ndim < 2 or hs.shape[:-1] != targets.shape[:-1]:
        raise ValueError(
            f"hs (T, *batch, H) and targets (T, *batch, K) must agree in all but the last axis; got {hs.shape} and "
            f"{targets.shape}. For one target a step pass targets[..., None]."
        )
    num_steps, *batch = hs.shape[:-1]
    lengths = as_lengths(lengths, num_steps, tuple(batch))
    counts = jnp.ones(hs.shape[:-1], bool) if lengths is None else length_mask(jnp.asarray(lengths), num_steps)
    if mask is not None:
        counts = counts & as_flags("mask", mask, num_steps, tuple(batch))
    rows = lambda a: jnp.where(counts[..., None], a, 0).astype(hs.dtype).reshape(-1, a.shape[-1])
    return _solve(rows(hs), rows(targets), counts.reshape(-1, 1).astype(hs.dtype), strength)


def _solve(h: jax.Array, target: jax.Array, counts: jax.Array, strength: float) -> ReadoutParams:
    """Return the solution for rows h (N, H) and target (N, K), which are zero where counts (N, 1) is."""
    total = jnp.maximum(counts.sum(), 1)
    h_mean, target_mean = h.sum(0) / total, target.sum(0) / total
    h, target = h - counts * h_mean, target - counts * target_mean
    gram = jnp.matmul(h.T, h, precision="highest")
    _check_unique(gram, strength)
    system = gram + strength * jnp.eye(len(gram), dtype=gram.dtype)
    factor = jax.scipy.linalg.cho_factor(system)
    v = jax.scipy.linalg.cho_solve(factor, jnp.matmul(h.T, target, precision="highest"))
    if not isinstance(v, jax.core.Tracer) and not jnp.isfinite(v).all():
        raise ValueError(
            f"regularization={strength} is lost in the rounding of {gram.dtype}, or hs or targets are not finite where "
            "they count. Use a larger regularization, or float64."
        )
    return ReadoutParams(v, target_mean - h_mean @ v)


def _check_unique(gram: jax.Array, strength: float) -> None:
    """Raise ValueError if the system without a penalty is singular, where its numbers are known."""
    if strength or isinstance(gram, jax.core.Tracer):
        return
    values = jnp.linalg.eigvalsh(gram)
    rank = int((values > values[-1] * len(gram) * jnp.finfo(gram.dtype).eps).sum())
    if rank < len(gram):
        raise ValueError(
            f"regularization=0 needs {len(gram)} independent features; the steps that count have {rank}, so the "
            "solution is not unique. Use a regularization above 0, such as 1e-6, or more steps."
        )
