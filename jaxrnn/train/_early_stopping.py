"""Which epoch was best, and when to stop."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Judge epochs by one score.

    Args:
        name: of the score in the records.
        mode: "min" or "max".
        patience: how many epochs without a new best are borne; None bears all.

    >>> history = [{"loss": 2.0}, {"loss": 1.0}, {"loss": 1.5}]
    >>> EarlyStopping("loss", "min", 1).best(history), EarlyStopping("loss", "min", 1).should_stop(history)
    (1, True)
    """

    name: str
    mode: str
    patience: int | None

    def __post_init__(self) -> None:
        """Check mode and patience."""
        if self.mode not in ("min", "max"):
            raise ValueError(f'mode must be "min" or "max"; got {self.mode!r}')
        if not isinstance(self.name, str):
            raise TypeError(f"monitor must be the name of a score; got {self.name!r}")
        if self.patience is not None and (not isinstance(self.patience, int) or self.patience < 1):
            raise ValueError(f"patience must be at least 1 epoch, or None; got {self.patience!r}")

    def best(self, history: Sequence[Mapping[str, Any]]) -> int | None:
        """Give the first of the best epochs; None if every score is NaN, or there is none."""
        sign = 1 if self.mode == "min" else -1
        scores = [(sign * record[self.name], epoch) for epoch, record in enumerate(history)]
        return min((score for score in scores if not math.isnan(score[0])), default=(0, None))[1]

    def should_stop(self, history: Sequence[Mapping[str, Any]]) -> bool:
        """Say whether patience has run out."""
        if self.patience is None:
            return False
        best = self.best(history)
        return len(history) - (0 if best is None else best + 1) >= self.patience
