"""Workloads: one definition, used by every command.

T time, B batch, I input features, H hidden units, G gates. The input projection is always part of it.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn
from jaxrnn import GRU, LSTM, Elman, GatedParams, Heads, ResetBeforeGRU, Scan

SIXTEEN_BIT = ("bfloat16", "float16")
"""The dtypes of 16 bits."""
CELLS = {"elman": Elman, "gru": GRU, "lstm": LSTM}


@dataclasses.dataclass(frozen=True)
class Workload:
    """One cell over one sequence: its outputs (forward), or the gradients of sum(h^2) for params and inputs.

    Args:
        cell: "elman" (tanh), "gru" (reset after the matmul) or "lstm".
        time: T.
        batch: B.
        inputs: I.
        hidden: H.
        gradient: whether it is forward and backward, or forward alone.
        heads: the blocks of the recurrent weights; 1 is dense.
        dtype: of params, inputs and outputs.
    """

    cell: str
    time: int
    batch: int
    inputs: int
    hidden: int
    gradient: bool = False
    heads: int = 1
    dtype: str = "float32"

    def __str__(self) -> str:
        heads = f" in {self.heads} heads" if self.heads > 1 else ""
        dtype = "" if self.dtype == "float32" else f" {self.dtype}"
        shape = f"T={self.time} B={self.batch} I={self.inputs} H={self.hidden}"
        return f"{self.cell} {shape}{heads}{dtype} {self.kind}"

    @property
    def kind(self) -> str:
        """Forward, or forward and backward."""
        return "forward+backward" if self.gradient else "forward"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, B, I, H)."""
        return self.time, self.batch, self.inputs, self.hidden

    @property
    def gates(self) -> int:
        """G."""
        return CELLS[self.cell].gates

    @property
    def flops(self) -> float:
        """Floating-point operations of the matmuls: 2 G B T H (I + H / heads), three times that with gradients."""
        forward = 2.0 * self.gates * self.batch * self.time * self.hidden * (self.inputs + self.hidden / self.heads)
        return forward * (3 if self.gradient else 1)

    @property
    def tolerance(self) -> float | None:
        """The error from float64 that 16 bits may have, relative to the largest entry; None for other dtypes."""
        return (4e-2 if self.gradient else 2e-2) if self.dtype in SIXTEEN_BIT else None

    def own_cell(self) -> Any:
        """Return jaxrnn's cell."""
        more = {"recurrence": Heads(self.heads)} if self.heads > 1 else {}
        return CELLS[self.cell](self.hidden, **more)


class Data(NamedTuple):
    """What a workload computes on, as numpy arrays in float32; every implementation is handed the same.

    The values are rounded to the workload's dtype, so an error holds what an implementation rounds and no more.

    Attributes:
        params: jaxrnn's, drawn at scales that keep gates off their limits; a GRU's recurrent bias b_hn is zero,
            since not every library has one.
        xs: (T, B, I).
    """

    params: GatedParams
    xs: np.ndarray


def draw(workload: Workload, seed: int = 0) -> Data:
    """Draw the params and inputs of a workload."""
    rng = np.random.default_rng(seed)
    cell = workload.own_cell()
    shapes = jax.eval_shape(lambda k: cell.init(k, workload.inputs), jax.random.key(0))
    scales = GatedParams(workload.inputs**-0.5, (workload.hidden / workload.heads) ** -0.5, 0.1)
    weights = [s * rng.standard_normal(a.shape, np.float32) for s, a in zip(scales[:3], shapes[:3], strict=True)]
    local = jax.tree.map(lambda a: np.zeros(a.shape, np.float32), shapes.local)
    xs = rng.standard_normal((workload.time, workload.batch, workload.inputs), np.float32)
    return jax.tree.map(
        lambda a: a.astype(jnp.dtype(workload.dtype)).astype(np.float32), Data(GatedParams(*weights, local), xs)
    )


class Answer(NamedTuple):
    """What an implementation computes, in jaxrnn's layout: float arrays, None where a forward run has none.

    Attributes:
        ys: the outputs (T, B, H), of a forward run.
        w_x: the gradient for the input weights.
        w_h: the gradient for the recurrent weights.
        b: the gradient for the bias.
        xs: the gradient for the inputs.
    """

    ys: Any = None
    w_x: Any = None
    w_h: Any = None
    b: Any = None
    xs: Any = None


OTHER_EQUATIONS = {
    "reset before the matmul": lambda w: ResetBeforeGRU(w.hidden),
    "relu": lambda w: Elman(w.hidden, activation="relu"),
}
"""Where a library has only a relative of the workload's equation, it is measured and checked against that."""


@functools.lru_cache(maxsize=4)
def reference(workload: Workload, equation: str | None = None, seed: int = 0) -> Answer:
    """Return the answer in float64 by jaxrnn's `Scan()`, as numpy arrays."""
    params, xs = draw(workload, seed)
    cell = workload.own_cell() if equation is None else OTHER_EQUATIONS[equation](workload)
    if equation == "reset before the matmul":
        params = params._replace(local=())

    def run(params: GatedParams, xs: Any) -> Any:
        return jaxrnn.unroll(cell, params, xs, driver=Scan())[1]

    with jax.enable_x64(True):
        params, xs = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (params, xs))
        if not workload.gradient:
            return Answer(ys=np.asarray(jax.jit(run)(params, xs)))
        dparams, dxs = jax.jit(jax.grad(lambda p, x: jnp.square(run(p, x)).sum(), (0, 1)))(params, xs)
        return Answer(None, *(np.asarray(a) for a in (*dparams[:3], dxs)))


def error(answer: Answer, truth: Answer) -> float:
    """Return the largest difference from the truth, relative to the largest entry of each array; NaN stays NaN."""
    worst = np.float64(0.0)
    for got, true in zip(answer, truth, strict=True):
        if true is None:
            continue
        got = np.asarray(got, np.float64)
        if got.shape != true.shape:
            raise ValueError(f"an implementation gave {got.shape} where {true.shape} was due")
        worst = np.maximum(worst, np.abs(got - true).max() / max(np.abs(true).max(), 1e-30))
    return float(worst)
