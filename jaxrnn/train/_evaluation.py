"""A loss, without noise and without a gradient, over held-out batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax

from ._fit import means
from ._step import Batch, Carried, Loss, Params, as_carried, report


def evaluation(loss: Loss | Carried, batches: Callable[[], Iterable[Batch]]) -> Callable[[Params], dict[str, float]]:
    """Make an `evaluate` for `fit`: the means of `loss` and its metrics over `batches()`, with key=None.

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

    def step(params: Params, carry: Any, batch: Batch) -> Any:
        carry, scalar, metrics = carried.loss(params, carry, batch, None)
        return carry, report(metrics, loss=scalar, skipped=0)

    compiled = jax.jit(step)

    def evaluate(params: Params) -> dict[str, float]:
        carry = carried.initial(params)
        reports = []
        for batch in batches():
            carry, report = compiled(params, carry, batch)
            reports.append(report)
        if not reports:
            raise ValueError("evaluation needs a batch; batches() gave none: it is called every time")
        record = means(jax.device_get(reports))
        return {name.removeprefix("train_"): value for name, value in record.items() if name != "skipped"}

    return evaluate
