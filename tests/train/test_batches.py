"""Batching by length: every row once, few shapes, minimal padding."""

import itertools

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxrnn import Elman, Scan
from jaxrnn.model import Embedding, SequenceModel
from jaxrnn.train import LengthGroups, epoch_batches, fit, length_groups, shard_batch


def ragged(count, longest=11, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 9, n) for n in rng.integers(1, longest, count)]


def padded(lengths, boundaries):
    groups = LengthGroups(tuple(boundaries))
    return np.array(groups.boundaries)[groups.of(lengths)].sum()


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_length_groups_minimize_the_padding(groups):
    lengths = np.random.default_rng(groups).integers(1, 9, 30)
    chosen = length_groups(lengths, groups)
    assert len(chosen.boundaries) <= groups
    ends = np.unique(lengths)
    every = (c for n in range(1, groups + 1) for c in itertools.combinations(ends.tolist(), n) if c[-1] == ends[-1])
    assert padded(lengths, chosen.boundaries) == min(padded(lengths, c) for c in every)


def test_length_groups_of_few_and_of_many_lengths():
    assert length_groups([7, 7], 6).boundaries == (7,)
    assert length_groups([0, 0], 2).boundaries == (1,)
    assert length_groups([2, 5, 9], 6).boundaries == (2, 5, 9)
    many = length_groups(np.arange(1, 5000), 4).boundaries
    assert len(many) == 4
    assert many[-1] == 4999


@pytest.mark.parametrize("boundaries", [(), (0, 3), (3, 3), (4, 2)])
def test_invalid_boundaries_raise(boundaries):
    with pytest.raises(ValueError, match="ascending positive"):
        LengthGroups(boundaries)


def test_an_epoch_holds_every_sequence_once_in_few_shapes():
    sequences = [*ragged(50), np.zeros(0, np.int64)]
    labels = np.arange(51)
    groups = length_groups([len(s) for s in sequences], 3)
    batches = list(epoch_batches(sequences, labels, groups=groups, batch_size=8, rng=np.random.default_rng(0)))
    assert {batch.ids.shape for batch in batches} == {(t, 8) for t in groups.boundaries}
    rows = np.concatenate([batch.rows for batch in batches])
    assert sorted(rows[rows >= 0]) == list(range(51))
    for batch in batches:
        assert (batch.weights == (batch.rows >= 0)).all()
        assert batch.lengths.dtype == np.int32
        for b, row in enumerate(batch.rows):
            if row < 0:
                assert batch.lengths[b] == 0
                assert not batch.ids[:, b].any()
                continue
            n = batch.lengths[b]
            np.testing.assert_array_equal(batch.ids[:n, b], sequences[row])
            assert not batch.ids[n:, b].any()
            assert batch.labels[b] == row


def test_the_order_is_kept_without_rng_and_determined_by_it():
    sequences = ragged(30)

    def rows(rng):
        batches = epoch_batches(sequences, groups=LengthGroups((11,)), batch_size=4, rng=rng)
        return [batch.rows.tolist() for batch in batches]

    assert np.concatenate(rows(None))[:30].tolist() == list(range(30))
    one, two = rows(np.random.default_rng((0, 1))), rows(np.random.default_rng((0, 1)))
    assert one == two != rows(np.random.default_rng((0, 2)))


def test_bags_and_labels_per_step():
    bags = [np.ones((n, 4), np.int32) for n in (2, 3)]
    tags = [np.array([1, 2]), np.array([3, 4, 5])]
    (batch,) = epoch_batches(bags, tags, groups=LengthGroups((4,)), batch_size=2)
    assert batch.ids.shape == (4, 2, 4)
    assert batch.labels.T.tolist() == [[1, 2, 0, 0], [3, 4, 5, 0]]
    (batch,) = epoch_batches(bags, groups=LengthGroups((4,)), batch_size=2)
    assert batch.labels is None


@pytest.mark.parametrize(
    ("sequences", "labels", "match"),
    [
        ([[1, 2], [3]], [0], "each sequence needs a label"),
        ([[1, 2], [3]], [[1], [2]], "one label per step"),
        ([[1, 2], [[3]]], None, "of one kind"),
        ([], None, "of one kind"),
        ([[1] * 9], [0], "longer than the last boundary"),
    ],
)
def test_invalid_arguments_raise_before_iteration(sequences, labels, match):
    with pytest.raises(ValueError, match=match):
        epoch_batches(sequences, labels, groups=LengthGroups((8,)), batch_size=2)


def test_epochs_over_ragged_text_compile_once_per_length_group():
    model = SequenceModel(Embedding(9, 3), Elman(2), 2)
    sequences = ragged(40)
    groups = length_groups([len(s) for s in sequences], 2)
    traced = []

    def loss(params, batch, key):
        traced.append(batch.ids.shape)
        logits = model(params, batch.ids, batch.lengths, driver=Scan())
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        return (losses * batch.weights).mean(), {}

    fit(
        loss,
        model.init(jax.random.key(0)),
        lambda epoch: epoch_batches(
            sequences, np.arange(40) % 2, groups=groups, batch_size=8, rng=np.random.default_rng((0, epoch))
        ),
        optimizer=optax.sgd(1e-2),
        epochs=3,
        key=jax.random.key(1),
        progress=False,
    )
    assert sorted(traced) == sorted({(t, 8) for t in groups.boundaries})


@pytest.mark.parametrize("each_step", [False, True])
def test_shares_of_a_batch_are_its_rows_in_order(each_step):
    sequences = ragged(13)
    labels = [s % 3 for s in sequences] if each_step else np.arange(13)
    options = {"groups": LengthGroups((5, 11)), "batch_size": 8}
    whole = list(epoch_batches(sequences, labels, rng=np.random.default_rng(0), **options))
    shares = [
        list(epoch_batches(sequences, labels, rng=np.random.default_rng(0), share=(i, 4), **options)) for i in range(4)
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        for name, axis in (("ids", 1), ("lengths", 0), ("labels", int(each_step)), ("weights", 0), ("rows", 0)):
            got = np.concatenate([getattr(part, name) for part in parts], axis)
            np.testing.assert_array_equal(got, getattr(batch, name))
    with pytest.raises(ValueError, match="multiple of the 3 shares"):
        epoch_batches(sequences, share=(0, 3), **options)


@pytest.mark.parametrize("each_step", [False, True])
def test_shard_batch_splits_the_rows_over_a_mesh(each_step):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    labels = [s % 3 for s in ragged(8)] if each_step else np.arange(8)
    (batch,) = epoch_batches(ragged(8), labels, groups=LengthGroups((11,)), batch_size=8)
    sharded = shard_batch(batch, mesh)
    jax.tree.map(np.testing.assert_array_equal, sharded, batch)
    assert sharded.ids.sharding.spec == P(None, "batch")
    assert sharded.labels.sharding.spec == (P(None, "batch") if each_step else P("batch"))


def test_empty_sequences_and_labels_have_the_dtype_of_the_others():
    take = lambda sequences, labels: next(epoch_batches(sequences, labels, groups=LengthGroups((4,)), batch_size=3))
    batch = take([[], [3, 4], [5]], [[], [1, 2], [3]])
    assert batch.lengths.tolist() == [0, 2, 1]
    assert batch.ids.T.tolist() == [[0] * 4, [3, 4, 0, 0], [5, 0, 0, 0]]
    assert {batch.ids.dtype.kind, batch.labels.dtype.kind} == {"i"}
    assert take([[1], [2], [3]], [0, 1.5, 2]).labels.tolist() == [0, 1.5, 2]
