"""One of several processes that train one intent model: `worker.py INDEX COUNT PORT FOLDER EPOCHS`."""

import pathlib
import sys

import jax
import numpy as np

from examples.intent import data
from examples.intent.classifier import Config
from examples.intent.train import Recipe, train
from jaxrnn.train import Checkpoints
from tests import quick


def main(index: int, count: int, port: int, folder: pathlib.Path, epochs: int) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_disable_most_optimizations", True)
    quick.everywhere()
    jax.config.update("jax_num_cpu_devices", 2 // count)  # two devices in all
    if count > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"localhost:{port}", count, index)
    corpus = data.load()
    corpus.train, corpus.valid = corpus.train[::16], corpus.valid[::8]
    recipe = Recipe(min_epochs=epochs, max_epochs=epochs, batch_size=32, groups=1, adversarial_norm=0)
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    options = {"mesh": mesh, "checkpoints": Checkpoints(folder / "checkpoints"), "progress": False}
    _, fitted = train(corpus, Config(32, 16), recipe, seed=0, **options)
    if index == 0:
        np.savez(folder / "params.npz", *jax.device_get(jax.tree.leaves(fitted.state.params)))
        (folder / "losses.txt").write_text(" ".join(f"{record['train_loss']:.7f}" for record in fitted.history))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), pathlib.Path(sys.argv[4]), int(sys.argv[5]))
