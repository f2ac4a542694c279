"""The training loop: epochs, means, early stopping, checkpoints, a bar."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._checkpoint_files import CheckpointError, DamagedCheckpointError
from ._checkpoints import Checkpoints
from ._early_stopping import EarlyStopping
from ._interrupts import HeldInterrupts
from ._progress import Bar, Silent, bar_for
from ._step import Batch, Carried, Loss, Params, TrainState, TrainStep, as_carried, copy, init, make_step

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
            It may be stopped at any time, by Ctrl-C, SIGTERM or SIGKILL: the last whole epoch is there.
        progress: True shows a bar with the time left in a terminal, and elsewhere prints a line an epoch: means over
            training as `train_...`, what `evaluate` gave as `valid_...`. False shows nothing. None shows the bar alone.

    Raises:
        ValueError: for a patience or monitor without `evaluate`, an unknown monitor or mode, an epoch without batches,
            names used twice, a checkpoint that does not fit or was changed, or a directory in which another run trains.
        TypeError: for arguments that are not what is said above.
        KeyboardInterrupt: after Ctrl-C, when the batch, the evaluation or the checkpoint at hand is done; it says what
            is saved. A second Ctrl-C does not wait.

    Warns:
        RuntimeWarning: if all steps of an epoch were skipped, since their losses or gradients were not finite.

    >>> import optax
    >>> def loss(w, batch, key): return jnp.mean((batch - w) ** 2), {}
    >>> result = fit(loss, jnp.zeros(2), lambda epoch: [jnp.ones((4, 2))] * 50, optimizer=optax.sgd(0.1), epochs=2,
    ...     key=jax.random.key(0))
    >>> result.params.round(2).tolist(), result.history[0]["epoch"]
    ([1.0, 1.0], 0)
    """
    judge = EarlyStopping(monitor, mode, patience)
    _check_arguments(batches, epochs, evaluate, judge, checkpoints)
    train_step = make_step(loss, optimizer, clip=clip)
    locked = contextlib.nullcontext() if checkpoints is None else checkpoints.lock()
    try:
        with HeldInterrupts() as interrupts, locked, bar_for(progress, epochs) as bar:
            carry = as_carried(loss).initial(params)
            run = _Run(init(params, optimizer, key, carry), () if evaluate is None else copy(params), [])
            run = run if checkpoints is None else _resumed(run, checkpoints, judge)
            batches = _interruptible(batches, interrupts)
            while len(run.history) < epochs and not judge.should_stop(run.history):
                run = _epoch(run, train_step, batches, evaluate, judge, bar)
                if checkpoints is not None:
                    record = {"history": run.history, "best": [monitor, mode]}
                    checkpoints.save(len(run.history), (run.state, run.best), record)
                interrupts.check()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_stopped(checkpoints)) from None
    return Fit(copy(run.state.params) if evaluate is None else run.best, run.state, run.history)


@dataclasses.dataclass
class _Run:
    """All that a restart needs; `best` is () without `evaluate`."""

    state: TrainState
    best: Params
    history: list[Record]


def _check_arguments(batches: Any, epochs: Any, evaluate: Any, judge: EarlyStopping, checkpoints: Any) -> None:
    """Raise what is wrong with the arguments of `fit` that nothing else checks."""
    if not callable(batches):
        raise TypeError(
            f"batches must be a function from the epoch to its batches; got a {type(batches).__name__}. For the same "
            "list every epoch: lambda epoch: batches"
        )
    if not isinstance(checkpoints, Checkpoints | None):
        raise TypeError(f"checkpoints must be Checkpoints(directory); got {checkpoints!r:.60}")
    if not isinstance(epochs, int | np.integer) or isinstance(epochs, bool) or epochs < 0:
        raise ValueError(f"epochs must be an integer of at least 0; got {epochs!r}")
    if evaluate is None and (judge.patience, judge.name, judge.mode) != (None, "loss", "min"):
        raise ValueError(
            "monitor, mode and patience judge what evaluate returns: pass evaluate, as "
            "evaluation(loss, batches), or leave them out"
        )
    if not callable(evaluate) and evaluate is not None:
        raise TypeError(f"evaluate must be a function of the params; got a {type(evaluate).__name__}")


