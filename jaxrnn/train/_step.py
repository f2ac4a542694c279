"""One step of training: loss, gradient, clipping and an Optax optimizer, as one compiled function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from .._core.types import Key, Params

if TYPE_CHECKING:
    from jaxtyping import Array, Int

Batch: TypeAlias = Any
"""A pytree of arrays, as `batches` of `fit` yields it."""

Carry: TypeAlias = Any
"""A pytree of arrays that a `Carried` loss hands from one batch to the next."""

Metrics: TypeAlias = dict[str, jax.Array]
"""Scalars by name."""

Loss: TypeAlias = Callable[[Params, Batch, Key | None], tuple[jax.Array, Metrics]]
"""(params, batch, key or None) -> (scalar, metrics). A metric `weight` is the weight of the batch in means."""

TrainStep: TypeAlias = Callable[["TrainState", Batch], tuple["TrainState", Metrics]]
"""(state, batch) -> (state, metrics)."""

Tree = TypeVar("Tree")


class TrainState(NamedTuple):
    """All that changes during training.

    Attributes:
        params: the params, a pytree of floating arrays.
        opt_state: the state of the optimizer.
        step: () int32, the number of batches so far; noise is drawn from `fold_in(key, step)`.
        key: the random key of all noise; it does not change.
        skipped: () int32, the number of batches that were skipped because loss or gradient was not finite.
        carry: what a `Carried` loss hands from one batch to the next; () for other losses.
    """

    params: Params
    opt_state: optax.OptState
    step: Int[Array, ""]
    key: Key
    skipped: Int[Array, ""]
    carry: Carry = ()


@dataclasses.dataclass(frozen=True)
class Carried:
    """A loss with a carry from batch to batch: the state of a recurrent network, over windows of time.

    No gradient flows through the carry.

    Args:
        loss: (params, carry, batch, key) -> (carry, scalar, metrics); the carry keeps its structure, shapes and dtypes.
        initial: params -> the first carry.
    """

    loss: Callable[[Params, Carry, Batch, Key | None], tuple[Carry, jax.Array, Metrics]]
    initial: Callable[[Params], Carry]


def init(params: Params, optimizer: optax.GradientTransformation, key: Key, carry: Carry = ()) -> TrainState:
    """Return the state before the first step. It holds copies, so donating it leaves the caller's arrays intact.

    If params are on a mesh (`jax.device_put(params, NamedSharding(mesh, PartitionSpec()))`), the whole state is.

    Args:
        params: a pytree of floating arrays.
        optimizer: any Optax optimizer.
        key: one random key, (), or a raw key (2,) uint32: all noise is drawn from it.
        carry: `loss.initial(params)` for a `Carried` loss.

    Raises:
        TypeError: if a leaf of params is no floating array, or optimizer or key is of another type.

    >>> import optax
    >>> from jaxrnn.train import init
    >>> state = init(jnp.zeros(2), optax.sgd(0.1), jax.random.key(0))
    >>> state.step.shape, int(state.skipped)
    ((), 0)
    """
    _check_optimizer(optimizer)
    _check_params(params)
    _check_key(key)
    zero = jnp.zeros((), jnp.int32)
    return copy(_on_one_mesh(TrainState(params, optimizer.init(params), zero, key, zero, carry)))


def _on_one_mesh(state: TrainState) -> TrainState:
    """Replicate the rest of the state over the mesh of the params.

    The first step returns it there, so the second step would compile again.
    """
    on_mesh = lambda a: isinstance(getattr(a, "sharding", None), NamedSharding)  # a NumPy array has none
    meshes = {leaf.sharding.mesh for leaf in jax.tree.leaves(state.params) if on_mesh(leaf)}
    if len(meshes) != 1:
        return state
    replicate = jax.jit(lambda a: a, out_shardings=NamedSharding(meshes.pop(), PartitionSpec()))
    return jax.tree.map(lambda a: a if on_mesh(a) else replicate(a), state)


def copy(tree: Tree) -> Tree:
    """Return a copy of a tree of arrays without weak types, which would compile twice."""
    return jax.tree.map(lambda a: jnp.array(a, dtype=jnp.asarray(a).dtype, copy=True), tree)


def make_step(loss: Loss | Carried, optimizer: optax.GradientTransformation, *, clip: float | None = 1.0) -> TrainStep:
    """Build `train_step(state, batch) -> (state, metrics)`, compiled once for every shape of batch.

    The argument `state` is donated: use the returned one. If the loss or the norm of the gradient is not finite,
    params, opt_state and carry do not change, and `state.skipped` increases by one.

    Args:
        loss: (params, batch, key) -> (scalar (), dict of scalars ()); or a `Carried`.
        optimizer: any Optax optimizer, with or without a schedule; `value`, `grad` and `value_fn` are passed to those
            that take them.
        clip: the maximum global norm of the gradient, to which larger gradients are scaled; None does not clip.

    Returns:
        A function whose metrics are those of the loss and `loss`, `grad_norm` (before clipping) and `skipped` (0 or
        1), scalars ().

    Raises:
        TypeError: if loss or optimizer is of another type; at trace time, if the loss returns anything else.
        ValueError: if clip is not above 0; at trace time, if a metric of the loss has one of these three names.

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

        def value_fn(params: Params) -> tuple[jax.Array, tuple[Carry, Metrics]]:
            carry, scalar, metrics = carried.loss(params, state.carry, batch, key)
            _check_carry(state.carry, carry)
            return scalar, (carry, metrics)

        (scalar, (carry, metrics)), grads = jax.value_and_grad(value_fn, has_aux=True)(state.params)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(scalar) & jnp.isfinite(norm)
        unchanged = state.params, state.opt_state, state.carry

        def update() -> tuple[Params, optax.OptState, Carry]:
            clipped, _ = clipper.update(grads, clipper.init(state.params))
            updates, opt_state = optimize.update(
                clipped, state.opt_state, state.params, value=scalar, grad=clipped, value_fn=lambda p: value_fn(p)[0]
            )
            return optax.apply_updates(state.params, updates), opt_state, carry

        new = jax.lax.cond(finite, update, lambda: unchanged)
        skipped = 1 - finite.astype(jnp.int32)
        state = TrainState(new[0], new[1], state.step + 1, state.key, state.skipped + skipped, new[2])
        return state, report(metrics, loss=scalar, grad_norm=norm, skipped=skipped)

    return jax.jit(train_step, donate_argnums=0)


