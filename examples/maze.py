"""T-mazes as pure functions: a sign at the start of a corridor tells which way to turn at its end."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn.extend import where

FEATURES, ACTIONS = 4, 3
FORWARD = 0  # the other actions turn: 1 to the left, 2 to the right


class Maze(NamedTuple):
    """The state of B mazes, (B,) int32 each.

    Attributes:
        goal: the turn that is rewarded, 1 or 2.
        position: the steps into the corridor.
        time: the steps of the episode so far.
    """

    goal: jax.Array
    position: jax.Array
    time: jax.Array


class Outcome(NamedTuple):
    """What follows an action, (B,) each: the reward, whether the episode ends, whether with the right turn."""

    reward: jax.Array
    done: jax.Array
    right: jax.Array


def start(key: jax.Array, batch: int) -> Maze:
    """Return mazes at the start of an episode."""
    zeros = jnp.zeros(batch, jnp.int32)
    return Maze(jax.random.randint(key, (batch,), 1, 3), zeros, zeros)


def observe(maze: Maze, length: int) -> jax.Array:
    """Return (B, 4): a sign on the left, or on the right, both seen at time 0 alone; the corridor, or its end."""
    first, end = maze.time == 0, maze.position == length
    return jnp.stack([first & (maze.goal == 1), first & (maze.goal == 2), ~end, end], axis=-1).astype(jnp.float32)


def move(maze: Maze, action: jax.Array, key: jax.Array, length: int) -> tuple[Maze, Outcome]:
    """Return the mazes after an action, at the start of a new episode where one has ended, and what follows from it.

    A right turn is worth 1, a wrong one -1, and to walk into a wall -0.05. An episode lasts 3 * length steps at most.
    """
    end = maze.position == length
    ahead, turned = ~end & (action == FORWARD), end & (action != FORWARD)
    right = turned & (action == maze.goal)
    done = turned | (maze.time + 1 == 3 * length)
    reward = jnp.where(turned, jnp.where(right, 1.0, -1.0), jnp.where(ahead, 0.0, -0.05))
    moved = Maze(maze.goal, maze.position + ahead, maze.time + 1)
    return where(done, start(key, len(action)), moved), Outcome(reward, done, right)
