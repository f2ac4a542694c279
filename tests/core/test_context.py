"""Context: under every driver, in composites, with a gradient that is kept once."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

import jaxrnn
from jaxrnn import (
    BPTT,
    GRU,
    LSTM,
    Bidirectional,
    Fused,
    LearnedState,
    Loop,
    Newton,
    RecurrentDropout,
    Residual,
    Scan,
    Stack,
    States,
    Zoneout,
)
from jaxrnn.extend import with_context

from .. import quick
from .table import B, D, T, far, masks, unroll

S, F = 7, 5


class AttentionParams(NamedTuple):
    cell: Any
    query: jax.Array
    key: jax.Array
    memory: Any = ()
    keys: Any = ()
    mask: Any = ()


@dataclasses.dataclass(frozen=True)
class Attention:
    """A decoder: dot-product attention over a memory (S, *batch, F), padded, is one more input of a cell."""

    cell: jaxrnn.GatedCell

    def init(self, key, in_dim):
        k_cell, k_query, k_key = jax.random.split(key, 3)
        shape = self.cell.hidden, F
        return AttentionParams(
            self.cell.init(k_cell, in_dim + F), jax.random.normal(k_query, shape), jax.random.normal(k_key, (F, F))
        )

    def out_dim(self, in_dim):
        return self.cell.hidden

    def with_context(self, params, context):
        memory, mask = context
        return params._replace(memory=memory, keys=memory @ params.key, mask=mask)

    def initial_state(self, params, batch=()):
        return self.cell.initial_state(params.cell, batch)

    def step(self, params, state, x):
        scores = jnp.einsum("...f,s...f->s...", self.cell.read(state) @ params.query, params.keys)
        weights = jax.nn.softmax(scores, axis=0, where=params.mask)
        read = jnp.einsum("s...,s...f->...f", weights, params.memory)
        return self.cell.step(params.cell, state, jnp.concatenate([x, read], axis=-1))


@dataclasses.dataclass(frozen=True)
class Conditioned(jaxrnn.GatedCell):
    """A cell with a covariate (*batch, 2) in u, and in the gate if it is `scaled`."""

    hidden: int
    scaled: bool = False
    gates = 1

    def initial_state(self, params, batch=()):
        return jnp.zeros((*batch, self.hidden))

    def init_local(self, key):
        return jax.random.normal(key, (2, self.hidden)), ()

    def with_context(self, params, context):
        weights, _ = params.local
        return params._replace(local=(weights, context @ weights))

    def local(self, params):
        return params.local[1] if self.scaled else ()

    def read(self, h):
        return h

    def project(self, params, x):
        (u,) = jaxrnn.GatedCell.project(self, params, x)
        return (u + params.local[1],)

    def transition(self, local, h, u, v):
        new = jnp.tanh(u[0] + v[0])
        return new * (1 + local) if self.scaled else new

    def gate(self, h, u, v):
        return h


def memory():
    valid = jnp.arange(S)[:, None] < jnp.array([7, 4, 1])[:B]
    return jax.random.normal(jax.random.key(2), (S, B, F)), valid


COVARIATE = jax.random.normal(jax.random.key(4), (B, 2))
CASES = {
    "attention": (Attention(GRU(4)), memory(), [Loop(), Newton(), None]),
    "covariate": (Conditioned(4), COVARIATE, [Loop(), BPTT(2), Scan(hoist=2), Fused(interpret=True), None]),
    "covariate in the gate": (Conditioned(4, scaled=True), COVARIATE, [BPTT(2, keep_gates=True), Newton(), None]),
}


def inputs(cell, features=D):
    return cell.init(jax.random.key(0), features), jax.random.normal(jax.random.key(1), (T, B, features))


def gradient_and_outputs(cell, params, xs, context, driver):
    floats, rest = (context[:1], context[1:]) if isinstance(context, tuple) else ((context,), ())

    def loss(params, floats):
        given = (*floats, *rest) if rest else floats[0]
        ys = jaxrnn.unroll(cell, params, xs, context=given, driver=driver, **masks())[1]
        return jnp.square(ys).sum(), ys

    return jax.grad(loss, (0, 1), has_aux=True)(params, floats)


@pytest.mark.parametrize("name", CASES)
def test_every_driver_takes_a_context(name):
    cell, context, drivers = CASES[name]
    params, xs = inputs(cell)
    run = lambda driver: quick.jit(lambda *args: gradient_and_outputs(cell, *args, driver))(params, xs, context)
    want_grad, want = run(Scan())
    assert all(jnp.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(want_grad[1]))
    for driver in drivers:
        grad, ys = run(driver)
        assert far(ys, want) < 1e-5, driver
        assert far(grad, want_grad) < 1e-4, driver


def test_in_composites_and_step_by_step():
    layers = (LSTM(D), Residual(Attention(GRU(D))), Zoneout(GRU(4), 0.1), LearnedState(Attention(GRU(4))))
    stack = Stack(layers)
    params, xs = inputs(stack)
    want = unroll(stack, params, xs, context=memory())[1]
    bound = with_context(stack, params, memory())
    state, ys = stack.initial_state(bound, (B,)), []
    for x in xs:
        state, y = stack.step(bound, state, x)
        ys.append(y)
    assert far(jnp.stack(ys), want) < 1e-5
    both = Bidirectional(Attention(GRU(4)))
    params, xs = inputs(both)
    assert unroll(both, params, xs, context=memory())[1].shape == (T, B, 8)


def test_the_padding_of_the_memory_does_not_matter_and_vmap_gives_the_rows():
    cell = Attention(GRU(4))
    params, xs = inputs(cell)
    values, valid = memory()
    want = unroll(cell, params, xs, context=(values, valid))[1]
    spoilt = jnp.where(valid[..., None], values, 1e6)
    assert far(unroll(cell, params, xs, context=(spoilt, valid))[1], want) < 1e-5
    one = lambda xs, values, valid: jaxrnn.unroll(cell, params, xs, context=(values, valid))[1]
    assert far(quick.jit(jax.vmap(one, 1, 1))(xs, values, valid), want) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_kept_once_and_not_once_a_step(name):
    cell, context, _ = CASES[name]
    params, xs = inputs(cell)
    program = str(jax.make_jaxpr(lambda context: gradient_and_outputs(cell, params, xs, context, None))(context))
    shape = jax.tree.leaves(context)[0].shape
    assert f"[{','.join(map(str, shape))}]" in program
    assert f"[{T},{','.join(map(str, shape))}]" not in program


def test_errors_say_what_takes_a_context():
    cell = Stack((Attention(GRU(4)),))
    params, xs = inputs(cell)
    with pytest.raises(ValueError, match=r"takes a context: pass it to unroll\(..., context"):
        unroll(cell, params, xs)
    plain = GRU(4)
    with pytest.raises(ValueError, match="takes no context"):
        unroll(plain, plain.init(jax.random.key(0), D), xs, context=COVARIATE)
    with pytest.raises(ValueError, match=r"Give it a method out_dim\(in_dim\)"):
        Stack((_NoWidth(GRU(4)), GRU(3))).init(jax.random.key(0), D)


@dataclasses.dataclass(frozen=True)
class _NoWidth:
    cell: jaxrnn.GatedCell
    init, with_context, initial_state, step = (
        Attention.init,
        Attention.with_context,
        Attention.initial_state,
        Attention.step,
    )


def test_gradients_of_the_default_driver_with_a_mask_in_the_context():
    """A gated cell whose context holds booleans, in the gate and in u."""
    cell = Masked(4)
    params = cell.init(jax.random.key(0), D)
    xs = jax.random.normal(jax.random.key(1), (10, B, D))
    context = COVARIATE, jnp.arange(B) < 2

    def loss(params, covariate, driver):
        return jnp.square(jaxrnn.unroll(cell, params, xs, context=(covariate, context[1]), driver=driver)[1]).sum()

    grad = quick.jit(jax.grad(loss, (0, 1)), static_argnums=2)
    want = grad(params, COVARIATE, Scan())
    for driver in (None, BPTT(4), BPTT(4, keep_gates=True)):
        assert far(grad(params, COVARIATE, driver), want) < 1e-4


@dataclasses.dataclass(frozen=True)
class Masked(Conditioned):
    def with_context(self, params, context):
        weights, _ = params.local
        covariate, mask = context
        return params._replace(local=(weights, covariate @ weights, mask))

    def local(self, params):
        return params.local[1], params.local[2]

    def transition(self, local, h, u, v):
        scale, mask = local
        return jnp.tanh(u[0] + v[0]) * jnp.where(mask[:, None], scale, 1.0)


@pytest.mark.parametrize("wrap", [lambda c: Zoneout(c, 0.1), lambda c: RecurrentDropout(c, 0.3), lambda c: States(c)])
def test_wrapped_cells_pass_the_context_on(wrap):
    cell = wrap(Conditioned(4))
    params, xs = inputs(cell)
    ys = unroll(cell, params, xs, context=COVARIATE, key=jax.random.key(0))[1]
    assert ys.shape == (T, B, 4)
    bound = with_context(cell, params, COVARIATE)
    assert (
        far(
            cell.step(bound, cell.initial_state(bound, (B,)), xs[0])[1],
            unroll(cell, params, xs, context=COVARIATE)[1][0],
        )
        < 1e-6
    )


def test_generate_takes_params_with_a_context_in_them():
    cell = Conditioned(D)
    params, xs = inputs(cell)
    bound = with_context(cell, params, COVARIATE)
    assert jaxrnn.generate(cell, bound, xs[0], steps=3)[1].shape == (3, B, D)
