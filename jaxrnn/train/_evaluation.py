"""Evaluation: the mean loss over held-out batches, without noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp

from .._core.types import Params
from ._fit import Evaluate, means
from ._step import Batch, Carried, Carry, Loss, Metrics, as_carried, report


def evaluation(loss: Loss | Carried, batches: Callable[[], Iterable[Batch]]) -> Evaluate:
    """Return an `evaluate` for `fit`: it computes the means of `loss` and its metrics over `batches()`, with key=None.

    Args:
        loss: as for `make_step`; its metric `weight` is the weight of a batch in the means.
        batches: a function without arguments that returns the batches, called at every evaluation.

    Returns:
        A function from params to a dict of floats: `loss`, and the metrics of the loss under their names.

    Raises:
        TypeError: if loss or batches is no function.
        ValueError: when called, if `batches()` returns no batch.

    >>> def loss(w, batch, key): return jnp.mean((batch - w) ** 2), {}
    >>> evaluation(loss, lambda: [jnp.ones((4, 2))])(jnp.zeros(2))
    {'loss': 1.0}
    """
    carried = as_carried(loss)
    if not callable(batches):
        raise TypeError(
            f"batches must be a function without arguments that returns the batches; got a {type(batches).__name__}. "
            "For a list: lambda: batches"
        )

    def step(params: Params, carry: Carry, batch: Batch) -> tuple[Carry, Metrics]:
        carry, scalar, metrics = carried.loss(params, carry, batch, None)
        return carry, report(metrics, loss=scalar, skipped=jnp.zeros((), jnp.int32))

    compiled = jax.jit(step)

    def evaluate(params: Params) -> dict[str, float]:
        carry = carried.initial(params)
        reports = []
        for batch in batches():
            carry, metrics = compiled(params, carry, batch)
            reports.append(metrics)
        if not reports:
            raise ValueError("evaluation needs a batch; batches() returned none. It is called at every evaluation")
        record = means(jax.device_get(reports))
        return {name.removeprefix("train_"): value for name, value in record.items() if name != "skipped"}

    return evaluate
