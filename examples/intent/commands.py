"""The commands of the program. Each is a dataclass of its flags, and is called to run."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import jax
import tyro
from rich.table import Table
from tyro.conf import Positional, arg

from jaxrnn.train import Checkpoints

from . import baseline, bundle, data, scores
from .calibration import calibration_error
from .classifier import Classifier, Config, Prediction
from .data import BUNDLED, Corpus
from .errors import UserError
from .lines import iter_lines, parse_line
from .terminal import console, printable, truncate
from .text import tokenize
from .train import Recipe, train

if TYPE_CHECKING:
    from .report import Report

BUNDLE = Path("runs/intent")
EXAMPLE = "what time is it ?"

Data = Annotated[Path, arg(help=f"{data.SUPPORTED}; by default the bundled corpus")]
Folder = Annotated[Path, arg(help="the folder of the trained classifier")]
SkipBadLines = Annotated[bool, arg(help="skip and count bad lines, instead of stopping at the first one")]
FIELDS = ("number", "text", "intent", "probability", "next", "reason", "slots")


@dataclasses.dataclass(frozen=True)
class Train:
    """Train on a corpus, compare with two baselines on test, save the classifier (a bundle), and plot a prediction."""

    data: Data = BUNDLED
    bundle: Annotated[Path, arg(help="the folder to save to; an existing bundle is replaced")] = BUNDLE
    seed: Annotated[int, arg(help="seed of the weights, the order of batches, and the held-out split")] = 0
    skip_bad_lines: SkipBadLines = False
    checkpoints: Annotated[Path | None, arg(help="folder to save every epoch to, and to resume from")] = None
    baseline: Annotated[bool, arg(help="fit the linear SVM too")] = True
    progress: Annotated[bool, arg(help="print a line per epoch; in a terminal a progress bar")] = True
    config: tyro.conf.OmitArgPrefixes[Config] = Config()
    recipe: tyro.conf.OmitArgPrefixes[Recipe] = Recipe()

    def __call__(self) -> None:
        """Run the command."""
        from .explain import Explanation, draw  # here, since it imports matplotlib

        start = time.perf_counter()
        if not 0 <= self.seed < 1 << 32:
            raise UserError(f"--seed must be from 0 to 2**32 - 1; got {self.seed}")
        corpus = data.load(self.data, skip_bad_lines=self.skip_bad_lines, seed=self.seed)
        epochs = self.recipe.epochs(len(corpus.train))
        _describe(corpus)
        bundle.prepare(self.bundle)
        console.print(f"{epochs} epochs; the first one compiles")
        checkpoints = self.checkpoints and Checkpoints(self.checkpoints)
        options = {"progress": self.progress, "checkpoints": checkpoints}
        classifier, result = train(corpus, self.config, self.recipe, seed=self.seed, **options)
        seconds = time.perf_counter() - start
        valid = min(result.history, key=lambda record: record["loss"])["accuracy"]
        test = _score(classifier, corpus)
        about = {"data": str(self.data), "seed": self.seed, "epochs": epochs, "seconds": round(seconds, 1)}
        about |= {"valid accuracy": valid, "test accuracy": test.accuracy, "jax": jax.__version__}
        about["history"] = result.history
        bundle.save(self.bundle, classifier, about)
        plot = draw(Explanation.of(classifier, EXAMPLE), EXAMPLE, self.bundle / "pictures" / "what-time-is-it.png")
        self._report(corpus, test, valid, seconds)
        console.print(f"bundle   {self.bundle}\npicture  {plot}")
        console.print(f'"{EXAMPLE}" -> {_format(*classifier.predict([EXAMPLE]))}')

    def _report(self, corpus: Corpus, test: scores.Scores, valid: float, seconds: float) -> None:
        """Print the accuracy and those of the baselines."""
        labels = [example.label for example in corpus.test]
        table = Table("on test", "accuracy", "macro F1", box=None, header_style="bold")
        table.add_row("majority class", f"{scores.majority([e.label for e in corpus.train], labels):.2%}", "")
        if self.baseline:
            table.add_row("TF-IDF and a linear SVM", f"{baseline.linear_svm(corpus):.2%}", "")
        table.add_row("recurrent network", f"{test.accuracy:.2%}", f"{test.macro_f1:.2%}")
        console.print(table)
        console.print(f"(validation accuracy {valid:.2%}; {seconds:.1f} s of training)")


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Evaluate a bundle on the test split. Print tables, and write `report/` in the bundle: report.json and plots."""

    data: Data = BUNDLED
    bundle: Folder = BUNDLE
    seed: Annotated[int | None, arg(help="seed of the held-out test split; None: the seed of the training")] = None
    skip_bad_lines: SkipBadLines = False
    rows: Annotated[int, arg(help="number of intents to show")] = 10

    def __call__(self) -> None:
        """Run the command."""
        from .report import Report

        classifier, about = bundle.load(self.bundle)
        seed = int(about.get("seed", 0)) if self.seed is None else self.seed
        corpus = data.load(self.data, skip_bad_lines=self.skip_bad_lines, seed=seed)
        if unknown := sorted(set(corpus.labels) - set(classifier.labels)):
            missing = f"{self.bundle} was trained without the intents {', '.join(unknown[:5])}"
            raise UserError(f"{missing}, on {about.get('data', 'other data')}: pass that with --data")
        _describe(corpus)
        report = Report.of(classifier, corpus)
        self._print(report, len(corpus.out_of_scope))
        report.save(self.bundle / "report", about)
        console.print(f"report   {self.bundle / 'report'}")

    def _print(self, report: Report, out_of_scope: int) -> None:
        """Print the tables and the metrics of a report."""
        table = Table("intent", "F1", "precision", "recall", "test", "taken for", box=None, header_style="bold")
        for row in report.scores.rows[: self.rows]:
            numbers = [f"{value:.3f}" for value in (row.f1, row.precision, row.recall)]
            table.add_row(_cell(row.label), *numbers, str(row.count), _cell(row.most_confused_with))
        console.print(table)
        table = Table("worst mistakes", "intent", "prediction", "probability", box=None, header_style="bold")
        for mistake in report.mistakes[: self.rows]:
            cells = map(_cell, (mistake.text, mistake.label, mistake.prediction))
            table.add_row(*cells, f"{mistake.probability:.1%}")
        console.print(table)
        accuracy, error = report.scores.accuracy, calibration_error(report.bins)
        console.print(f"accuracy {accuracy:.2%}, macro F1 {report.scores.macro_f1:.2%}, calibration error {error:.2%}")
        if report.accuracy_of_accepted is not None:
            accepted = f"accuracy on the others {report.accuracy_of_accepted:.2%}"
            console.print(f"rejected as none: {report.rejection_rate:.2%}; {accepted}")
        if report.slot_f1 is not None:
            console.print(f"slots: F1 {report.slot_f1:.2%} over spans")
        if report.out_of_scope:
            shares = {name: f"{value:.1f} %" for name, value in report.out_of_scope.items()}
            console.print(
                f"out of scope: {shares['oos_recall']} of {out_of_scope} queries are rejected, and "
                f"{shares['false_rejection']} of the queries in scope (AUROC {shares['auroc']}; false positive rate "
                f"{shares['fpr_at_95']} at 95 % recall)"
            )


