"""The training loop: epochs, means, early stopping, checkpoints, a bar."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from .checkpoints import Checkpoints
from .monitor import Monitor
from .progress import Bar, Silent, bar_for
from .step import Batch, Carried, Loss, Params, TrainState, TrainStep, copy, init, make_step

Batches = Callable[[int], Iterable[Batch]]
Record = dict[str, Any]
OWN = ("epoch", "seconds", "skipped")


class Fit(NamedTuple):
    """What `fit` found.

    Attributes:
        params: the best by `monitor` if there was an `evaluate`, else the last.
        state: the last `TrainState`.
        history: a dict an epoch: `epoch`, `train_loss`, `train_grad_norm` and the loss's other metrics with `train_`
            before them (means over the epoch's batches that were not skipped), `skipped`, `seconds`, and what
            `evaluate` gave, under its own names.
    """

    params: Params
    state: TrainState
    history: list[Record]


def fit(
    loss: Loss | Carried,
    params: Params,
    batches: Batches,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    key: jax.Array,
    clip: float | None = 1.0,
    evaluate: Callable[[Params], Mapping[str, Any]] | None = None,
    monitor: str = "loss",
    mode: str = "min",
    patience: int | None = None,
    checkpoints: Checkpoints | None = None,
    progress: bool | None = None,
) -> Fit:
    """Train for `epochs` epochs, or until `monitor` has not improved for `patience` of them.

    Args:
        loss: (params, batch, key) -> (a scalar, a dict of scalars), see `make_step`; or a `Carried`. A metric `weight`
            is what a batch counts in the epoch's means; without it all count the same.
        params: where training starts; they stay as they are.
        batches: epoch -> batches, pytrees of numpy arrays. Every new shape compiles; see `epoch_batches`.
        optimizer: any Optax optimizer.
        epochs: how many in all, those before a restart included.
        key: what all noise comes from.
        clip: the greatest global norm of the gradient; None does not clip.
        evaluate: params -> a dict of floats, once an epoch; it must not keep the params, which are donated after.
        monitor: which of these says what is best; NaN is never best.
        mode: "min" or "max".
        patience: how many epochs without a new best are borne; None bears all.
        checkpoints: where to save every epoch. A directory that holds some goes on from the newest of them, its key
            and all: bit for bit as if never interrupted, if `batches` and `evaluate` are functions of their arguments.
        progress: True shows a bar with the time left in a terminal, and elsewhere prints a line an epoch: means over
            training as `train_...`, what `evaluate` gave as `valid_...`. False shows nothing. None shows the bar alone.

    Raises:
        ValueError: for a patience without `evaluate`, an unknown monitor or mode, an epoch without batches, names used
            twice, or a checkpoint that does not fit or was changed.

    >>> import optax
    >>> def loss(w, batch, key): return jnp.mean((batch - w) ** 2), {}
    >>> result = fit(loss, jnp.zeros(2), lambda epoch: [jnp.ones((4, 2))] * 50, optimizer=optax.sgd(0.1), epochs=2,
    ...     key=jax.random.key(0))
    >>> result.params.round(2).tolist(), result.history[0]["epoch"]
    ([1.0, 1.0], 0)
    """
    judge = Monitor(monitor, mode, patience)
    if evaluate is None and patience is not None:
        raise ValueError("patience waits for what evaluate gives: pass evaluate, or patience=None")
    train_step = make_step(loss, optimizer, clip=clip)
    carry = loss.initial(params) if isinstance(loss, Carried) else ()
    run = _Run(init(params, optimizer, key, carry), () if evaluate is None else copy(params), [])
    if checkpoints is not None:
        run = _resumed(run, checkpoints, judge)
    with bar_for(progress, epochs) as bar:
        while len(run.history) < epochs and not judge.over(run.history):
            run = _epoch(run, train_step, batches, evaluate, judge, bar)
            if checkpoints is not None:
                record = {"history": run.history, "best": [monitor, mode]}
                checkpoints.save(len(run.history), (run.state, run.best), record)
    return Fit(copy(run.state.params) if evaluate is None else run.best, run.state, run.history)


@dataclasses.dataclass
class _Run:
    """All that a restart needs; `best` is () without `evaluate`."""

    state: TrainState
    best: Params
    history: list[Record]


def _resumed(run: _Run, checkpoints: Checkpoints, judge: Monitor) -> _Run:
    """Go on from the newest checkpoint if there is one."""
    if checkpoints.latest() is None:
        return run
    (state, best), record = checkpoints.restore((run.state, run.best))
    if record["best"] != [judge.name, judge.mode]:
        raise ValueError(f"{checkpoints} holds what was best by {record['best']}, not by {[judge.name, judge.mode]}")
    return _Run(state, best, record["history"])


def _epoch(
    run: _Run,
    train_step: TrainStep,
    batches: Batches,
    evaluate: Callable[[Params], Mapping[str, Any]] | None,
    judge: Monitor,
    bar: Bar | Silent,
) -> _Run:
    """Train for one epoch, and see how good it is."""
    epoch, began = len(run.history), time.perf_counter()
    state, reports = run.state, []
    bar.epoch(epoch)
    for batch in batches(epoch):
        state, metrics = train_step(state, batch)
        reports.append(metrics)
        bar.advance(metrics)
    if not reports:
        raise ValueError(f"batches({epoch}) gave no batch; it is called every epoch, so it must not be used up")
    record = {"epoch": epoch, **means(jax.device_get(reports))}
    best = run.best
    if evaluate is not None:
        _add(record, evaluate(state.params), judge.name)
        history = [*run.history, record]
        best = copy(state.params) if judge.best(history) in (epoch, None) else best
    record["seconds"] = time.perf_counter() - began
    bar.note(record)
    return _Run(state, best, [*run.history, record])


def means(reports: list[Mapping[str, Any]]) -> Record:
    """Give the epoch's record: weighted means over the batches not skipped (NaN if all were), and how many were."""
    skipped = np.array([report["skipped"] for report in reports])
    weights = np.array([report.get("weight", 1.0) for report in reports], float) * (1 - skipped)
    counted = weights > 0
    record: Record = {"skipped": int(skipped.sum())}
    for name in sorted(reports[0].keys() - {"skipped", "weight"}, key=lambda name: (name != "loss", name)):
        values = np.array([report[name] for report in reports], float)[counted]
        record[f"train_{name}"] = float(np.average(values, weights=weights[counted])) if counted.any() else float("nan")
    return record


def _add(record: Record, scores: Mapping[str, Any], monitor: str) -> None:
    """Put what `evaluate` gave into the record."""
    if taken := sorted(scores.keys() & {*record, *OWN}):
        raise ValueError(f"evaluate gave {taken}, names that the history has already: choose others")
    if monitor not in scores:
        raise ValueError(f"evaluate gave {sorted(scores)}, but monitor={monitor!r} is not among them")
    record.update({name: float(score) for name, score in scores.items()})
