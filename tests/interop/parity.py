"""Assertions that two implementations agree: in their outputs, and in the gradients of all their inputs."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import LSTMState

from .. import quick

LENGTHS = np.array([6, 1, 4])  # flax has no length 0: it returns the state after all the padding
TIME, BATCH, IN, HIDDEN = 6, 3, 3, 4


def noise(tree, seed=0):
    """Return random arrays of the shapes of `tree`, so that no bias is zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(0, 0.5, a.shape), a.dtype), tree)


def inputs(seed=1):
    """Return inputs (T, B, D)."""
    return noise(jnp.zeros((TIME, BATCH, IN)), seed)


def valid(lengths=LENGTHS):
    """Return a mask (T, B, 1), true before each row's length."""
    return np.arange(TIME)[:, None, None] < np.asarray(lengths)[:, None]


def state_of(carry):
    """Convert a carry of flax: (c, h) is LSTMState(h, c)."""
    return LSTMState(h=carry[1], c=carry[0]) if isinstance(carry, tuple) else carry


def agree(ours, theirs, *args, tolerance=1e-5):
    """Assert that both give the same arrays, and the same gradients of a loss on them for all args."""

    def probe(function):
        def loss(*args):
            out = function(*args)
            weights = [jnp.sin(1.0 + jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape) for a in jax.tree.leaves(out)]
            return sum(jnp.vdot(a, w) for a, w in zip(jax.tree.leaves(out), weights, strict=True)), out

        return jax.value_and_grad(loss, argnums=tuple(range(len(args))), has_aux=True)

    # One compilation for both: XLA takes most of the time.
    both = quick.jit(lambda *args: (probe(ours)(*args), probe(theirs)(*args)))
    mine, other = both(*args)
    assert jax.tree.structure(mine) == jax.tree.structure(other)
    close(mine, other, tolerance)


def close(a, b, tolerance=1e-5):
    """Assert that two trees hold the same numbers."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def params_of(cell, in_dim=IN):
    """Return random params of a cell, without the cost of its `init`."""
    return noise(jax.eval_shape(lambda k: cell.init(k, in_dim), jax.random.key(0)), seed=3)


def equal(a, b):
    """Return whether two pairs of cell and params are the same, bit for bit."""
    (cell_a, tree_a), (cell_b, tree_b) = a, b
    assert jax.tree.structure(tree_a) == jax.tree.structure(tree_b)
    return cell_a == cell_b and all(
        (x == y).all() for x, y in zip(*map(jax.tree.leaves, (tree_a, tree_b)), strict=True)
    )
