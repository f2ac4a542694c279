"""jaxrnn: what a user of the example gets, and the same under a driver that is named."""

from __future__ import annotations

import functools

import jax
import numpy as np

from examples.intent.classifier import BOUNDARIES, Params
from examples.intent.train import Loss
from jaxrnn import Driver
from jaxrnn.train import Batch, LengthGroups, init, make_step

from .task import SEED, Answer, Task


class Learner:
    """The example's loss and optimizer under `make_step`."""

    def __init__(self, task: Task, driver: Driver | None) -> None:
        optimizer = task.recipe.optimizer(task.recipe.steps)
        self._step = make_step(Loss(task.model, task.recipe, driver=driver), optimizer)
        self._state = init(Params(task.params), optimizer, jax.random.key(SEED))
        self._logits = jax.jit(functools.partial(task.model, driver=driver))

    def logits(self, batch: Batch) -> np.ndarray:
        """Return (B, K), without noise."""
        return np.asarray(self._logits(self._state.params.model, batch.ids, batch.lengths))

    def step(self, batch: Batch) -> jax.Array:
        """Train on a batch, and return the loss."""
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
