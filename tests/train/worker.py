"""One of several processes that train a small classifier together: `worker.py INDEX COUNT PORT FOLDER EPOCHS`."""

import functools
import pathlib
import sys

import jax
import numpy as np
import optax

from jaxrnn import GRU
from jaxrnn.model import Embedding, SequenceModel, last
from jaxrnn.train import Checkpoints, CrossEntropy, LengthGroups, epoch_batches, fit, over


def main(index: int, count: int, port: int, folder: pathlib.Path, epochs: int) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2 // count)  # two devices in all
    if count > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"localhost:{port}", count, index)
    draw = np.random.default_rng(0)
    sequences = [draw.integers(1, 20, draw.integers(3, 9)) for _ in range(60)]
    labels = [int(s.sum() % 3) for s in sequences]
    model = SequenceModel(Embedding(20, 8), GRU(8), 3, last)
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))

    def batches(epoch):
        how = {"groups": LengthGroups((8,)), "batch_size": 8, "rng": np.random.default_rng((1, epoch))}
        found = epoch_batches(sequences, labels, share=(jax.process_index(), jax.process_count()), **how)
        return map(functools.partial(over, mesh=mesh), found)

    found = fit(
        CrossEntropy(model),
        model.init(jax.random.key(0)),
        batches,
        optimizer=optax.adam(1e-2),
        epochs=epochs,
        key=jax.random.key(1),
        checkpoints=Checkpoints(folder / "checkpoints"),
        progress=False,
    )
    if index == 0:
        np.savez(folder / "params.npz", *jax.device_get(jax.tree.leaves(found.params)))
        (folder / "losses.txt").write_text(" ".join(f"{record['train_loss']:.7f}" for record in found.history))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), pathlib.Path(sys.argv[4]), int(sys.argv[5]))
