"""Blocks: all of time against step by step, lengths, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import Scan, blocks

from .. import quick
from .table import B, D, T, draw, far, run, same_bits, unroll

BLOCKS = {
    "gated_mlp": blocks.gated_mlp(D, 6, activation="silu", bias=False),
    "griffin": blocks.griffin(D, width=5, expansion=2),
    "s5": blocks.s5(D, states=4, blocks=2),
    "mamba": blocks.mamba(D, states=3),
    "slstm": blocks.slstm(D, heads=2),
    "mlstm": blocks.mlstm(D, heads=2),
    "mamba2": blocks.mamba2(D, heads=2, states=3),
    "gated_delta_net": blocks.gated_delta_net(D, heads=2, max_beta=2.0),
}


def test_every_block_is_in_the_table():
    names = {name for name, value in vars(blocks).items() if getattr(value, "__module__", "") == blocks.__name__}
    assert {name for name in names if not name.startswith("_")} == BLOCKS.keys()


@pytest.mark.parametrize("name", BLOCKS)
def test_all_of_time_is_step_by_step(x64, name):
    block = BLOCKS[name]
    params, state, xs = draw(block)
    step, stepped, each = quick.jit(block.step), state, []
    for x in xs:
        stepped, y = step(params, stepped, x)
        each.append(y)
    assert block.out_dim(D) == D
    for driver in (None, Scan()):
        assert far(unroll(block, params, xs, state, driver=driver), (stepped, jnp.stack(each))) < 1e-11


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("driver", [None, Scan()], ids=str)
def test_a_gradient_with_lengths_and_resets_is_that_of_the_valid_steps(name, driver):
    """Rows that end early, one of them without a step, NaN in the padding, a reset in the middle."""
    block = BLOCKS[name]
    params, state, xs = draw(block)
    lengths, resets = np.array([T, 3, 0]), np.zeros((T, B), bool)
    resets[2, 0] = True
    padding = np.arange(T)[:, None, None] >= lengths[:, None]
    kw = {"lengths": lengths, "resets": resets}
    got = run(block, params, state, np.where(padding, np.nan, xs), kw, driver)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(got))
    (_, (final, ys)), (_, _, dxs) = got
    assert not np.where(padding, ys, 0).any()
    assert not np.where(padding, dxs, 0).any()
    pick = lambda row: jax.tree.map(lambda s: s[row], state)
    alone = unroll(block, params, xs[:3, 1], pick(1), driver=driver)
    assert far((jax.tree.map(lambda s: s[1], final), ys[:3, 1]), alone) < 2e-5
    after = unroll(block, params, xs[2:, 0], driver=driver)
    assert far((jax.tree.map(lambda s: s[0], final), ys[2:, 0]), after) < 2e-5
    assert same_bits(jax.tree.map(lambda s: s[2], final), pick(2))


def test_a_deep_model_learns():
    """The norm of the gradient falls: a smoke test of blocks on top of each other."""
    model = jaxrnn.Stack((jaxrnn.Linear(D), BLOCKS["mamba"], BLOCKS["griffin"], jaxrnn.RMSNorm(), jaxrnn.Linear(1)))
    params, _, xs = draw(model, time=4)
    target = xs.sum(-1, keepdims=True)
    loss = lambda params: jnp.square(jaxrnn.unroll(model, params, xs)[1] - target).mean()
    step = quick.jit(lambda params: jax.tree.map(lambda p, g: p - 0.05 * g, params, jax.grad(loss)(params)))
    first = quick.jit(loss)(params)
    params = functools.reduce(lambda params, _: step(params), range(20), params)
    assert float(quick.jit(loss)(params)) < 0.7 * float(first)


@pytest.mark.parametrize("make", [blocks.griffin, blocks.mamba, blocks.slstm], ids=lambda f: f.__name__)
def test_sizes_are_checked(make):
    with pytest.raises(ValueError, match=r"features of .* must be an int of 1 or more; got 0"):
        make(0)
    with pytest.raises(ValueError, match="Residual adds inputs to outputs"):
        make(8).init(jax.random.key(0), 4)
