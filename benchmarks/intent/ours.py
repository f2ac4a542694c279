"""jaxrnn: what a user of the example gets, and the same under a driver that is named."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from examples.intent.classifier import BOUNDARIES
from examples.intent.train import Loss
from jaxrnn import Driver
from jaxrnn.model import SequenceModel
from jaxrnn.train import Batch, LengthGroups, init, make_step

from .task import SEED, Answer, Task


@dataclasses.dataclass(frozen=True)
class Driven:
    """A model under one driver; None is `select`'s choice."""

    model: SequenceModel
    driver: Driver | None

    def __call__(self, params: Any, ids: Any, lengths: Any, key: Any = None) -> jax.Array:
        """Give the logits."""
        return self.model(params, ids, lengths, key=key, driver=self.driver)


class Learner:
    """The example's loss and optimizer under `make_step`."""

    def __init__(self, task: Task, driver: Driver | None) -> None:
        model, optimizer = Driven(task.model, driver), task.recipe.optimizer(task.recipe.steps)
        self._step = make_step(Loss(model, task.recipe), optimizer)  # type: ignore[arg-type]
        self._state = init(task.params, optimizer, jax.random.key(SEED))
        self._logits = jax.jit(model)

    def logits(self, batch: Batch) -> np.ndarray:
        """Give (B, K), without noise."""
        return np.asarray(self._logits(self._state.params, batch.ids, batch.lengths))

    def step(self, batch: Batch) -> jax.Array:
        """Train on a batch, and give the loss."""
        self._state, metrics = self._step(self._state, batch)
        return metrics["loss"]

    def wait(self) -> None:
        """Return when every step is done."""
        jax.block_until_ready(self._state)


def answering(task: Task) -> Answer:
    """Answer as the example's `Classifier` does: compiled, padded to the next of its boundaries."""
    params = jax.tree.map(jax.numpy.asarray, task.params)
    probabilities = jax.jit(lambda params, ids, lengths: jax.nn.softmax(task.model(params, ids, lengths)))
    groups = LengthGroups(BOUNDARIES)

    def answer(ids: np.ndarray) -> np.ndarray:
        steps, width = ids.shape
        padded = np.zeros((BOUNDARIES[groups.of(steps)], 1, width), np.int32)
        padded[:steps, 0] = ids
        return np.asarray(probabilities(params, padded, np.array([steps], np.int32)))[0]

    return answer
