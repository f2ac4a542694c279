"""jaxrnn's drivers, and what one would write by hand in its place."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import BPTT, Driver, Fused, Native, Scan, available_drivers

from ..workload import Answer, Data, Workload
from .layout import dense_only
from .peer import Program, compiled, gradients, numpy

GROUP = 64
"""How many arrays one concatenation joins."""


@dataclasses.dataclass(frozen=True)
class Own:
    """`jaxrnn.unroll` with a driver; None is `select`'s choice."""

    name: str
    driver: Driver | None
    package: str = "jaxrnn"

    def lacks(self, workload: Workload, platform: str) -> str | None:
        """Return the reason: `Native` needs its library, a CPU, dense float32 weights; `Fused` a GPU or a TPU."""
        if isinstance(self.driver, Fused):
            return "for a GPU or a TPU" if platform == "cpu" else None
        if not isinstance(self.driver, Native):
            return None
        if platform != "cpu":
            return "for a CPU"
        if workload.heads > 1 or workload.dtype != "float32":
            return "dense recurrent weights in float32 only"
        return available_drivers()["Native"]

    def equation(self, workload: Workload) -> str | None:
        """The workload's."""
        return None

    def make(self, workload: Workload, data: Data) -> Program:
        """Compile."""
        cell = workload.own_cell()
        return compiled(workload, data, lambda p: p, lambda p, xs: jaxrnn.unroll(cell, p, xs, driver=self.driver)[1])


@dataclasses.dataclass(frozen=True)
class NaiveScan:
    """`lax.scan` over the equation as it stands in a textbook, written by hand."""

    name: str = "naive lax.scan"
    package: str = "jax"

    def lacks(self, workload: Workload, platform: str) -> str | None:
        """Heads."""
        return dense_only(workload)

    def equation(self, workload: Workload) -> str | None:
        """The workload's."""
        return None

    def make(self, workload: Workload, data: Data) -> Program:
        """Compile."""

        def forward(params: Any, xs: jax.Array) -> jax.Array:
            step = lambda state, x: by_hand(workload.cell, params, state, x)
            return jax.lax.scan(step, first_state(workload, xs.dtype), xs)[1]

        return compiled(workload, data, flat_weights, forward)


def flat_weights(params: Any) -> Any:
    """Return matrices: (I, G * H), (H, G * H), (G * H,), and a GRU's b_hn."""
    w_x, w_h, b, local = params
    return w_x.reshape(len(w_x), -1), w_h.reshape(len(w_h), -1), b.ravel(), local


def first_state(workload: Workload, dtype: Any) -> tuple[jax.Array, ...]:
    """Zeros: (h,), or an LSTM's (h, c)."""
    zeros = jnp.zeros((workload.batch, workload.hidden), dtype)
    return (zeros, zeros) if workload.cell == "lstm" else (zeros,)


def by_hand(cell: str, weights: Any, state: Any, x: jax.Array) -> tuple[Any, jax.Array]:
    """One step."""
    w_x, w_h, b, b_hn = weights
    u, v = x @ w_x + b, state[0] @ w_h
    if cell == "elman":
        state = (jnp.tanh(u + v),)
    elif cell == "gru":
        (u_r, u_z, u_n), (v_r, v_z, v_n) = jnp.split(u, 3, axis=-1), jnp.split(v, 3, axis=-1)
        r, z = jax.nn.sigmoid(u_r + v_r), jax.nn.sigmoid(u_z + v_z)
        state = ((1 - z) * jnp.tanh(u_n + r * (v_n + b_hn)) + z * state[0],)
    else:
        i, f, g, o = jnp.split(u + v, 4, axis=-1)
        c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
        state = (jax.nn.sigmoid(o) * jnp.tanh(c), c)
    return state, state[0]


@dataclasses.dataclass(frozen=True)
class PythonLoop:
    """A Python loop over the steps, nothing compiled as a whole: as `jaxrnn.Loop()`.

    Args:
        name: as tables show it.
        jitted: whether the step is compiled, which is the fairer loop.
    """

    name: str
    jitted: bool
    package: str = "jaxrnn"

    def lacks(self, workload: Workload, platform: str) -> str | None:
        """Gradients through many steps, each operation traced by itself: 15 ms a step. `scaling` shows how it grows."""
        slow = not self.jitted and workload.gradient and workload.time > 100
        return "some 15 ms a step; see scaling" if slow else None

    def equation(self, workload: Workload) -> str | None:
        """The workload's."""
        return None

    def make(self, workload: Workload, data: Data) -> Program:
        """Move weights and inputs, one array for each step; a jitted step compiles at the first call."""
        cell = workload.own_cell()
        params = jax.tree.map(lambda a: jnp.asarray(a, workload.dtype), data.params)
        steps = [jnp.asarray(x, workload.dtype) for x in data.xs]

        def advance(params: Any, state: Any, x: jax.Array) -> tuple[Any, jax.Array]:
            state, y = cell.step(params, state, x)
            return state, jnp.expand_dims(y, 0)

        step = jax.jit(advance) if self.jitted else advance

        def forward(params: Any, steps: list[jax.Array]) -> jax.Array:
            state, ys = cell.initial_state(params, (workload.batch,)), []
            for x in steps:
                state, y = step(params, state, x)
                ys.append(y)
            return join(ys)

        gradient = jax.grad(lambda params, steps: jnp.square(forward(params, steps)).sum(), (0, 1))
        run = gradient if workload.gradient else forward

        def answer(result: Any) -> Answer:
            if not workload.gradient:
                return Answer(ys=numpy(result))
            return gradients(lambda p: p, params, result[0], np.stack(result[1]))

        return Program(lambda: jax.block_until_ready(run(params, steps)), answer)


def join(parts: list[jax.Array]) -> jax.Array:
    """Concatenate along the first axis, `GROUP` arrays at a time.

    One concatenation of T arrays compiles a program with T operands, which takes minutes for a large T.
    """
    while len(parts) > 1:
        parts = [jnp.concatenate(parts[at : at + GROUP]) for at in range(0, len(parts), GROUP)]
    return parts[0]


OWN = (
    Own("jaxrnn select", None),
    Own("jaxrnn Native", Native()),
    Own("jaxrnn Scan", Scan()),
    Own("jaxrnn BPTT", BPTT()),
    Own("jaxrnn BPTT keep_gates", BPTT(keep_gates=True)),
    Own("jaxrnn Fused", Fused()),
)
BASELINES = (PythonLoop("Python loop", False), PythonLoop("Python loop, jitted step", True), NaiveScan())
