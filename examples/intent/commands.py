"""The commands: each is a dataclass of its arguments, and what it does."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.table import Table
from tyro.conf import Positional, arg

from jaxrnn.train import Checkpoints

from . import baseline, bundle, data, scores
from .calibration import calibration_error
from .classifier import Answer, Classifier, Config
from .data import BUNDLED, Corpus
from .errors import UserError
from .lines import lines, text_of
from .terminal import console, printable, short
from .text import tokenize
from .train import Recipe, train

BUNDLE = Path("runs/intent")
EXAMPLE = "what time is it ?"

Data = Annotated[Path, arg(help=f"{data.UNDERSTOOD}; by default the bundled corpus")]
Folder = Annotated[Path, arg(help="the folder of the trained classifier")]
Skip = Annotated[bool, arg(help="leave bad lines out and count them, instead of ending at the first")]
FIELDS = ("number", "text", "intent", "probability", "next", "reason", "slots")


@dataclasses.dataclass(frozen=True)
class Train:
    """Train on a corpus, test beside two baselines, save the classifier as a folder (its bundle), draw a picture."""

    data: Data = BUNDLED
    bundle: Annotated[Path, arg(help="the folder to save to; a bundle that is there is replaced")] = BUNDLE
    seed: Annotated[int, arg(help="of the weights, the order of batches, and what is held out")] = 0
    skip_bad_lines: Skip = False
    checkpoints: Annotated[Path | None, arg(help="save every epoch there, and go on from what it holds")] = None
    baseline: Annotated[bool, arg(help="fit the linear SVM too")] = True
    progress: Annotated[bool, arg(help="print a line an epoch; in a terminal a bar with the time left")] = True
    config: tyro.conf.OmitArgPrefixes[Config] = Config()
    recipe: tyro.conf.OmitArgPrefixes[Recipe] = Recipe()

    def __call__(self) -> None:
        """Do it."""
        from .explain import Explanation, draw  # with matplotlib, which predictions need not wait for

        began = time.perf_counter()
        if not 0 <= self.seed < 1 << 32:
            raise UserError(f"--seed must be from 0 to 2**32 - 1; got {self.seed}")
        corpus = data.load(self.data, skip_bad_lines=self.skip_bad_lines, seed=self.seed)
        epochs = self.recipe.epochs(len(corpus.train))
        _describe(corpus)
        bundle.prepare(self.bundle)
        console.print(f"{epochs} epochs; the first compiles")
        how = {"progress": self.progress, "checkpoints": self.checkpoints and Checkpoints(self.checkpoints)}
        classifier, fitted = train(corpus, self.config, self.recipe, seed=self.seed, **how)
        seconds = time.perf_counter() - began
        valid = min(fitted.history, key=lambda record: record["loss"])["accuracy"]
        found = _tested(classifier, corpus)
        about = {"data": str(self.data), "seed": self.seed, "epochs": epochs, "seconds": round(seconds, 1)}
        about |= {"valid accuracy": valid, "test accuracy": found.accuracy, "jax": jax.__version__}
        about["history"] = fitted.history
        bundle.save(self.bundle, classifier, about)
        picture = draw(Explanation.of(classifier, EXAMPLE), EXAMPLE, self.bundle / "pictures" / "what-time-is-it.png")
        self._report(corpus, found, valid, seconds)
        console.print(f"bundle   {self.bundle}\npicture  {picture}")
        console.print(f'"{EXAMPLE}" -> {_sentence(*classifier.answers([EXAMPLE]))}')

    def _report(self, corpus: Corpus, found: scores.Scores, valid: float, seconds: float) -> None:
        """Print the accuracy beside what it must beat."""
        labels = [example.label for example in corpus.test]
        table = Table("on test", "accuracy", "macro F1", box=None, header_style="bold")
        table.add_row("majority class", f"{scores.majority([e.label for e in corpus.train], labels):.2%}", "")
        if self.baseline:
            table.add_row("TF-IDF and a linear SVM", f"{baseline.linear_svm(corpus):.2%}", "")
        table.add_row("recurrent network", f"{found.accuracy:.2%}", f"{found.macro_f1:.2%}")
        console.print(table)
        console.print(f"(on valid {valid:.2%}; trained in {seconds:.1f} s)")


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score a bundle on the test split: a table, and `report/` in the bundle with report.json and pictures."""

    data: Data = BUNDLED
    bundle: Folder = BUNDLE
    seed: Annotated[int | None, arg(help="of what is held out where there is no test split; None: the training's")] = (
        None
    )
    skip_bad_lines: Skip = False
    rows: Annotated[int, arg(help="how many intents to show")] = 10

    def __call__(self) -> None:
        """Do it."""
        from .report import Report

        classifier, about = bundle.load(self.bundle)
        seed = int(about.get("seed", 0)) if self.seed is None else self.seed
        corpus = data.load(self.data, skip_bad_lines=self.skip_bad_lines, seed=seed)
        if unknown := sorted(set(corpus.labels) - set(classifier.labels)):
            there = f"{self.bundle} was trained without the intents {', '.join(unknown[:5])}"
            raise UserError(f"{there}, on {about.get('data', 'other data')}: name that with --data")
        _describe(corpus)
        found = Report.of(classifier, corpus)
        table = Table("intent", "F1", "precision", "recall", "test", "taken for", box=None, header_style="bold")
        for row in found.scores.rows[: self.rows]:
            numbers = [f"{value:.3f}" for value in (row.f1, row.precision, row.recall)]
            table.add_row(_cell(row.label), *numbers, str(row.count), _cell(row.mistaken))
        console.print(table)
        table = Table("worst mistakes", "intent", "answer", "sure", box=None, header_style="bold")
        for mistake in found.mistakes[: self.rows]:
            cells = map(_cell, (mistake.text, mistake.label, mistake.answer))
            table.add_row(*cells, f"{mistake.probability:.1%}")
        console.print(table)
        error = calibration_error(found.bins)
        console.print(
            f"accuracy {found.scores.accuracy:.2%}, macro F1 {found.scores.macro_f1:.2%}, calibration error {error:.2%}"
        )
        if found.accuracy_of_named is not None:
            console.print(f"answered by none: {found.none:.2%}; of the others {found.accuracy_of_named:.2%} are right")
        if found.slot_f1 is not None:
            console.print(f"slots: F1 {found.slot_f1:.2%} over spans")
        if found.detection:
            shares = {name: f"{value:.1f} %" for name, value in found.detection.items()}
            console.print(
                f"out of scope: {shares['oos_recall']} of {len(corpus.outside)} queries are answered by none, as "
                f"{shares['false_rejection']} of the others are (AUROC {shares['auroc']}; {shares['fpr_at_95']} pass "
                "where 95 % of the others do)"
            )
        found.save(self.bundle / "report", about)
        console.print(f"report   {self.bundle / 'report'}")


