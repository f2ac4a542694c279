"""A first model: learn to name the intent of "what time is it ?". Run `python -m examples.first_intent`.

A text becomes ids, an embedding maps ids to vectors, a bidirectional GRU runs over the vectors, the maximum of its
outputs over time goes to a linear readout, one logit per intent. `examples/intent` is the full application of the same
task: any data set, calibrated probabilities, slots, plots, exports and a server.
"""

import collections
import csv
import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import optax

from jaxrnn import GRU, Bidirectional, Dropout, Stack, pad
from jaxrnn.model import Embedding, ModelParams, SequenceModel, maximum
from jaxrnn.train import Batch, CrossEntropy, epoch_batches, evaluation, fit, length_groups

CORPUS = Path(__file__).parent / "intent" / "corpus"
UNKNOWN = 1  # the id of tokens that occur only once in train, or never; 0 is the padding
Rows = list[list[str]]  # [text, intent]


def read(split: str) -> Rows:
    """Read the rows of a split: train, valid or test."""
    with open(CORPUS / f"{split}.tsv", encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def tokenize(text: str) -> list[str]:
    """Split a text into words of Latin letters and digits, and single characters of anything else.

    >>> tokenize("What time is it ?")
    ['what', 'time', 'is', 'it', '?']
    """
    return re.findall(r"[a-z0-9']+|\S", text.lower())


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A model with its params, its vocabulary and its intents.

    Args:
        ids: the id of each known token, from 2 on.
        intents: the names of the K intents.
        model: from ids (T, B) and lengths (B,) to logits (B, K).
        params: the params of the model.
    """

    ids: dict[str, int]
    intents: list[str]
    model: SequenceModel
    params: ModelParams

    def encode(self, tokens: Sequence[str]) -> np.ndarray:
        """Return the ids (T,) of tokens."""
        return np.array([self.ids.get(token, UNKNOWN) for token in tokens], np.int32)

    def batches(self, rows: Rows, seed: int | None = None) -> Iterator[Batch]:
        """Return the batches of one epoch. They are padded to two lengths, each compiled once. A seed shuffles them."""
        sequences = [self.encode(tokenize(text)) for text, _ in rows]
        labels = np.array([self.intents.index(intent) for _, intent in rows], np.int32)
        groups = length_groups([len(ids) for ids in sequences], groups=2)
        rng = None if seed is None else np.random.default_rng(seed)
        return epoch_batches(sequences, labels, groups=groups, batch_size=64, rng=rng)

    def accuracy(self, rows: Rows) -> float:
        """Return the share of texts whose most probable intent is right."""
        return evaluation(CrossEntropy(self.model), lambda: self.batches(rows))(self.params)["accuracy"]

    def predict(self, texts: Sequence[Sequence[str]]) -> list[tuple[str, float]]:
        """Return the most probable intent of each tokenized text, and its probability."""
        ids, lengths = pad([self.encode(tokens) for tokens in texts])  # (T, B), (B,)
        probabilities = jax.nn.softmax(self.model(self.params, ids, lengths))  # (B, K)
        return [(self.intents[int(row.argmax())], float(row.max())) for row in probabilities]


def train(rows: Rows, valid: Rows, epochs: int = 12, seed: int = 0) -> Classifier:
    """Train with Adam, and keep the params of the epoch with the lowest loss on `valid`."""
    counts = collections.Counter(token for text, _ in rows for token in tokenize(text))
    known = sorted(token for token, count in counts.items() if count > 1)
    ids = {token: i for i, token in enumerate(known, start=UNKNOWN + 1)}
    intents = sorted({intent for _, intent in rows})

    layers = Stack((Dropout(0.5), Bidirectional(GRU(96)), Dropout(0.5)))  # outputs (T, B, 2 * 96)
    model = SequenceModel(Embedding(len(ids) + UNKNOWN + 1, 128), layers, outputs=len(intents), pooling=maximum)
    k_params, k_dropout = jax.random.split(jax.random.key(seed))
    untrained = Classifier(ids, intents, model, model.init(k_params))

    loss = CrossEntropy(model)
    result = fit(
        loss,
        untrained.params,
        lambda epoch: untrained.batches(rows, seed=epoch),
        optimizer=optax.adam(5e-3),
        epochs=epochs,
        key=k_dropout,
        evaluate=evaluation(loss, lambda: untrained.batches(valid)),
        progress=True,  # print the metrics of every epoch
    )
    return dataclasses.replace(untrained, params=result.params)


def main(text: str = "what time is it ?") -> None:
    """Train, test, and print the prediction after each token of a text: it depends on all tokens so far."""
    classifier = train(read("train"), read("valid"))
    print(f"test accuracy {classifier.accuracy(read('test')):.1%}")
    tokens = tokenize(text)
    predictions = classifier.predict([tokens[:end] for end in range(1, len(tokens) + 1)])
    for token, (intent, probability) in zip(tokens, predictions, strict=True):
        print(f"{token:>8}  {intent}  {probability:.1%}")


if __name__ == "__main__":
    main()
