"""Recurrent PPO: from windows of many episodes, whose first state is stored with them, and reset inside.

Schulman et al., "Proximal policy optimization algorithms", 2017 (https://arxiv.org/abs/1707.06347); the stored state:
Kapturowski et al., "Recurrent experience replay in distributed reinforcement learning", 2019. The mazes of
`examples.maze` are the environment.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrnn import unroll
from jaxrnn.extend import where
from jaxrnn.train import init, make_step

from .maze import FEATURES, Outcome, move, observe, start

DISCOUNT, TRACE, CLIP, ENTROPY = 0.99, 0.95, 0.2, 0.01
EPOCHS, PARTS = 4, 4  # on each window; a part is some of the mazes, over all steps


class Policy(NamedTuple):
    """Layers whose outputs are the logits of the actions and a value, and the function that runs them over time."""

    layers: Any
    run: Callable[..., tuple[Any, jax.Array]] = unroll


class Window(NamedTuple):
    """T steps of B mazes: the state of the policy before them, then arrays (T, B, ...).

    `resets` is true where an episode begins with a step, `outcome.done` where one ends with it: one step earlier.
    """

    state: Any
    xs: jax.Array
    resets: jax.Array
    actions: jax.Array
    log_probs: jax.Array
    values: jax.Array
    outcome: Outcome


@functools.partial(jax.jit, static_argnames=("policy", "steps", "length"))
def play(policy: Policy, params: Any, carry: Any, key: jax.Array, steps: int, length: int) -> tuple[Any, Window, Any]:
    """Return the carry after `steps` steps, the window of them, and (advantages, returns), (T, B) each."""

    def one(carry: Any, key: jax.Array) -> tuple[Any, Any]:
        maze, state, begins = carry
        k_action, k_maze = jax.random.split(key)
        state = where(begins, policy.layers.initial_state(params, begins.shape), state)
        xs = observe(maze, length)
        state, y = policy.layers.step(params, state, xs)
        action = jax.random.categorical(k_action, y[:, :-1])
        maze, outcome = move(maze, action, k_maze, length)
        return (maze, state, outcome.done), (xs, begins, action, log_prob(y, action), y[:, -1], outcome)

    def backward(carry: Any, row: Any) -> tuple[Any, jax.Array]:
        advantage, following = carry
        value, outcome = row
        error = outcome.reward + DISCOUNT * following * ~outcome.done - value
        advantage = error + DISCOUNT * TRACE * advantage * ~outcome.done
        return (advantage, value), advantage

    after, rows = jax.lax.scan(one, carry, jax.random.split(key, steps))
    window = Window(carry[1], *rows)
    following = one(after, key)[1][4]  # the value of the step after the window
    ends = jnp.zeros_like(following), following
    _, advantages = jax.lax.scan(backward, ends, (window.values, window.outcome), reverse=True)
    return after, window, (advantages, advantages + window.values)


def log_prob(y: jax.Array, action: jax.Array) -> jax.Array:
    """Return the log probability (...) of actions (...) for outputs (..., 4)."""
    return jnp.take_along_axis(jax.nn.log_softmax(y[..., :-1]), action[..., None], axis=-1)[..., 0]


def loss(policy: Policy, params: Any, batch: Any, key: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the objective of PPO on a part of a window: the policy is run again, from the stored state."""
    window, advantages, returns = batch
    _, ys = policy.run(policy.layers, params, window.xs, window.state, resets=window.resets)
    ratio = jnp.exp(log_prob(ys, window.actions) - window.log_probs)
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-6)
    gain = jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantages).mean()
    logs = jax.nn.log_softmax(ys[..., :-1])
    entropy = -(jnp.exp(logs) * logs).sum(-1).mean()
    return ((ys[..., -1] - returns) ** 2).mean() / 2 - gain - ENTROPY * entropy, {"entropy": entropy}


@jax.jit
def parts(window: Window, targets: Any, key: jax.Array) -> list[Any]:
    """Return a window and its targets in `PARTS` random parts of the mazes."""
    rows = jax.random.permutation(key, window.resets.shape[1]).reshape(PARTS, -1)
    cut = lambda tree, at, axis: jax.tree.map(lambda a: jnp.take(a, at, axis=axis), tree)
    steps = window._replace(state=()), *targets
    return [
        (part._replace(state=cut(window.state, at, 0)), *rest) for at in rows for part, *rest in [cut(steps, at, 1)]
    ]


class Learner:
    """A policy in training, its mazes, and how many episodes ended right and ended at all, window by window."""

    def __init__(self, policy: Policy, *, mazes: int, steps: int, length: int, windows: int, rate: float, seed: int):
        self.policy, self.steps, self.length = policy, steps, length
        k_params, self.key = jax.random.split(jax.random.key(seed))
        params = policy.layers.init(k_params, FEATURES)
        optimizer = optax.adam(optax.linear_schedule(rate, 0.0, windows * EPOCHS * PARTS))
        self.train = init(params, optimizer, self.key)
        self.train_step = make_step(functools.partial(loss, policy), optimizer, clip=0.5)
        self.carry = start(self.key, mazes), policy.layers.initial_state(params, (mazes,)), jnp.ones(mazes, bool)
        self.ended: list[Any] = []

    def learn(self) -> None:
        """Play a window, and train on it."""
        k_play, *k_parts = jax.random.split(jax.random.fold_in(self.key, len(self.ended)), EPOCHS + 1)
        given = self.train.params, self.carry, k_play, self.steps, self.length
        self.carry, window, targets = play(self.policy, *given)
        self.ended.append((window.outcome.right.sum(), window.outcome.done.sum()))
        for key in k_parts:
            for part in parts(window, targets, key):
                self.train, _ = self.train_step(self.train, part)

    def shares(self, interval: int) -> list[float]:
        """Return the share of episodes that ended with the right turn, over intervals of windows."""
        right, done = jnp.array(jax.device_get(self.ended)).T
        ends = [slice(i, i + interval) for i in range(0, len(right) - interval + 1, interval)]
        return [float(right[some].sum() / jnp.maximum(done[some].sum(), 1)) for some in ends]
