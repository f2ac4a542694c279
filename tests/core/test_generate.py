"""Sequences in and out: padding on the host, and outputs that are fed back."""

import dataclasses
import multiprocessing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn
from jaxrnn import GRU
from jaxrnn.model import Embedding, SequenceModel, every
from jaxrnn.train import epoch_batches, length_groups, streams, windows

from .table import CELLS, B, D, draw, far, unroll


@dataclasses.dataclass(frozen=True)
class Decoder:
    """The decoder of `generate`'s docstring."""

    model: SequenceModel
    end: int

    def step(self, params, state, x):
        token, ended = x
        state, logits = self.model.step(params, state, token)
        return state, (token, ended, logits)

    def sample(self, y, key):
        _, ended, logits = y
        token = jnp.where(ended, self.end, jax.random.categorical(key, logits))
        return token, ended | (token == self.end)


def test_pad_makes_what_unroll_takes():
    rng = np.random.default_rng(0)
    sequences = [rng.standard_normal((n, D)).astype(np.float32) for n in (3, 0, 5)]
    xs, lengths = jaxrnn.pad(sequences)
    assert xs.shape == (5, 3, D)
    assert lengths.tolist() == [3, 0, 5]
    assert jaxrnn.pad(sequences, length=8)[0].shape == (8, 3, D)
    cell = CELLS["gru"]
    params, _, _ = draw(cell)
    final, _ = jaxrnn.unroll(cell, params, xs, lengths=lengths)
    for row, sequence in enumerate(sequences):
        assert far(final[row], unroll(cell, params, sequence)[0]) < 1e-6
    for bad, match in (([], "none"), ([np.ones((2, 3)), np.ones((2, 4))], "agree")):
        with pytest.raises(ValueError, match=match):
            jaxrnn.pad(bad)
    with pytest.raises(ValueError, match="longest sequence has 5"):
        jaxrnn.pad(sequences, length=4)


def test_generate_feeds_the_output_back():
    cell = GRU(D)
    params, state, xs = draw(cell)
    state, ys = jaxrnn.generate(cell, params, xs[0], state, steps=4)
    again = jaxrnn.unroll(cell, params, jnp.concatenate([xs[:1], ys[:-1]]), draw(cell)[1])
    assert far((state, ys), again) < 2e-6
    noisy = lambda y, key: y + jax.random.normal(key, y.shape)
    a, b = (jaxrnn.generate(cell, params, xs[0], steps=4, feed=noisy, key=jax.random.key(k))[1] for k in (0, 1))
    assert far(a, b) > 0.01


@pytest.mark.parametrize("kind", [jnp.int32, jnp.bfloat16, bool])
def test_generate_is_not_cut_to_the_kind_of_the_first_input(kind):
    cell = GRU(D)
    params, state, _ = draw(cell)
    ones = np.ones((B, D))
    want = jaxrnn.generate(cell, params, ones, state, steps=4)
    assert far(jaxrnn.generate(cell, params, ones.astype(kind), state, steps=4), want) < 1e-6


def test_a_decoder_samples_with_a_key_a_step_and_stops_at_its_end_token():
    model, end = SequenceModel(Embedding(5, 3), GRU(4), 5, every), 1
    params = model.init(jax.random.key(0))
    state, start = model.initial_state(params, (16,)), (jnp.full(16, 2), jnp.zeros(16, bool))
    draws = lambda key: jaxrnn.generate(
        Decoder(model, end), params, start, state, steps=8, feed=Decoder(model, end).sample, key=key
    )[1]
    tokens, ended, logits = draws(jax.random.key(0))
    assert (tokens[0] == 2).all()
    assert 0 < ended[-1].sum() < 16
    assert (tokens[ended] == end).all()
    assert (ended[1:] == ended[:-1] | (tokens[1:] == end)).all()
    assert len(np.unique(tokens[1:][~ended[1:]])) > 2
    assert far(logits, model(params, tokens)) < 1e-5
    keys = jax.random.split(jax.random.key(0), 8)
    drawn = jax.random.categorical(keys[0], logits[0])
    assert (tokens[1] == drawn).all()
    assert not (draws(jax.random.key(1))[0] == tokens).all()


@pytest.mark.parametrize("empty", [[], np.array([]), np.zeros(0, np.int32)])
def test_a_sequence_without_steps_is_of_any_kind(empty):
    xs, lengths = jaxrnn.pad([[3, 4], empty, [5]])
    assert lengths.tolist() == [2, 0, 1]
    assert xs.T.tolist() == [[3, 4], [0, 0], [5, 0]]
    assert jnp.issubdtype(xs.dtype, np.integer)
    assert jaxrnn.pad([np.ones((2, 3)), empty])[0].shape == (2, 2, 3)
    assert jaxrnn.pad([empty, empty])[0].shape == (0, 2)


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_batches_are_prepared_in_a_forked_worker():
    jax.block_until_ready(jnp.ones(3) + 1)

    def prepare(out):
        xs, lengths = jaxrnn.pad([[1, 2], []])
        batch = next(epoch_batches([[1, 2], [3]], [0, 1], groups=length_groups([2, 1]), batch_size=2))
        window = next(windows(streams(np.arange(6), 2), 2, lengths=[3, 1]))
        out.send([type(a) for a in (xs, lengths, *batch, *window)])

    receiver, sender = multiprocessing.Pipe(False)
    worker = multiprocessing.get_context("fork").Process(target=prepare, args=(sender,))
    worker.start()
    assert receiver.poll(60)
    assert set(receiver.recv()) == {np.ndarray}
    worker.join(60)
    assert worker.exitcode == 0
