"""The model: embeddings, what is read, streaming, and what padding must not do."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from jaxrnn import GRU, Bidirectional, Dropout, Elman, Scan, Stack
from jaxrnn.model import BagEmbedding, Embedding, SequenceModel, ends, every, init_readout, last, maximum, mean, readout

READS = [last, ends, mean, maximum]
LENGTHS = np.array([5, 2, 0])
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def by_hand(read, ys, length):
    """What each read means, one sequence at a time."""
    ys = np.asarray(ys)[:length]
    if length == 0:
        return np.zeros(ys.shape[1:])
    half = ys.shape[1] // 2
    return {
        last: ys[-1],
        mean: ys.mean(axis=0),
        maximum: ys.max(axis=0),
        ends: np.concatenate([ys[-1, :half], ys[0, half:]]),
    }[read]


@pytest.mark.parametrize("read", READS)
def test_read_is_what_it_says_and_never_sees_the_padding(read):
    ys = jax.random.normal(KEY, (5, 3, 4))
    padding = (np.arange(5)[:, None] >= LENGTHS)[..., None]
    want = [by_hand(read, ys[:, b], n) for b, n in enumerate(LENGTHS)]
    np.testing.assert_allclose(read(jnp.where(padding, jnp.nan, ys), LENGTHS), want, rtol=1e-6)
    whole = [by_hand(read, ys[:, b], 5) for b in range(3)]
    np.testing.assert_allclose(read(ys, None), whole, rtol=1e-6)


@pytest.mark.parametrize("read", READS)
def test_gradient_of_a_read_is_finite_and_zero_in_the_padding(read):
    padding = (np.arange(5)[:, None] >= LENGTHS)[..., None]
    ys = jnp.where(padding, 0.0, jax.random.normal(KEY, (5, 3, 4)))
    grad = np.asarray(jax.grad(lambda ys: (read(ys, LENGTHS) ** 2).sum())(ys))
    assert np.isfinite(grad).all()
    assert (grad[np.broadcast_to(padding, grad.shape)] == 0).all()
    assert (np.abs(grad[:, :2]).sum((0, 2)) > 0).all()


@pytest.mark.parametrize("read", [mean, maximum])
def test_reads_under_shard_map(read):
    ys = jax.random.normal(KEY, (4, 8, 3))
    loss = lambda ys: (read(ys, None) ** 2).sum()
    with jax.set_mesh(jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))):
        spec = PartitionSpec(None, "data")
        each = jax.jit(jax.shard_map(jax.grad(loss), in_specs=spec, out_specs=spec))(ys)
    np.testing.assert_allclose(each, jax.grad(loss)(ys), rtol=1e-6)


def test_maximum_differentiates_as_numpys_both_ways_ties_shared():
    ys, dys = jnp.array([[1.0, 3.0], [3.0, 3.0], [3.0, -jnp.inf]]), jnp.array([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]])
    np.testing.assert_array_equal(jax.grad(lambda ys: maximum(ys).sum())(ys), [[0, 0.5], [0.5, 0.5], [0.5, 0]])
    np.testing.assert_allclose(jax.jvp(maximum, (ys,), (dys,))[1], [10, 5])
    assert np.isnan(maximum(ys.at[1].set(jnp.nan))).all()


@pytest.mark.parametrize("read", READS)
def test_reads_take_no_or_two_batch_axes(read):
    ys = jax.random.normal(KEY, (5, 2, 3, 4))
    lengths = np.array([[5, 2, 0], [1, 4, 3]])
    got = read(ys, lengths)
    assert got.shape == (2, 3, 4)
    np.testing.assert_allclose(got[1, 1], read(ys[:, 1, 1], np.array(4)), rtol=1e-6)


def test_every_reads_all_and_ends_needs_two_halves():
    ys = jax.random.normal(KEY, (5, 3, 3))
    assert every(ys, LENGTHS) is ys
    with pytest.raises(ValueError, match="two halves"):
        ends(ys, LENGTHS)


def test_readout_is_the_equation():
    params = init_readout(KEY, 4, 3)._replace(c=jnp.arange(3.0))
    h = jax.random.normal(KEY, (5, 2, 4))
    np.testing.assert_allclose(readout(params, h), np.asarray(h) @ np.asarray(params.v) + np.arange(3), rtol=1e-5)


def test_embedding_looks_up_and_poisons_unknown_ids():
    embed = Embedding(5, 3)
    table = embed.init(KEY)
    np.testing.assert_array_equal(embed(table, [[4, 0]])[0], table[jnp.array([4, 0])])
    assert np.isnan(embed(table, np.array([5, -1]))).all()
    with pytest.raises(ValueError, match="integer ids"):
        embed(table, np.ones(3))


def test_bag_is_the_mean_of_its_ids_and_zero_is_nothing():
    embed = BagEmbedding(6, 3)
    table = embed.init(KEY).at[0].set(jnp.nan)
    ids = np.array([[[1, 5, 0], [2, 2, 3]], [[0, 0, 0], [0, 4, 0]]])
    t = np.asarray(table)
    want = [[(t[1] + t[5]) / 2, (2 * t[2] + t[3]) / 3], [np.zeros(3), t[4]]]
    np.testing.assert_allclose(embed(table, ids), want, rtol=1e-6)
    grad = np.asarray(jax.grad(lambda table: embed(table, ids).sum())(table))
    assert (grad[0] == 0).all()
    np.testing.assert_allclose(grad[1:, 0], [0.5, 2 / 3, 1 / 3, 1, 0.5], rtol=1e-6)
    with pytest.raises(ValueError, match="bags"):
        embed(table, 3)


@pytest.mark.optimised
@pytest.mark.parametrize("read", [maximum, ends, every])
def test_padding_reaches_neither_logits_nor_gradients(read):
    model = SequenceModel(Embedding(9, 4), Bidirectional(Elman(3)), 2, read)
    params = model.init(KEY)
    ids = np.arange(15).reshape(5, 3) % 9
    other = np.where(np.arange(5)[:, None] < LENGTHS, ids, 99)  # no such id: NaN

    @jax.jit
    def run(params, ids):
        return jax.value_and_grad(lambda p: (model(p, ids, LENGTHS, driver=Scan()) ** 2).sum())(params)

    one, two = run(params, ids), run(params, other)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(one))
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize("read", [every, last])
@pytest.mark.parametrize("embed", [Embedding(9, 4), BagEmbedding(9, 4)])
def test_step_by_step_equals_the_whole_run(embed, read):
    model = SequenceModel(embed, Stack((Dropout(0.3), GRU(3))), 2, every)
    params = model.init(KEY)
    ids = np.arange(30).reshape(5, 2, 3) % 9 if isinstance(embed, BagEmbedding) else np.arange(10).reshape(5, 2) % 9
    whole_state, whole = model.unroll(params, ids, driver=Scan())
    model = dataclasses.replace(model, pooling=read)  # streaming, last and every are the same
    assert whole.shape == (5, 2, 2)
    step = jax.jit(model.step)
    state = model.initial_state(params, (2,))
    for t in range(5):
        state, logits = step(params, state, ids[t])
        np.testing.assert_allclose(logits, whole[t], rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, whole_state)


def test_state_goes_on_and_hidden_is_before_the_readout():
    model = SequenceModel(Embedding(9, 4), Elman(3), 2, every)
    params = model.init(KEY)
    ids = np.arange(12).reshape(6, 2) % 9
    whole = model(params, ids, driver=Scan())
    state, first = model.unroll(params, ids[:4], driver=Scan())
    second = model(params, ids[4:], state=state, driver=Scan())
    np.testing.assert_allclose(jnp.concatenate([first, second]), whole, rtol=1e-5, atol=1e-6)
    _, ys = model.hidden(params, ids, driver=Scan())
    assert ys.shape == (6, 2, 3)
    np.testing.assert_allclose(readout(params.readout, ys), whole, rtol=1e-6)


@pytest.mark.parametrize(
    ("layers", "read", "match"),
    [
        (Bidirectional(Elman(2)), every, "no causal step"),
        (Stack((Elman(2), Bidirectional(Elman(2)))), last, "no causal step"),
        (Elman(2), mean, "mean needs the whole sequence"),
        (Elman(2), maximum, "maximum needs the whole sequence"),
    ],
)
def test_what_has_no_step_says_so(layers, read, match):
    model = SequenceModel(Embedding(9, 4), layers, 2, read)
    params = model.init(KEY)
    with pytest.raises(ValueError, match=match):
        model.step(params, model.initial_state(params), np.array(1))


def test_dropout_needs_a_key_and_equal_models_are_equal():
    model = SequenceModel(Embedding(9, 4), Stack((Dropout(0.5), Elman(3))), 2)
    params = model.init(KEY)
    ids = np.arange(6).reshape(3, 2)
    plain, noisy = model(params, ids), model(params, ids, key=KEY)
    np.testing.assert_array_equal(plain, model(params, ids))
    assert not np.allclose(plain, noisy)
    again = SequenceModel(Embedding(9, 4), Stack((Dropout(0.5), Elman(3))), 2)
    assert model == again
    assert hash(model) == hash(again)


def test_pooling_knows_lengths_alone():
    model = SequenceModel(Embedding(9, 4), GRU(5), outputs=2)
    params = model.init(jax.random.key(0))
    ids, mask = np.ones((5, 2), int), np.arange(5)[:, None] < np.array([3, 5])
    for how in ({"mask": mask}, {"reverse": True}):
        with pytest.raises(ValueError, match=r"lengths alone.*model\.hidden"):
            model(params, ids, **how)
    by_step = dataclasses.replace(model, pooling=every)
    assert jnp.array_equal(by_step(params, ids, mask=mask), by_step(params, ids, np.array([3, 5])))