def as_carried(loss: Loss | Carried) -> Carried:
    """Return a loss as a `Carried` whose results are checked; the carry of a plain loss is ().

    Raises:
        TypeError: if the loss is no function; at trace time, if it does not return what `make_step` documents.
    """
    if not callable(loss) and not isinstance(loss, Carried):
        raise TypeError(f"loss must be a function (params, batch, key), or a Carried; got a {type(loss).__name__}")

    def checked(params: Params, carry: Carry, batch: Batch, key: Key | None) -> tuple[Carry, jax.Array, Metrics]:
        found: object = loss.loss(params, carry, batch, key) if isinstance(loss, Carried) else loss(params, batch, key)
        form = "(carry, a scalar, a dict of metrics)" if isinstance(loss, Carried) else "(a scalar, a dict of metrics)"
        if not isinstance(found, tuple) or len(found) != form.count(",") + 1:
            raise TypeError(f"a loss must return {form}, {{}} for no metrics; it returned a {type(found).__name__}")
        *carried, scalar, metrics = found
        _check_scalars(scalar, metrics)
        return carried[0] if carried else carry, scalar, metrics

    return Carried(checked, loss.initial if isinstance(loss, Carried) else lambda params: ())


def _check_scalars(scalar: ArrayLike, metrics: object) -> None:
    """Raise TypeError unless a loss returned a floating scalar and a dict of scalars."""
    if jnp.shape(scalar) != () or not jnp.issubdtype(jnp.result_type(scalar), jnp.floating):
        raise TypeError(
            f"a loss must be a floating scalar, such as a mean; got {jnp.result_type(scalar)}{list(jnp.shape(scalar))}"
        )
    if not isinstance(metrics, dict):
        raise TypeError(f"the metrics of a loss must be a dict of scalars; got a {type(metrics).__name__}")
    for name, value in metrics.items():
        if not isinstance(value, jax.Array | np.ndarray | np.generic | float | int) or jnp.shape(value) != ():
            shape = list(value.shape) if isinstance(value, jax.Array | np.ndarray) else ""
            raise TypeError(f"the metrics of a loss must be scalars; {name} is a {type(value).__name__}{shape}")


def _check_carry(before: Carry, after: Carry) -> None:
    """Raise TypeError unless the new carry has the structure, shapes and dtypes of the old one."""
    kinds = [jax.tree.map(lambda a: f"{jnp.result_type(a)}{list(jnp.shape(a))}", carry) for carry in (before, after)]
    if kinds[0] != kinds[1]:
        raise TypeError(f"a Carried loss must return a carry as it was given, {kinds[0]!s:.200}; got {kinds[1]!s:.200}")


def _check_optimizer(optimizer: object) -> None:
    """Raise TypeError unless the optimizer has `init` and `update`."""
    if not callable(getattr(optimizer, "init", None)) or not callable(getattr(optimizer, "update", None)):
        name = getattr(optimizer, "__name__", f"a {type(optimizer).__name__}")
        raise TypeError(
            f"optimizer must be one of Optax, such as optax.adam(1e-3); got {name}, without init and update"
        )


def _check_params(params: Params) -> None:
    """Raise TypeError, with its name, for a leaf that is no floating array."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        number = isinstance(leaf, jax.Array | np.ndarray | np.generic | float | complex)
        if not number or not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            array = isinstance(leaf, jax.Array | np.ndarray | np.generic)
            what = f"{leaf.dtype}{list(leaf.shape)}" if array else f"a {type(leaf).__name__}"
            name = f"params{jax.tree_util.keystr(path)}"
            raise TypeError(f"params must be floating arrays, which gradients change; {name} is {what}")


def _check_key(key: object) -> None:
    """Raise TypeError unless the key is one random key, typed or raw."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0
    raw = isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32 and key.ndim == 1
    if not (typed or raw):
        got = f"{key.dtype}{list(key.shape)}" if isinstance(key, jax.Array | np.ndarray) else repr(key)
        raise TypeError(f"key must be one random key, such as jax.random.key(0); got {got:.60}")


def report(metrics: Metrics, **reserved: jax.Array) -> Metrics:
    """Return the metrics of the loss together with those of the step."""
    if taken := sorted(metrics.keys() & reserved.keys()):
        raise ValueError(f"train_step reports {taken} itself: choose other names for the metrics of the loss")
    return {**reserved, **metrics}
