"""The training loop: epochs, means, early stopping, checkpoints, progress."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from .._core.types import Key, Params
from ._checkpoint_files import CheckpointError, DamagedCheckpointError
from ._checkpoints import Checkpoints
from ._early_stopping import EarlyStopping
from ._interrupts import HeldInterrupts
from ._progress import Silent, bar_for
from ._step import Batch, Carried, Loss, TrainState, TrainStep, as_carried, copy, init, make_step

Batches: TypeAlias = Callable[[int], Iterable[Batch]]
"""From the epoch to its batches."""

Evaluate: TypeAlias = Callable[[Params], Mapping[str, float]]
"""From params to metrics by name."""

Record: TypeAlias = dict[str, Any]
"""The metrics of one epoch by name: floats and ints, also as read from JSON."""

RESERVED = ("epoch", "seconds", "skipped")


class Fit(NamedTuple):
    """The result of `fit`.

    Attributes:
        params: those of the best epoch by `early_stopping` with an `evaluate`, else the last.
        state: the last `TrainState`.
        history: one dict per epoch: `epoch`; `train_loss`, `train_grad_norm` and the other metrics of the loss with
            the prefix `train_` (means over the batches that were not skipped); `skipped`; `seconds`; and the metrics
            that `evaluate` returned, under their names.
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
    key: Key,
    clip: float | None = 1.0,
    evaluate: Evaluate | None = None,
    early_stopping: EarlyStopping = EarlyStopping(),  # noqa: B008, it is a frozen value
    checkpoints: Checkpoints | None = None,
    progress: bool | None = None,
) -> Fit:
    """Train for `epochs` epochs, or until `early_stopping` ends it.

    Args:
        loss: (params, batch, key) -> (scalar, dict of scalars), see `make_step`; or a `Carried`. A metric `weight` is
            the weight of the batch in the means over the epoch; without it all batches have the same weight.
        params: the initial params, a pytree of floating arrays; they are copied.
        batches: epoch -> batches, pytrees of NumPy arrays. Every new shape compiles; see `epoch_batches`.
        optimizer: any Optax optimizer.
        epochs: the total number of epochs, including those before a restart.
        key: the random key of all noise.
        clip: the maximum global norm of the gradient; None does not clip.
        evaluate: params -> dict of floats, called once per epoch. It must not keep the params: the next step donates
            them.
        early_stopping: which metric of `evaluate` decides what is best, and when to stop. The default keeps the params
            of the lowest `loss` and never stops early.
        checkpoints: where to save every epoch. If the directory holds checkpoints, training resumes from the newest,
            with its key: bit for bit as without the interruption, if `batches` and `evaluate` are pure functions.
            Training may be stopped at any time by Ctrl-C, SIGTERM or SIGKILL: the last complete epoch is saved.
        progress: True shows a progress bar in a terminal, and elsewhere prints one line per epoch: the means over
            training as `train_...`, the metrics of `evaluate` as `valid_...`. False shows nothing. None shows a bar in
            a terminal, and nothing elsewhere.

    Returns:
        `Fit(params, state, history)`.

    Raises:
        ValueError: for `early_stopping` other than the default without `evaluate`, a metric that `evaluate` does not
            return, an epoch without batches, duplicate names of metrics, a checkpoint that does not fit or was changed,
            or a directory in which another run trains.
        TypeError: for arguments of other types.
        KeyboardInterrupt: after Ctrl-C, once the current batch, evaluation or checkpoint is complete; the message says
            what is saved. A second Ctrl-C takes effect at once.

    Warns:
        RuntimeWarning: if all steps of an epoch were skipped because no loss and gradient was finite.

    >>> import optax
    >>> def loss(w, batch, key): return jnp.mean((batch - w) ** 2), {}
    >>> result = fit(loss, jnp.zeros(2), lambda epoch: [jnp.ones((4, 2))] * 50, optimizer=optax.sgd(0.1), epochs=2,
    ...     key=jax.random.key(0))
    >>> result.params.round(2).tolist(), result.history[0]["epoch"]
    ([1.0, 1.0], 0)
    """
    _check_arguments(batches, epochs, evaluate, early_stopping, checkpoints)
    train_step = make_step(loss, optimizer, clip=clip)
    locked = contextlib.nullcontext() if checkpoints is None else checkpoints.lock()
    try:
        with HeldInterrupts() as interrupts, locked, bar_for(progress, epochs) as bar:
            carry = as_carried(loss).initial(params)
            run = _Run(init(params, optimizer, key, carry), () if evaluate is None else copy(params), [])
            run = run if checkpoints is None else _resumed(run, checkpoints, early_stopping)
            batches = _interruptible(batches, interrupts)
            while len(run.history) < epochs and not early_stopping.should_stop(run.history):
                run = _epoch(run, train_step, batches, evaluate, early_stopping, bar)
                if checkpoints is not None:
                    record = {"history": run.history, "best": [early_stopping.metric, early_stopping.mode]}
                    checkpoints.save(len(run.history), (run.state, run.best), record)
                interrupts.check()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_stopped(checkpoints)) from None
    return Fit(copy(run.state.params) if evaluate is None else run.best, run.state, run.history)


@dataclasses.dataclass
class _Run:
    """Everything that a restart needs; `best` is () without `evaluate`."""

    state: TrainState
    best: Params
    history: list[Record]


