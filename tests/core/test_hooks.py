"""Every driver calls the methods that a subclass overrides; other overrides raise at class creation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import (
    BPTT,
    GRU,
    LSTM,
    Associative,
    Dense,
    DiagonalJacobian,
    Dropout,
    Fused,
    MinGRU,
    Native,
    Newton,
    Scan,
    Stack,
    Zoneout,
)

from .. import quick
from .table import D, draw, far, initial_state, unroll

QUICK = (None, Scan(), Scan(hoist=2), BPTT(2, keep_gates=True, hoist=2), Native(), Associative(2))
SLOW = (Fused(interpret=True), Newton(fallback=None), Newton(DiagonalJacobian(), fallback=None))


def override(base, **methods):
    """Return a subclass of `base` with these methods; `old` is the method of `base`."""
    wrap = lambda name, new: lambda *args: new(getattr(base, name), *args)
    return dataclasses.dataclass(frozen=True)(type("Mine", (base,), {n: wrap(n, m) for n, m in methods.items()}))


more = lambda tree: jax.tree.map(lambda a: a + 1, tree)
half = lambda tree: jax.tree.map(lambda a: 0.5 * a, tree)
HOOKS = {
    "project": override(LSTM, project=lambda old, self, params, x: half(old(self, params, x))),
    "recur": override(LSTM, recur=lambda old, self, params, s: half(old(self, params, s))),
    "read": override(LSTM, read=lambda old, self, s: jnp.sin(s.c)),
    "gate": override(LSTM, gate=lambda old, self, s, u, v: half(old(self, s, u, v))),
    "transition": override(GRU, transition=lambda old, self, local, s, u, v: half(old(self, local, s, u, v))),
    "local": override(GRU, local=lambda old, self, params: 3 + params.local),
    "output": override(LSTM, output=lambda old, self, params, s, x: old(self, params, s, x) + 2 * x[..., :1]),
    "initial_state": override(LSTM, initial_state=lambda old, self, *args: more(old(self, *args))),
    "affine": override(MinGRU, affine=lambda old, self, params, x: half(old(self, params, x))),
    "affine output": override(MinGRU, output=lambda old, self, params, s, x: old(self, params, s, x) + x[..., :1]),
    "step": override(jaxrnn.ResetBeforeGRU, step=lambda old, self, *args: half(old(self, *args))),
}
EVERY = override(  # for slow drivers, all at once: each changes the numbers differently
    GRU,
    project=lambda old, self, params, x: half(old(self, params, x)),
    read=lambda old, self, s: jnp.sin(s),
    transition=lambda old, self, local, s, u, v: jax.tree.map(lambda a: a - 0.2, old(self, local, s, u, v)),
    local=lambda old, self, params: 3 + params.local,
    output=lambda old, self, params, s, x: s + 2 * x[..., :1],
    initial_state=lambda old, self, *args: old(self, *args) + 1,
)
CASES = [(name, hook, QUICK) for name, hook in HOOKS.items()]
CASES += [("every", EVERY, SLOW), ("recur", HOOKS["recur"], SLOW)]


@pytest.mark.parametrize(("name", "hook", "drivers"), CASES, ids=[f"{name}-{len(d)}" for name, _, d in CASES])
def test_every_driver_calls_an_overridden_method(name, hook, drivers):
    cell = hook(3)
    params, _, xs = draw(cell, time=9, batch=(2,))
    state = initial_state(cell, params, (2,))
    step, ys = quick.jit(cell.step), []
    for x in xs:
        state, y = step(params, state, x)
        ys.append(y)
    ran = []
    for driver in drivers:
        try:
            got = unroll(cell, params, xs, driver=driver)
        except ValueError as error:
            if driver is None or "Use" not in str(error):  # the error of a driver names another
                raise
            continue
        assert far(got, (state, jnp.stack(ys))) < 2e-5, driver
        ran.append(driver)
    assert len(ran) >= 2


class OwnStep:
    """A mixin."""

    def step(self, params, state, x):
        return state, x


own = lambda old, self, *args: old(self, *args)
IGNORED = {
    "step of a gated cell": (lambda: override(LSTM, step=own), "overrides `step`.*plain cell"),
    "advance": (lambda: override(LSTM, advance=own), "overrides `advance`.*`transition`"),
    "step of an affine cell": (lambda: override(MinGRU, step=own), "overrides `step`.*`affine`"),
    "step of a mixin": (lambda: type("Mixed", (OwnStep, LSTM), {}), "Mixed overrides `step`"),
    "gate below a transition": (lambda: override(GRU, gate=own), "GRU defines its own `transition`.*Override `tr"),
    "bias below an init": (
        lambda: override(override(LSTM, init=own), bias_offset=lambda old, self: 2.0),
        "defines its own `init`",
    ),
    "step of a composite": (lambda: override(Stack, step=own), "inherits `unroll` from Stack.*Override both"),
    "unroll of a composite": (lambda: override(Zoneout, unroll=own), "inherits `step` from Zoneout"),
    "unroll of a layer": (lambda: override(Dropout, unroll=own), "inherits `step` from Dropout"),
}


@pytest.mark.parametrize("what", IGNORED)
def test_an_override_that_drivers_would_ignore_raises(what):
    define, match = IGNORED[what]
    with pytest.raises(TypeError, match=match):
        define()


def test_a_subclass_of_dense_is_not_taken_for_dense():
    @dataclasses.dataclass(frozen=True)
    class Halved(Dense):
        def __call__(self, w, r):
            return half(super().__call__(w, r))

    cell = LSTM(3, recurrence=Halved())
    params, _, xs = draw(cell, time=9, batch=(2,))
    want = unroll(cell, params, xs, driver=Scan())
    for driver in (None, BPTT(2), Newton(DiagonalJacobian(), fallback=None)):
        assert far(unroll(cell, params, xs, driver=driver), want) < 2e-5
    for driver in (Native(), Fused(interpret=True)):
        with pytest.raises(ValueError, match=r"Dense|dense"):
            unroll(cell, params, xs, driver=driver)


@dataclasses.dataclass(frozen=True)
class Counting(jaxrnn.GatedCell):
    """A cell that counts its steps in integers."""

    hidden: int
    gates = 1

    def initial_state(self, params, batch=()):
        return jnp.zeros((*batch, self.hidden), params.b.dtype), jnp.zeros((*batch, 1), jnp.int32)

    def read(self, s):
        return s[0]

    def gate(self, s, u, v):
        return jnp.tanh(u[0] + v[0]), s[1] + 1


def test_select_sees_the_state():
    cell = Counting(3)
    params = cell.init(jax.random.key(0), D)
    for time in (7, 8, 40):
        xs = np.ones((time, 2, D), np.float32)
        state, _ = jaxrnn.unroll(cell, params, xs)
        assert state[1].tolist() == [[time]] * 2
        assert jnp.isfinite(jax.grad(lambda p: jaxrnn.unroll(cell, p, xs)[1].sum())(params).b).all()
    assert jaxrnn.select(cell, (40, 2, D), jnp.float32, "gpu", cell.initial_state(params)) == Scan()