def _resumed(run: _Run, checkpoints: Checkpoints, judge: EarlyStopping) -> _Run:
    """Return the run of the newest checkpoint if there is one."""
    if checkpoints.latest() is None:
        return run
    (state, best), record = checkpoints.restore((run.state, run.best))
    if record.get("best") != [judge.name, judge.mode]:
        raise CheckpointError(
            f"{checkpoints} holds what was best by {record.get('best')!s:.60}, not by {[judge.name, judge.mode]}"
        )
    newest, remove = f"the newest checkpoint of {checkpoints.directory}", "Remove it to resume from the one before."
    history = record.get("history")
    if not isinstance(history, list) or not all(_is_record(row, epoch) for epoch, row in enumerate(history)):
        raise DamagedCheckpointError(f"{newest} holds no history of epochs. {remove}")
    floats = [leaf for leaf in jax.tree.leaves((state.params, best)) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    if any(bool(jnp.isnan(leaf).any()) for leaf in floats):
        raise DamagedCheckpointError(f"{newest} holds params that are NaN. {remove}")
    return _Run(state, best, history)


def _is_record(row: Any, epoch: int) -> bool:
    """Return whether a row of a history that was read is the record of this epoch."""
    numbers = isinstance(row, dict) and all(
        isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63) for value in row.values()
    )
    return numbers and row.get("epoch") == epoch and row.keys() >= {*OWN}


def _interruptible(batches: Batches, interrupts: HeldInterrupts) -> Batches:
    """Return `batches` that let Ctrl-C through before each."""

    def checked(epoch: int) -> Iterable[Batch]:
        for batch in batches(epoch):
            interrupts.check()
            yield batch

    return checked


def _stopped(checkpoints: Checkpoints | None) -> str:
    """Return what is left of a training that Ctrl-C stopped."""
    if checkpoints is None:
        return "training stopped; without checkpoints nothing of it is saved"
    if (saved := checkpoints.latest()) is None:
        return f"training stopped before its first epoch was saved to {checkpoints.directory}"
    return f"training stopped; epoch {saved} is saved in {checkpoints.directory}: the same training resumes from there"


def _epoch(
    run: _Run,
    train_step: TrainStep,
    batches: Batches,
    evaluate: Callable[[Params], Mapping[str, Any]] | None,
    judge: EarlyStopping,
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
    if record["skipped"] == len(reports):
        warnings.warn(
            f"all {len(reports)} steps of epoch {epoch + 1} were skipped, since no loss and gradient was finite: the "
            "params are as they were. Look for NaN in params and batches, and for labels out of range.",
            RuntimeWarning,
            stacklevel=3,
        )
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
    weights = np.array([report.get("weight", 1.0) for report in reports], float)
    if not (weights[skipped == 0] >= 0).all():
        raise ValueError(f"a metric named weight must be at least 0 in every batch; got {weights[skipped == 0].min()}")
    counted = (weights > 0) & (skipped == 0)
    record: Record = {"skipped": int(skipped.sum())}
    for name in sorted(reports[0].keys() - {"skipped", "weight"}, key=lambda name: (name != "loss", name)):
        values = np.array([report[name] for report in reports], float)[counted]
        record[f"train_{name}"] = float(np.average(values, weights=weights[counted])) if counted.any() else float("nan")
    return record


def _add(record: Record, scores: Mapping[str, Any], monitor: str) -> None:
    """Put what `evaluate` gave into the record."""
    if not isinstance(scores, Mapping):
        raise TypeError(f"evaluate must return a dict of numbers by name; it returned a {type(scores).__name__}")
    if taken := sorted(scores.keys() & {*record, *OWN}):
        raise ValueError(f"evaluate gave {taken}, names that the history has already: choose others")
    if monitor not in scores:
        raise ValueError(f"evaluate gave {sorted(scores)}, but monitor={monitor!r} is not among them")
    if wrong := [
        name for name, score in scores.items() if np.shape(score) or np.asarray(score).dtype.kind not in "biuf"
    ]:
        raise TypeError(f"evaluate must return a number for each name; {wrong[0]} is {scores[wrong[0]]!r:.60}")
    record.update({name: float(score) for name, score in scores.items()})