def _check_arguments(
    batches: object, epochs: object, evaluate: object, early_stopping: object, checkpoints: object
) -> None:
    """Raise an error for the arguments of `fit` that nothing else checks."""
    if not callable(batches):
        raise TypeError(
            f"batches must be a function from the epoch to its batches; got a {type(batches).__name__}. For the same "
            "list every epoch: lambda epoch: batches"
        )
    if not isinstance(checkpoints, Checkpoints | None):
        raise TypeError(f"checkpoints must be Checkpoints(directory); got {checkpoints!r:.60}")
    if not isinstance(epochs, int | np.integer) or isinstance(epochs, bool) or epochs < 0:
        raise ValueError(f"epochs must be an integer of at least 0; got {epochs!r}")
    if not isinstance(early_stopping, EarlyStopping):
        raise TypeError(f"early_stopping must be EarlyStopping(metric, mode, patience); got {early_stopping!r:.60}")
    if evaluate is None and early_stopping != EarlyStopping():
        raise ValueError(
            "early_stopping needs the metrics that evaluate returns: pass evaluate, such as evaluation(loss, batches), "
            "or leave early_stopping out"
        )
    if not callable(evaluate) and evaluate is not None:
        raise TypeError(f"evaluate must be a function of the params; got a {type(evaluate).__name__}")


def _resumed(run: _Run, checkpoints: Checkpoints, early_stopping: EarlyStopping) -> _Run:
    """Return the run of the newest checkpoint if there is one."""
    if checkpoints.latest() is None:
        return run
    (state, best), record = checkpoints.restore((run.state, run.best))
    criterion = [early_stopping.metric, early_stopping.mode]
    if record.get("best") != criterion:
        raise CheckpointError(f"{checkpoints} holds the best params by {record.get('best')!s:.60}, not by {criterion}")
    newest, remove = f"the newest checkpoint of {checkpoints.directory}", "Remove it to resume from the one before."
    history = record.get("history")
    if not isinstance(history, list) or not all(_is_record(row, epoch) for epoch, row in enumerate(history)):
        raise DamagedCheckpointError(f"{newest} holds no history of epochs. {remove}")
    floats = [leaf for leaf in jax.tree.leaves((state.params, best)) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    if any(bool(jnp.isnan(leaf).any()) for leaf in floats):
        raise DamagedCheckpointError(f"{newest} holds params that are NaN. {remove}")
    return _Run(state, best, history)


def _is_record(row: object, epoch: int) -> bool:
    """Return whether a row of a history read from a file is the record of this epoch."""
    if not isinstance(row, dict) or row.get("epoch") != epoch or not row.keys() >= {*RESERVED}:
        return False
    return all(isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63) for value in row.values())


def _interruptible(batches: Batches, interrupts: HeldInterrupts) -> Batches:
    """Return `batches` with a check for Ctrl-C before each batch."""

    def checked(epoch: int) -> Iterable[Batch]:
        for batch in batches(epoch):
            interrupts.check()
            yield batch

    return checked


def _stopped(checkpoints: Checkpoints | None) -> str:
    """Return the message about what is saved when Ctrl-C stops training."""
    if checkpoints is None:
        return "training stopped; without checkpoints nothing is saved"
    if (saved := checkpoints.latest()) is None:
        return f"training stopped before its first epoch was saved to {checkpoints.directory}"
    return f"training stopped; epoch {saved} is saved in {checkpoints.directory}: the same training resumes from there"


def _epoch(
    run: _Run,
    train_step: TrainStep,
    batches: Batches,
    evaluate: Evaluate | None,
    early_stopping: EarlyStopping,
    bar: Silent,
) -> _Run:
    """Train for one epoch and evaluate it."""
    epoch, start = len(run.history), time.perf_counter()
    state, reports = run.state, []
    bar.start_epoch(epoch)
    for batch in batches(epoch):
        state, metrics = train_step(state, batch)
        reports.append(metrics)
        bar.advance(metrics)
    if not reports:
        raise ValueError(
            f"batches({epoch}) returned no batch. It is called every epoch, so it must not return an exhausted iterator"
        )
    record = {"epoch": epoch, **means(jax.device_get(reports))}
    if record["skipped"] == len(reports):
        warnings.warn(
            f"all {len(reports)} steps of epoch {epoch + 1} were skipped, since no loss and gradient was finite: the "
            "params are unchanged. Look for NaN in params and batches, and for labels out of range.",
            RuntimeWarning,
            stacklevel=3,
        )
    best = run.best
    if evaluate is not None:
        _add(record, evaluate(state.params), early_stopping.metric)
        history = [*run.history, record]
        best = copy(state.params) if early_stopping.best(history) in (epoch, None) else best
    record["seconds"] = time.perf_counter() - start
    bar.finish_epoch(record)
    return _Run(state, best, [*run.history, record])


def means(reports: Sequence[Mapping[str, ArrayLike]]) -> Record:
    """Return the weighted means of an epoch over the batches not skipped (NaN if all were), and the number skipped."""
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


def _add(record: Record, scores: Mapping[str, float], metric: str) -> None:
    """Add the metrics of `evaluate` to the record."""
    if not isinstance(scores, Mapping):
        raise TypeError(f"evaluate must return a dict of numbers by name; it returned a {type(scores).__name__}")
    if taken := sorted(scores.keys() & {*record, *RESERVED}):
        raise ValueError(f"evaluate returned {taken}, which are names of the history itself: choose others")
    if metric not in scores:
        raise ValueError(f"evaluate returned {sorted(scores)}, without metric={metric!r} of EarlyStopping")
    if wrong := [
        name for name, score in scores.items() if np.shape(score) or np.asarray(score).dtype.kind not in "biuf"
    ]:
        raise TypeError(f"evaluate must return a number for each name; {wrong[0]} is {scores[wrong[0]]!r:.60}")
    record.update({name: float(score) for name, score in scores.items()})
