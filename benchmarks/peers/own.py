"""jaxrnn's drivers, and what one would write by hand in its place."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import BPTT, Driver, Fused, Native, Scan, available_drivers

from ..result import FLOAT32
from ..workload import SIXTEEN_BIT, Answer, Data, Workload
from .peer import Peer, Program, Supports, compiled, first_state, gradients, numpy

GROUP = 64
"""How many arrays one concatenation joins."""


def own(name: str, driver: Driver | None) -> Peer:
    """Return `jaxrnn.unroll` with a driver; None is `select`'s choice."""

    def make(workload: Workload, data: Data) -> Program:
        cell = workload.own_cell()
        return compiled(workload, data, lambda p: p, lambda p, xs: jaxrnn.unroll(cell, p, xs, driver=driver)[1])

    match driver:
        case Fused():
            supports = Supports(("gpu", "tpu"), heads=True)
        case Native():
            supports = Supports(("cpu",), heads=True, reason=native_lacks)
        case _:
            supports = Supports(heads=True)
    return Peer(name, "jaxrnn", make, supports)


def native_lacks(workload: Workload, platform: str) -> str | None:
    """Return what `Native` itself says of a workload that it does not take, in a sentence; None for one it takes."""
    if reason := available_drivers()["Native"]:
        return reason
    cell, dtype = workload.own_cell(), jnp.dtype(workload.dtype)
    shapes = jax.eval_shape(lambda key: cell.init(key, workload.inputs), jax.random.key(0))
    params = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, dtype), shapes)
    xs = jax.ShapeDtypeStruct((workload.time, workload.batch, workload.inputs), dtype)
    try:
        jax.eval_shape(lambda params, xs: jaxrnn.unroll(cell, params, xs, driver=Native()), params, xs)
    except ValueError as refusal:
        return str(refusal).partition(". ")[0]
    return None


def make_float32(workload: Workload, data: Data) -> Program:
    """Compile a workload of 16 bits in float32, with the weights and inputs that 16 bits hold."""
    return OWN[0].make(dataclasses.replace(workload, dtype="float32"), data)


def make_naive_scan(workload: Workload, data: Data) -> Program:
    """Compile `lax.scan` over the equation as it stands in a textbook, written by hand."""

    def flat_weights(params: Any) -> Any:  # (I, G * H), (H, G * H), (G * H,), and a GRU's b_hn
        w_x, w_h, b, local = params
        return w_x.reshape(len(w_x), -1), w_h.reshape(len(w_h), -1), b.ravel(), local

    def forward(weights: Any, xs: jax.Array) -> jax.Array:
        step = functools.partial(by_hand, workload.cell, weights)
        return jax.lax.scan(step, first_state(workload, xs.dtype), xs)[1]

    return compiled(workload, data, flat_weights, forward)


def by_hand(cell: str, weights: Any, state: Any, x: jax.Array) -> tuple[Any, jax.Array]:
    """Compute one step."""
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


def make_python_loop(jitted: bool, workload: Workload, data: Data) -> Program:
    """Prepare a Python loop over the steps: nothing is compiled as a whole, as in `jaxrnn.Loop()`.

    Weights and inputs are moved, one array for each step; a jitted step, which is fairer, compiles at the first call.
    """
    cell = workload.own_cell()
    params = jax.tree.map(lambda a: jnp.asarray(a, workload.dtype), data.params)
    steps = [jnp.asarray(x, workload.dtype) for x in data.xs]

    def advance(params: Any, state: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        state, y = cell.step(params, state, x)
        return state, jnp.expand_dims(y, 0)

    step = jax.jit(advance) if jitted else advance

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


def _too_slow(workload: Workload, platform: str) -> str | None:
    """Return the reason for gradients through many steps, where each operation is traced by itself."""
    return "some 15 ms a step; see scaling" if workload.gradient and workload.time > 100 else None


DRIVERS: dict[str, Driver | None] = {
    "jaxrnn select": None,
    "jaxrnn Native": Native(),
    "jaxrnn Scan": Scan(),
    "jaxrnn BPTT": BPTT(),
    "jaxrnn BPTT keep_gates": BPTT(keep_gates=True),
    "jaxrnn Fused": Fused(),
}
OWN = tuple(own(name, driver) for name, driver in DRIVERS.items())
LOOPS = (
    Peer(
        "Python loop",
        "jaxrnn",
        functools.partial(make_python_loop, False),
        Supports(heads=True, reason=_too_slow),
    ),
    Peer("Python loop, jitted step", "jaxrnn", functools.partial(make_python_loop, True), Supports(heads=True)),
)
IN_FLOAT32 = Peer(FLOAT32, "jaxrnn", make_float32, Supports(dtypes=SIXTEEN_BIT, heads=True))
BASELINES = (*LOOPS, Peer("naive lax.scan", "jax", make_naive_scan))