@dataclasses.dataclass(frozen=True)
class Predict:
    """Name the intent of each text: of the arguments, or else of each line of standard input.

    A line is a text, or {"text": ...}. Each gets its answer, on standard output, or its refusal with its number, on
    standard error; where any was refused, the exit status is 2 at the end.
    """

    texts: Annotated[
        Positional[tuple[str, ...]], arg(metavar="[TEXT ...]", help="without any, reads standard input")
    ] = ()
    bundle: Folder = BUNDLE
    stream: Annotated[bool, arg(help="answer after each token; needs a classifier of train --causal")] = False
    json: Annotated[bool, arg(help=f"write JSONL, an object an answer: {', '.join(FIELDS)}")] = False

    def __call__(self) -> None:
        """Do it."""
        classifier, _ = bundle.load(self.bundle)
        if self.stream:
            next(classifier.stream(()), None)  # raises for a classifier that cannot
        count = refused = 0
        asked: Iterable[str | bytes] = self.texts or lines(sys.stdin.buffer)
        for count, given in enumerate(asked, start=1):
            try:
                self._answer(classifier, count, text_of(given) if isinstance(given, bytes) else given)
            except UserError as reason:
                refused += 1
                where = "text" if self.texts else "line"
                print(f"refused: {where} {count}: {printable(str(reason))}", file=sys.stderr, flush=True)
        if refused:
            raise UserError(f"{refused} of {count} texts refused")

    def _answer(self, classifier: Classifier, number: int, text: str) -> None:
        """Answer a text, or its beginnings."""
        classifier.encode(text)  # raises for a text that cannot be answered, also where it would be streamed
        if not self.stream:
            self._print(number, text, *classifier.answers([text]), alone=bool(self.texts))
            return
        tokens = tokenize(text)
        for token, answer in zip(tokens, classifier.stream(tokens), strict=True):
            self._print(number, token, answer, alone=False)

    def _print(self, number: int, text: str, answer: Answer, *, alone: bool) -> None:
        """Print an answer, behind the text if that is not at hand."""
        if not self.json:
            print(_sentence(answer) if alone else f"{printable(text)}\t{_sentence(answer)}", flush=True)
            return
        best, slots = answer.best[answer.intent is not None :], [slot._asdict() for slot in answer.slots]
        row = (number, text, answer.intent, answer.probability, best, answer.reason, slots)
        print(printable(json.dumps(dict(zip(FIELDS, row, strict=True)), ensure_ascii=False)), flush=True)


