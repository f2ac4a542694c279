"""Flax `nnx`, as its guide on training has it: a module, an `nnx.Optimizer`, a step under `nnx.jit`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from examples.intent.layers import MEAN_SCALE
from jaxrnn.interop.flax import to_nnx
from jaxrnn.train import Batch

from .task import SEED, Task


class Model(nnx.Module):
    """The intent model."""

    def __init__(self, task: Task, rngs: nnx.Rngs) -> None:
        params, config = jax.tree.map(jnp.asarray, task.params), task.config
        self.embed = nnx.Embed(*params.embed.shape, rngs=rngs)
        self.embed.embedding[...] = params.embed
        self.input_dropout = nnx.Dropout(config.input_dropout, rngs=rngs)
        self.layer = to_nnx(task.layer, jax.tree.map(jnp.asarray, task.layer_params), rngs=rngs)
        self.output_dropout = nnx.Dropout(config.output_dropout, rngs=rngs)
        self.readout = nnx.Linear(*params.readout.v.shape, rngs=rngs)
        self.readout.kernel[...], self.readout.bias[...] = params.readout
        self.word_dropout, self.rngs = task.recipe.word_dropout, rngs

    def __call__(self, ids: jax.Array, lengths: jax.Array, noise: bool) -> jax.Array:
        """Return the logits (B, K)."""
        if noise:
            kept = jax.random.bernoulli(self.rngs.words(), 1 - self.word_dropout, ids.shape[:-1])
            ids = ids.at[..., 0].multiply(kept)
        xs = self._mean(ids[..., :1]) + self._mean(ids[..., 1:])
        ys = self.layer(self.input_dropout(xs, deterministic=not noise), seq_lengths=lengths, time_major=True)
        valid = (jnp.arange(len(ids))[:, None] < lengths)[..., None]
        highest = jnp.where((lengths > 0)[:, None], jnp.where(valid, ys, -jnp.inf).max(axis=0), 0.0)
        mean = jnp.where(valid, xs, 0.0).sum(axis=0) / jnp.maximum(lengths, 1)[:, None].astype(xs.dtype)
        features = jnp.concatenate([highest, MEAN_SCALE * mean], axis=-1)
        return self.readout(self.output_dropout(features, deterministic=not noise))

    def _mean(self, ids: jax.Array) -> jax.Array:
        """Return the mean of the vectors of a bag; id 0 is nothing."""
        present = (ids != 0)[..., None]
        total = jnp.where(present, self.embed(ids), 0.0).sum(axis=-2)
        return total / jnp.maximum(present.sum(axis=-2), 1).astype(total.dtype)


class Learner:
    """The recipe's optimizer, clipping before it."""

    def __init__(self, task: Task) -> None:
        self._model = Model(task, nnx.Rngs(SEED))
        transformation = optax.chain(optax.clip_by_global_norm(1.0), task.recipe.optimizer(task.recipe.steps))
        self._optimizer = nnx.Optimizer(self._model, transformation, wrt=nnx.Param)
        self._logits = nnx.jit(lambda model, ids, lengths: model(ids, lengths, noise=False))
        self._step = nnx.jit(train_step(task.recipe.smoothing))

    def logits(self, batch: Batch) -> np.ndarray:
        """Return (B, K), without noise."""
        return np.asarray(self._logits(self._model, batch.ids, batch.lengths))

    def step(self, batch: Batch) -> jax.Array:
        """Train on a batch, and return the loss."""
        return self._step(self._model, self._optimizer, batch)

    def wait(self) -> None:
        """Return when every step is done."""
        jax.block_until_ready(nnx.state((self._model, self._optimizer)))


def train_step(smoothing: float) -> Any:
    """Build the step from model, optimizer and batch to the loss; it changes the first two."""

    def step(model: Model, optimizer: nnx.Optimizer, batch: Batch) -> jax.Array:
        def loss(model: Model) -> jax.Array:
            logits = model(jnp.asarray(batch.ids), batch.lengths, noise=True)
            targets = optax.smooth_labels(jax.nn.one_hot(batch.labels, logits.shape[-1]), smoothing)
            return (optax.softmax_cross_entropy(logits, targets) * batch.weights).sum() / batch.weights.sum()

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    return step
