"""Early stopping: which epoch is best by one metric, and when to stop."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Keep the best epoch by one metric of `evaluate`, and stop after `patience` epochs without a better one.

    Args:
        metric: the name of the metric in the history, as `evaluate` returns it. NaN is never best.
        mode: "min" or "max": whether a lower or a higher value is better.
        patience: the number of epochs without improvement after which training stops, at least 1; None never stops.

    >>> early_stopping = EarlyStopping("loss", patience=1)
    >>> history = [{"loss": 2.0}, {"loss": 1.0}, {"loss": 1.5}]
    >>> early_stopping.best(history), early_stopping.should_stop(history)
    (1, True)
    """

    metric: str = "loss"
    mode: Literal["min", "max"] = "min"
    patience: int | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.mode not in ("min", "max"):
            raise ValueError(f'mode must be "min" or "max"; got {self.mode!r}')
        if not isinstance(self.metric, str):
            raise TypeError(f"metric must be the name of a metric that evaluate returns; got {self.metric!r}")
        if self.patience is not None and (not isinstance(self.patience, int) or self.patience < 1):
            raise ValueError(f"patience must be at least 1 epoch, or None; got {self.patience!r}")

    def best(self, history: Sequence[Mapping[str, float]]) -> int | None:
        """Return the index of the best epoch, the first of equals; None if every value is NaN or there is no epoch."""
        sign = 1 if self.mode == "min" else -1
        values = [(sign * record[self.metric], epoch) for epoch, record in enumerate(history)]
        return min((value for value in values if not math.isnan(value[0])), default=(0, None))[1]

    def should_stop(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Return whether the last `patience` epochs brought no improvement."""
        if self.patience is None:
            return False
        best = self.best(history)
        return len(history) - (0 if best is None else best + 1) >= self.patience