@dataclasses.dataclass(frozen=True)
class Explain:
    """Draw how the answer to one text forms, token by token, as a PNG; or print it as JSON."""

    text: Annotated[Positional[str], arg(metavar="[TEXT]", help="of 40 tokens at most")] = EXAMPLE
    bundle: Folder = BUNDLE
    out: Annotated[Path, arg(help="the PNG to write")] = Path("runs/explain.png")
    json: Annotated[bool, arg(help="print JSON, and draw nothing")] = False

    def __call__(self) -> None:
        """Do it."""
        from .explain import Explanation, draw

        classifier, _ = bundle.load(self.bundle)
        explanation = Explanation.of(classifier, self.text)
        if self.json:
            print(printable(json.dumps({"text": self.text, **explanation.as_json()}, ensure_ascii=False)))
            return
        print(draw(explanation, self.text, self.out))
        print(_sentence(*classifier.answers([self.text])))


@dataclasses.dataclass(frozen=True)
class Export:
    """Write the classifier to run elsewhere, as ONNX (intent.onnx) and in JAX's portable form (intent.jax).

    Each is checked against the bundle. An export holds no vocabulary: keep the bundle beside it.
    """

    bundle: Folder = BUNDLE
    out: Annotated[Path, arg(help="the folder to write to")] = Path("runs/export")

    def __call__(self) -> None:
        """Do it."""
        from . import export  # only this command needs onnx

        classifier, _ = bundle.load(self.bundle)
        if classifier.tagger is not None:
            console.print("note     what is exported names intents; slots stay with the bundle")
        self.out.mkdir(parents=True, exist_ok=True)
        for name, write, check in export.FORMS:
            content = write(classifier)
            (self.out / name).write_bytes(content)
            size = f"{len(content) / 1e6:.1f} MB"
            console.print(f"{self.out / name}  {size}, {check(classifier, content)}")


@dataclasses.dataclass(frozen=True)
class Serve:
    """Answer over HTTP, and serve a page to try it, until SIGINT (Ctrl-C) or SIGTERM."""

    bundle: Folder = BUNDLE
    host: Annotated[str, arg(help="the address to listen on, of IPv4 or IPv6; 0.0.0.0 or :: for every network")] = (
        "127.0.0.1"
    )
    port: Annotated[int, arg(help="the TCP port; 0 takes a free one")] = 8000

    def __call__(self) -> None:
        """Do it."""
        from . import connections  # only this command needs uvicorn
        from .serve import application

        classifier, _ = bundle.load(self.bundle)
        with connections.listen(self.host, self.port) as listener:
            print(f"{connections.address(listener)} answers as soon as the classifier is compiled", flush=True)
            connections.run(application(classifier), listener)


def _describe(corpus: Corpus) -> None:
    """Print what the corpus is."""
    sizes = f"{len(corpus.train)} train, {len(corpus.valid)} valid, {len(corpus.test)} test"
    console.print(f"data     {corpus.name}: {len(corpus.labels)} intents; {sizes}")
    for note in corpus.notes:
        console.print(f"note     {printable(note)}")


def _tested(classifier: Classifier, corpus: Corpus) -> scores.Scores:
    """Score the test split."""
    answers = classifier.probabilities([example.text for example in corpus.test]).argmax(axis=-1)
    return scores.score([example.label for example in corpus.test], [classifier.labels[i] for i in answers])


def _cell(text: str) -> str:
    """Return what a table shows of a text from data."""
    return printable(short(text, 80))


def _sentence(answer: Answer) -> str:
    """Return the intent, its probability, and the next two; or none, why, and what came nearest."""
    listed = [f"{name} {probability:.1%}" for name, probability in answer.best]
    slots = "".join(f"  {name}={value!r}" for name, value in answer.slots)
    if answer.intent is None:
        return printable(f"none: {answer.reason}  (nearest: {', '.join(listed)}){slots}")
    return printable(f"{listed[0]}{slots}  (next: {', '.join(listed[1:])})")
