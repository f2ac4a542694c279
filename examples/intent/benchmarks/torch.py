"""PyTorch, eager, with padding handled in two ways: packed sequences, or padded sequences with each row reversed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from examples.intent.layers import MEAN_SCALE
from jaxrnn.interop.torch import to_torch
from jaxrnn.train import Batch

from .task import SEED, Answer, Task

PLACE = "cuda" if jax.default_backend() == "gpu" else "cpu"
DEFAULT_THREADS = torch.get_num_threads()


class Packed(nn.Module):
    """One bidirectional `nn.GRU` over a packed sequence."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.gru = to_torch(task.layer, task.layer_params)

    def forward(self, xs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return (T, B, 2 H); torch packs no row of length 0, so such a row counts as one of length 1."""
        packed = pack_padded_sequence(xs, lengths.clamp(min=1).cpu(), enforce_sorted=False)
        return pad_packed_sequence(self.gru(packed)[0], total_length=len(xs))[0]


class Padded(nn.Module):
    """Two `nn.GRU` over padded sequences, each row reversed within its length before and after the second."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.forward_gru = to_torch(task.layer.forward, task.layer_params.forward)
        self.backward_gru = to_torch(task.layer.backward, task.layer_params.backward)

    def forward(self, xs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return (T, B, 2 H)."""
        steps = torch.arange(len(xs), device=xs.device)[:, None]
        mirrored = torch.where(steps < lengths, lengths - 1 - steps, steps)
        rows = torch.arange(xs.shape[1], device=xs.device)
        reversed_ys = self.backward_gru(xs[mirrored, rows])[0]
        return torch.cat([self.forward_gru(xs)[0], reversed_ys[mirrored, rows]], dim=-1)


class Whole(nn.Module):
    """One bidirectional `nn.GRU`; there is no padding."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.gru = to_torch(task.layer, task.layer_params)

    def forward(self, xs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return (T, B, 2 H)."""
        return self.gru(xs)[0]


class Model(nn.Module):
    """The intent model around one of these layers; noise in training mode."""

    def __init__(self, task: Task, layer: Callable[[Task], nn.Module]) -> None:
        super().__init__()
        params, config = task.params, task.config
        self.embed = nn.EmbeddingBag(
            *params.embed.shape, mode="mean", padding_idx=0, _weight=torch.tensor(params.embed)
        )
        self.input_dropout, self.output_dropout = nn.Dropout(config.input_dropout), nn.Dropout(config.output_dropout)
        self.layer = layer(task)
        self.readout = nn.Linear(*params.readout.v.shape)
        self.readout.load_state_dict(
            {"weight": torch.tensor(params.readout.v.T), "bias": torch.tensor(params.readout.c)}
        )

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K)."""
        flat = ids.flatten(0, 1)
        xs = (self.embed(flat[:, :1]) + self.embed(flat[:, 1:])).unflatten(0, ids.shape[:2])
        ys = self.layer(self.input_dropout(xs), lengths)
        padding = (torch.arange(len(ids), device=ids.device)[:, None] >= lengths)[..., None]
        highest = ys.masked_fill(padding, -torch.inf).amax(dim=0).masked_fill((lengths == 0)[:, None], 0.0)
        mean = xs.masked_fill(padding, 0.0).sum(dim=0) / lengths.clamp(min=1)[:, None]
        return self.readout(self.output_dropout(torch.cat([highest, MEAN_SCALE * mean], dim=-1)))


class Learner:
    """AdamW, fused, under the recipe's one cycle of the learning rate, at whose end it stays.

    Args:
        task: what is learned.
        layer: `Packed` or `Padded`.
        threads: that torch may use on a CPU; None is as many as it takes by itself.
    """

    def __init__(self, task: Task, layer: Callable[[Task], nn.Module], threads: int | None = None) -> None:
        torch.manual_seed(SEED)
        self._threads = threads or DEFAULT_THREADS
        self._recipe, self._model = task.recipe, Model(task, layer).to(PLACE)
        params = list(self._model.parameters())
        matrices, vectors = ([p for p in params if (p.ndim > 1) == wanted] for wanted in (True, False))
        self._optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": task.recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=task.recipe.learning_rate,
            fused=True,
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer,
            task.recipe.learning_rate,
            total_steps=task.recipe.steps,
            pct_start=0.15,
            div_factor=10,
            cycle_momentum=False,
        )

    def logits(self, batch: Batch) -> np.ndarray:
        """Return (B, K), without noise."""
        self._model.eval()
        with torch.inference_mode():
            return self._model(*tensors(batch.ids, batch.lengths)).cpu().numpy()

    def step(self, batch: Batch) -> torch.Tensor:
        """Train on a batch, and return the loss."""
        self._model.train()
        torch.set_num_threads(self._threads)
        ids, lengths, labels, weights = tensors(batch.ids, batch.lengths, batch.labels, batch.weights)
        kept = torch.rand(ids.shape[:2], device=ids.device) < 1 - self._recipe.word_dropout
        ids = torch.cat([ids[..., :1] * kept[..., None], ids[..., 1:]], dim=-1)
        losses = nn.functional.cross_entropy(
            self._model(ids, lengths), labels.long(), reduction="none", label_smoothing=self._recipe.smoothing
        )
        loss = (losses * weights).sum() / weights.sum()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        if self._schedule.last_epoch < self._recipe.steps - 1:
            self._schedule.step()
        return loss.detach()

    def wait(self) -> None:
        """Return when every step is done."""
        if PLACE == "cuda":
            torch.cuda.synchronize()


def tensors(*arrays: Any) -> list[torch.Tensor]:
    """Move numpy arrays to where torch computes; on a CPU nothing is copied."""
    return [torch.from_numpy(array).to(PLACE) for array in arrays]


def answering(task: Task) -> Answer:
    """Answer under `inference_mode`, without padding."""
    torch.set_num_threads(DEFAULT_THREADS)
    model = Model(task, Whole).to(PLACE).eval()

    def answer(ids: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits = model(*tensors(ids[:, None], np.array([len(ids)], np.int32)))
            return logits.softmax(dim=-1)[0].cpu().numpy()

    return answer
