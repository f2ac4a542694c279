"""What to beat: softmax regression over the bag of a text's words and n-grams, which knows no order of words."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .data import Corpus
from .formats import Example
from .text import Vocabulary

EPOCHS, BATCH, RATE = 15, 128, 0.02


def bag_of_words(corpus: Corpus, *, seed: int) -> float:
    """Train it on train, and give the accuracy on test."""
    vocabulary = Vocabulary.of(example.text for example in corpus.train)
    number = {label: i for i, label in enumerate(corpus.labels)}
    bags, test = _bags(corpus.train, vocabulary), _bags(corpus.test, vocabulary)
    answers, truth = (np.array([number[e.label] for e in part]) for part in (corpus.train, corpus.test))
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, EPOCHS * (len(bags) // BATCH + 1)))
    params = jnp.zeros((len(vocabulary), len(number))), jnp.zeros(len(number))
    state = optimizer.init(params)
    for epoch in range(EPOCHS):
        order = np.random.default_rng((seed, epoch)).permutation(len(bags))
        order = np.resize(order, (len(bags) // BATCH + 1, BATCH))  # the last batch is filled up from the first
        params, state = _epoch(optimizer, params, state, bags[order], answers[order])
    right = [np.asarray(_logits(params, test[i : i + BATCH])).argmax(-1) for i in range(0, len(test), BATCH)]
    return float((np.concatenate(right) == truth).mean())


def _bags(examples: list[Example], vocabulary: Vocabulary) -> np.ndarray:
    """Give (n, M): the distinct ids of each text, 0 in the padding."""
    bags = [np.unique(vocabulary.ids(example.text)) for example in examples]
    padded = np.zeros((len(bags), max(map(len, bags))), np.int32)
    for row, bag in zip(padded, bags, strict=True):
        row[: len(bag)] = bag[::-1]
    return padded


def _logits(params: Any, bags: Any) -> jax.Array:
    """Give (B, K): the sum of the rows of the ids, as of a vector of length 1."""
    table, bias = params
    there = (bags != 0)[..., None]
    return (table[bags] * there).sum(axis=1) / jnp.sqrt(there.sum(axis=1)) + bias


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def _epoch(optimizer: optax.GradientTransformation, params: Any, state: Any, bags: Any, answers: Any) -> Any:
    def step(carry: Any, batch: Any) -> Any:
        params, state = carry
        ids, labels = batch

        def loss(params: Any) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(_logits(params, ids), labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), (bags, answers))[0]
