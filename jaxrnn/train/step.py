"""One step of training: loss, gradient, clipping and an Optax optimizer, as one compiled function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

Params = Any  # a pytree of arrays
Batch = Any  # a pytree of arrays
Carry = Any  # a pytree of arrays
Metrics = dict[str, jax.Array]
Loss = Callable[[Params, Batch, Any], tuple[jax.Array, Metrics]]
"""(params, batch, key or None) -> (a scalar, scalars to report). A metric `weight` is what a batch counts in means."""

TrainStep = Callable[["TrainState", Batch], tuple["TrainState", Metrics]]


class TrainState(NamedTuple):
    """All that changes during training.

    Attributes:
        params: what is trained.
        opt_state: the optimizer's.
        step: () int32, how many batches were seen; noise is drawn from `fold_in(key, step)`.
        key: what all noise comes from; it stays what it is.
        skipped: () int32, how many batches were left out because loss or gradient was not finite.
        carry: what a `Carried` loss hands from one batch to the next; () for others.
    """

    params: Params
    opt_state: optax.OptState
    step: jax.Array
    key: jax.Array
    skipped: jax.Array
    carry: Carry = ()


@dataclasses.dataclass(frozen=True)
class Carried:
    """A loss that carries something from batch to batch: the state of a recurrent network, over windows of time.

    No gradient flows through what is carried.

    Args:
        loss: (params, carry, batch, key) -> (carry, a scalar, metrics).
        initial: params -> the first carry.
    """

    loss: Callable[[Params, Carry, Batch, Any], tuple[Carry, jax.Array, Metrics]]
    initial: Callable[[Params], Carry]


def init(params: Params, optimizer: optax.GradientTransformation, key: jax.Array, carry: Carry = ()) -> TrainState:
    """Give the state before the first step: copies, so that donating it leaves the caller's arrays alone.

    Where params are on a mesh (`jax.device_put(params, NamedSharding(mesh, PartitionSpec()))`), all of it is.

    Args:
        params: a pytree of floating arrays.
        optimizer: any Optax optimizer.
        key: what all noise comes from.
        carry: `loss.initial(params)` for a `Carried` loss.
    """
    zero = jnp.zeros((), jnp.int32)
    return copy(_together(TrainState(params, optimizer.init(params), zero, key, zero, carry)))


def _together(state: TrainState) -> TrainState:
    """Put what is on one device where params are: it would be there after the first step, and compile a second."""
    laid = lambda a: isinstance(getattr(a, "sharding", None), NamedSharding)  # a NumPy array has none
    meshes = {leaf.sharding.mesh for leaf in jax.tree.leaves(state.params) if laid(leaf)}
    if len(meshes) != 1:
        return state
    spread = jax.jit(lambda a: a, out_shardings=NamedSharding(meshes.pop(), PartitionSpec()))
    return jax.tree.map(lambda a: a if laid(a) else spread(a), state)


def copy(tree: Any) -> Any:
    """Give a tree of arrays that share no memory with `tree`'s, none of a weak type (which would compile twice)."""
    return jax.tree.map(lambda a: jnp.array(a, dtype=jnp.asarray(a).dtype, copy=True), tree)


def make_step(loss: Loss | Carried, optimizer: optax.GradientTransformation, *, clip: float | None = 1.0) -> TrainStep:
    """Make `train_step(state, batch) -> (state, metrics)`, compiled once for every shape of batch.

    The state handed in is donated: use the one that comes back. Where the loss or the norm of the gradient is not
    finite, params, opt_state and carry stay as they are, and `state.skipped` counts one more.

    Args:
        loss: (params, batch, key) -> (a scalar, a dict of scalars); or a `Carried`.
        optimizer: any Optax optimizer, schedules included; those that ask for `value`, `grad` and `value_fn` get them.
        clip: the greatest global norm of the gradient, to which longer ones are scaled; None does not clip.

    Returns:
        A function whose metrics are the loss's and `loss`, `grad_norm` (before clipping) and `skipped` (0 or 1).

    Raises:
        ValueError: at trace time, if the loss reports a metric under one of these three names.

    >>> import optax
    >>> from jaxrnn.train import init, make_step
    >>> def loss(w, batch, key): return jnp.mean((batch - w) ** 2), {}
    >>> step = make_step(loss, optax.sgd(0.1))
    >>> state, metrics = step(init(jnp.zeros(2), optax.sgd(0.1), jax.random.key(0)), jnp.ones((4, 2)))
    >>> int(state.step), sorted(metrics)
    (1, ['grad_norm', 'loss', 'skipped'])

    Reference: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", 2013,
    algorithm 1 (https://arxiv.org/abs/1211.5063).
    """
    clipper = optax.identity() if clip is None else optax.clip_by_global_norm(clip)
    carried = loss if isinstance(loss, Carried) else _uncarried(loss)
    optimize = optax.with_extra_args_support(optimizer)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)

        def value(params: Params) -> tuple[jax.Array, tuple[Carry, Metrics]]:
            carry, scalar, metrics = carried.loss(params, state.carry, batch, key)
            return scalar, (carry, metrics)

        (scalar, (carry, metrics)), grads = jax.value_and_grad(value, has_aux=True)(state.params)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(scalar) & jnp.isfinite(norm)
        kept = state.params, state.opt_state, state.carry

        def take() -> tuple[Params, optax.OptState, Carry]:
            clipped, _ = clipper.update(grads, clipper.init(state.params))
            updates, opt_state = optimize.update(
                clipped, state.opt_state, state.params, value=scalar, grad=clipped, value_fn=lambda p: value(p)[0]
            )
            return optax.apply_updates(state.params, updates), opt_state, carry

        new = jax.lax.cond(finite, take, lambda: kept)
        skipped = 1 - finite.astype(jnp.int32)
        state = TrainState(new[0], new[1], state.step + 1, state.key, state.skipped + skipped, new[2])
        return state, report(metrics, loss=scalar, grad_norm=norm, skipped=skipped)

    return jax.jit(train_step, donate_argnums=0)


def _uncarried(loss: Loss) -> Carried:
    """Be a `Carried` that carries nothing."""

    def carried(params: Params, carry: Carry, batch: Batch, key: jax.Array) -> tuple[Carry, jax.Array, Metrics]:
        return carry, *loss(params, batch, key)

    return Carried(carried, lambda params: ())


def report(metrics: Metrics, **own: Any) -> Metrics:
    """Put the loss's metrics and the step's side by side."""
    if taken := sorted(metrics.keys() & own.keys()):
        raise ValueError(f"train_step reports {taken} itself: give the loss's metrics other names")
    return {**own, **metrics}
