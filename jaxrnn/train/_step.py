"""One step of training: loss, gradient, clipping and an Optax optimizer, as one compiled function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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

    Raises:
        TypeError: if params, optimizer or key are not that.
    """
    _check_optimizer(optimizer)
    _check_params(params)
    _check_key(key)
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
        TypeError, ValueError: if loss, optimizer or clip is not that; at trace time, if the loss returns something
            else, or a metric under one of these three names.

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
    _check_optimizer(optimizer)
    if clip is not None and (not isinstance(clip, int | float | np.number | jax.Array) or not clip > 0):
        raise ValueError(f"clip must be a number above 0, or None not to clip; got {clip!r}")
    clipper = optax.identity() if clip is None else optax.clip_by_global_norm(clip)
    carried = as_carried(loss)
    optimize = optax.with_extra_args_support(optimizer)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if not isinstance(state, TrainState):
            raise TypeError(f"train_step takes the TrainState that init returned; got a {type(state).__name__}")
        key = jax.random.fold_in(state.key, state.step)

        def value(params: Params) -> tuple[jax.Array, tuple[Carry, Metrics]]:
            carry, scalar, metrics = carried.loss(params, state.carry, batch, key)
            _check_carry(state.carry, carry)
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


def as_carried(loss: Loss | Carried) -> Carried:
    """Return a loss as one that carries something, which may be (), and whose results are checked.

    Raises:
        TypeError: if it is no function; at trace time, if it returns something else than is said at `make_step`.
    """
    if not callable(loss) and not isinstance(loss, Carried):
        raise TypeError(f"loss must be a function (params, batch, key), or a Carried; got a {type(loss).__name__}")

    def checked(params: Params, carry: Carry, batch: Batch, key: Any) -> tuple[Carry, jax.Array, Metrics]:
        found: Any = loss.loss(params, carry, batch, key) if isinstance(loss, Carried) else loss(params, batch, key)
        form = "(carry, a scalar, a dict of metrics)" if isinstance(loss, Carried) else "(a scalar, a dict of metrics)"
        if not isinstance(found, tuple) or len(found) != form.count(",") + 1:
            raise TypeError(f"a loss must return {form}, {{}} for no metrics; it returned a {type(found).__name__}")
        *carried, scalar, metrics = found
        _check_scalars(scalar, metrics)
        return carried[0] if carried else carry, scalar, metrics

    return Carried(checked, loss.initial if isinstance(loss, Carried) else lambda params: ())


def _check_scalars(scalar: Any, metrics: Any) -> None:
    """Raise TypeError unless a loss returned a floating scalar, and scalars by name."""
    if jnp.shape(scalar) != () or not jnp.issubdtype(jnp.result_type(scalar), jnp.floating):
        raise TypeError(
            f"a loss must be a floating scalar, as a mean is; got {jnp.result_type(scalar)}{list(jnp.shape(scalar))}"
        )
    if not isinstance(metrics, dict):
        raise TypeError(f"the metrics of a loss must be a dict of scalars; got a {type(metrics).__name__}")
    for name, value in metrics.items():
        if not isinstance(value, jax.Array | np.ndarray | np.generic | float | int) or jnp.shape(value) != ():
            shape = list(value.shape) if isinstance(value, jax.Array | np.ndarray) else ""
            raise TypeError(f"the metrics of a loss must be scalars; {name} is a {type(value).__name__}{shape}")


def _check_carry(before: Carry, after: Carry) -> None:
    """Raise TypeError unless what a loss hands on is as what it was handed."""
    kinds = [jax.tree.map(lambda a: f"{jnp.result_type(a)}{list(jnp.shape(a))}", carry) for carry in (before, after)]
    if kinds[0] != kinds[1]:
        raise TypeError(
            f"a Carried loss must return a carry as it was handed, {kinds[0]!s:.200}; got {kinds[1]!s:.200}"
        )


def _check_optimizer(optimizer: Any) -> None:
    """Raise TypeError unless it has the two functions of an Optax optimizer."""
    if not callable(getattr(optimizer, "init", None)) or not callable(getattr(optimizer, "update", None)):
        name = getattr(optimizer, "__name__", f"a {type(optimizer).__name__}")
        raise TypeError(f"optimizer must be one of Optax, as optax.adam(1e-3); got {name}, without init and update")


def _check_params(params: Params) -> None:
    """Raise TypeError, naming it, for a leaf that no gradient can change."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        number = isinstance(leaf, jax.Array | np.ndarray | np.generic | float | complex)
        if not number or not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            array = isinstance(leaf, jax.Array | np.ndarray | np.generic)
            what = f"{leaf.dtype}{list(leaf.shape)}" if array else f"a {type(leaf).__name__}"
            name = f"params{jax.tree_util.keystr(path)}"
            raise TypeError(f"params must be floating arrays, which gradients change; {name} is {what}")


def _check_key(key: Any) -> None:
    """Raise TypeError unless it is one random key, of either kind."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32
    if not ((typed and key.ndim == 0) or (raw and key.ndim == 1)):
        got = f"{key.dtype}{list(key.shape)}" if isinstance(key, jax.Array | np.ndarray) else repr(key)
        raise TypeError(f"key must be one random key, as jax.random.key(0); got {got:.60}")


def report(metrics: Metrics, **own: Any) -> Metrics:
    """Put the loss's metrics and the step's side by side."""
    if taken := sorted(metrics.keys() & own.keys()):
        raise ValueError(f"train_step reports {taken} itself: give the loss's metrics other names")
    return {**own, **metrics}