@dataclasses.dataclass(frozen=True)
class Predict:
    """Name the intent of each text given as an argument, or of each line of standard input.

    A line is a text, or {"text": ...}. Predictions go to standard output. Errors go to standard error with the number
    of the line; after any error the exit status is 2.
    """

    texts: Annotated[
        Positional[tuple[str, ...]], arg(metavar="[TEXT ...]", help="without any, reads standard input")
    ] = ()
    bundle: Folder = BUNDLE
    stream: Annotated[bool, arg(help="predict after each token; needs a classifier of train --causal")] = False
    json: Annotated[bool, arg(help=f"write JSONL, one object per prediction: {', '.join(FIELDS)}")] = False

    def __call__(self) -> None:
        """Run the command."""
        classifier, _ = bundle.load(self.bundle)
        if self.stream:
            next(classifier.stream(()), None)  # raises UserError if the classifier is bidirectional
        count = invalid = 0
        inputs: Iterable[str | bytes] = self.texts or iter_lines(sys.stdin.buffer)
        for count, text in enumerate(inputs, start=1):
            try:
                self._predict(classifier, count, parse_line(text) if isinstance(text, bytes) else text)
            except UserError as error:
                invalid += 1
                where = "text" if self.texts else "line"
                print(f"invalid: {where} {count}: {printable(str(error))}", file=sys.stderr, flush=True)
        if invalid:
            raise UserError(f"{invalid} of {count} texts are invalid")

    def _predict(self, classifier: Classifier, number: int, text: str) -> None:
        """Print the prediction for a text, or for each of its prefixes."""
        classifier.encode(text)  # raises UserError for an invalid text, also before streaming
        if not self.stream:
            self._print(number, text, *classifier.predict([text]), with_text=not self.texts)
            return
        tokens = tokenize(text)
        for token, prediction in zip(tokens, classifier.stream(tokens), strict=True):
            self._print(number, token, prediction, with_text=True)

    def _print(self, number: int, text: str, prediction: Prediction, *, with_text: bool) -> None:
        """Print a prediction."""
        if not self.json:
            shown = _format(prediction)
            print(f"{printable(text)}\t{shown}" if with_text else shown, flush=True)
            return
        best = prediction.best[prediction.intent is not None :]
        slots = [slot._asdict() for slot in prediction.slots]
        row = (number, text, prediction.intent, prediction.probability, best, prediction.reason, slots)
        print(printable(json.dumps(dict(zip(FIELDS, row, strict=True)), ensure_ascii=False)), flush=True)


@dataclasses.dataclass(frozen=True)
class Explain:
    """Plot how the prediction for a text develops token by token, as a PNG, or print it as JSON."""

    text: Annotated[Positional[str], arg(metavar="[TEXT]", help="40 tokens at most")] = EXAMPLE
    bundle: Folder = BUNDLE
    out: Annotated[Path, arg(help="the PNG to write")] = Path("runs/explain.png")
    json: Annotated[bool, arg(help="print JSON instead of plotting")] = False

    def __call__(self) -> None:
        """Run the command."""
        from .explain import Explanation, draw

        classifier, _ = bundle.load(self.bundle)
        explanation = Explanation.of(classifier, self.text)
        if self.json:
            print(printable(json.dumps({"text": self.text, **explanation.as_json()}, ensure_ascii=False)))
            return
        print(draw(explanation, self.text, self.out))
        print(_format(*classifier.predict([self.text])))


@dataclasses.dataclass(frozen=True)
class Export:
    """Export the classifier as ONNX (intent.onnx) and as a portable JAX program (intent.jax).

    Each export is compared with the bundle. An export has no vocabulary: its users need the one of the bundle.
    """

    bundle: Folder = BUNDLE
    out: Annotated[Path, arg(help="the folder to write to")] = Path("runs/export")

    def __call__(self) -> None:
        """Run the command."""
        from . import export  # only this command needs onnx

        classifier, _ = bundle.load(self.bundle)
        if classifier.tagger is not None:
            console.print("warning  the exports predict intents only, no slots")
        self.out.mkdir(parents=True, exist_ok=True)
        for name, write, check in export.EXPORTS:
            content = write(classifier)
            (self.out / name).write_bytes(content)
            size = f"{len(content) / 1e6:.1f} MB"
            console.print(f"{self.out / name}  {size}, {check(classifier, content)}")


@dataclasses.dataclass(frozen=True)
class Serve:
    """Serve predictions over HTTP, and a page to try them, until SIGINT (Ctrl-C) or SIGTERM."""

    bundle: Folder = BUNDLE
    host: Annotated[str, arg(help="the IPv4 or IPv6 address to listen on; 0.0.0.0 or :: for every network")] = (
        "127.0.0.1"
    )
    port: Annotated[int, arg(help="the TCP port; 0 for any free port")] = 8000

    def __call__(self) -> None:
        """Run the command."""
        from . import connections  # only this command needs uvicorn
        from .serve import application

        classifier, _ = bundle.load(self.bundle)
        with connections.listen(self.host, self.port) as listener:
            print(f"{connections.address(listener)} answers once the classifier is compiled", flush=True)
            connections.run(application(classifier), listener)


def _describe(corpus: Corpus) -> None:
    """Print the sizes of a corpus, and its warnings."""
    sizes = f"{len(corpus.train)} train, {len(corpus.valid)} valid, {len(corpus.test)} test"
    console.print(f"data     {corpus.name}: {len(corpus.labels)} intents; {sizes}")
    for warning in corpus.warnings:
        console.print(f"warning  {printable(warning)}")


def _score(classifier: Classifier, corpus: Corpus) -> scores.Scores:
    """Return the scores on the test split."""
    best = classifier.probabilities([example.text for example in corpus.test]).argmax(axis=-1)
    return scores.score([example.label for example in corpus.test], [classifier.labels[i] for i in best])


def _cell(text: str) -> str:
    """Return a text from data as a table shows it."""
    return printable(truncate(text, 80))


def _format(prediction: Prediction) -> str:
    """Return a line with the intent, its probability, and the next two; or none, the reason, and the best three."""
    listed = [f"{name} {probability:.1%}" for name, probability in prediction.best]
    slots = "".join(f"  {name}={value!r}" for name, value in prediction.slots)
    if prediction.intent is None:
        return printable(f"none: {prediction.reason}  (most probable: {', '.join(listed)}){slots}")
    return printable(f"{listed[0]}{slots}  (next: {', '.join(listed[1:])})")
