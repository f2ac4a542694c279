"""A corpus: train, valid and test. The layout is recognised from the files; a missing split is held out of train."""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from . import corpus_checks
from .errors import UserError
from .formats import READERS, Example, OnBadLine, read_json, read_pairs, read_snips

BUNDLED = Path(__file__).parent / "corpus"
SPLITS = {"train": ("train",), "valid": ("valid", "val", "dev", "validation"), "test": ("test",)}
CLINC = {"train": "train", "valid": "val", "test": "test"}
SUPPORTED = """a folder with train, valid and test as .tsv, .csv or .jsonl, one such file, a CLINC150 folder or .json \
file (train, val, test lists), or a SNIPS folder (train/seq.in, train/label, ...)"""


@dataclasses.dataclass
class Corpus:
    """The splits of a data set.

    Attributes:
        name: its path.
        train: examples for training.
        valid: examples for model selection and calibration.
        test: examples for evaluation.
        out_of_scope: test texts without an intent (the out-of-scope queries of CLINC150).
        warnings: splits that were held out, skipped lines, and problems found by `corpus_checks`.
    """

    name: str
    train: list[Example]
    valid: list[Example]
    test: list[Example]
    out_of_scope: list[Example] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the intents of train, sorted."""
        return tuple(sorted({example.label for example in self.train}))


def load(path: Path = BUNDLED, *, skip_bad_lines: bool = False, seed: int = 0) -> Corpus:
    """Load a corpus from a folder or a file. Raise UserError with file and line for malformed data."""
    skipped: list[str] = []

    def on_bad_line(message: str) -> None:
        if not skip_bad_lines:
            raise UserError(f"{message}\nTo skip and count bad lines: --skip-bad-lines")
        skipped.append(message)

    try:
        splits = _require_tags(_read_splits(path, on_bad_line), on_bad_line)
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read: {error.strerror}") from error
    corpus = Corpus(str(path), splits["train"], splits.get("valid", []), splits.get("test", []), splits.get("oos", []))
    if not corpus.train:
        raise UserError(f"{path}: train has no examples")
    if len(corpus.labels) < 2:
        raise UserError(f"{path}: needs two intents or more; got {', '.join(corpus.labels)} alone")
    by_tokens = corpus_checks.group_by_tokens(corpus.train)
    corpus.warnings += corpus_checks.conflicting_labels(by_tokens) + corpus_checks.similar_labels(corpus.labels)
    _hold_out_missing(corpus, splits, seed)
    for name in ("valid", "test"):
        examples = _with_known_label(getattr(corpus, name), corpus.labels, on_bad_line)
        setattr(corpus, name, examples)
        if not examples:
            few = "" if name in splits else ", since no intent has enough examples to hold one out: add that split"
            raise UserError(f"{path}: {name} has no examples{few}")
    corpus.warnings += [f"skipped {message}" for message in skipped[:5]]
    if len(skipped) > 5:
        corpus.warnings.append(f"skipped {len(skipped) - 5} more bad lines, {len(skipped)} in total")
    corpus.warnings += corpus_checks.rare_labels(corpus.train, corpus.test)
    by_tokens = corpus_checks.group_by_tokens(corpus.train)
    for name, split in (("valid", corpus.valid), ("test", corpus.test), ("out-of-scope", corpus.out_of_scope)):
        corpus.warnings += corpus_checks.leaks(by_tokens, split, name)
    return corpus


def hold_out(examples: list[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Split off a fraction of the examples of every intent, at least one of two. Both parts keep their order."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, example in enumerate(examples):
        groups[example.label].append(i)
    held_out: set[int] = set()
    rng = random.Random(seed)
    for label in sorted(groups):
        members = groups[label]
        count = 0 if len(members) < 2 else max(1, round(fraction * len(members)))
        held_out.update(rng.sample(members, count))
    kept = [example for i, example in enumerate(examples) if i not in held_out]
    return kept, [example for i, example in enumerate(examples) if i in held_out]


def _hold_out_missing(corpus: Corpus, splits: dict[str, list[Example]], seed: int) -> None:
    """Hold out a test and a validation split, if the corpus has none."""
    if "test" not in splits:
        corpus.train, corpus.test = hold_out(corpus.train, 0.2, seed)
        corpus.warnings.append(f"no test split: {len(corpus.test)} examples of train held out, stratified")
    if "valid" not in splits:
        corpus.train, corpus.valid = hold_out(corpus.train, 0.1, seed + 1)
        corpus.warnings.append(f"no validation split: {len(corpus.valid)} examples of train held out, stratified")


def _read_splits(path: Path, on_bad_line: OnBadLine) -> dict[str, list[Example]]:
    """Read the splits that exist, named train, valid, test and oos."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder. --data takes {SUPPORTED}")
    if path.is_file() and path.suffix in READERS:
        return {"train": list(READERS[path.suffix](path, on_bad_line))}
    if path.suffix == ".json" or (path / "data_full.json").exists():
        return _read_clinc(path / "data_full.json" if path.is_dir() else path, on_bad_line)
    if path.is_file():
        raise UserError(f"{path}: unknown file type {path.suffix!r}. --data takes {SUPPORTED}")
    if (path / "train" / "seq.in").exists():
        return {s: list(read_snips(path / s, on_bad_line)) for s in SPLITS if (path / s).exists()}
    files = {split: _find_file(path, names) for split, names in SPLITS.items()}
    if files["train"] is None:
        names = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise UserError(f"{path}: no train file; the folder has {names}. --data takes {SUPPORTED}")
    return {split: list(READERS[file.suffix](file, on_bad_line)) for split, file in files.items() if file is not None}


def _read_clinc(path: Path, on_bad_line: OnBadLine) -> dict[str, list[Example]]:
    """Read CLINC150. Out-of-scope queries of test form a separate split; those of train and val are not used."""
    document = read_json(path)
    splits = {ours: list(read_pairs(path, document, theirs, on_bad_line)) for ours, theirs in CLINC.items()}
    if "oos_test" in document:
        splits["oos"] = list(read_pairs(path, document, "oos_test", on_bad_line))
    return splits


def _find_file(folder: Path, stems: tuple[str, ...]) -> Path | None:
    """Return the file of a split, or None. Raise UserError if there are several."""
    found = [folder / f"{stem}{suffix}" for stem in stems for suffix in READERS]
    found = [file for file in found if file.exists()]
    if len(found) > 1:
        raise UserError(f"{folder}: ambiguous: {' or '.join(file.name for file in found)}. Keep one.")
    return found[0] if found else None


def _require_tags(splits: dict[str, list[Example]], on_bad_line: OnBadLine) -> dict[str, list[Example]]:
    """Treat examples without tags as bad lines, if any example of train has tags."""
    if not any(example.tags for example in splits["train"]):
        return splits
    for name in SPLITS.keys() & splits.keys():
        for example in splits[name]:
            if not example.tags:
                on_bad_line(f"{example.where}: has no tags, while other examples have")
        splits[name] = [example for example in splits[name] if example.tags]
    return splits


def _with_known_label(examples: Iterable[Example], labels: tuple[str, ...], on_bad_line: OnBadLine) -> list[Example]:
    """Return the examples whose intent occurs in train; the others are bad lines."""
    known, kept = set(labels), []
    by_spelling = {corpus_checks.normalize(label): label for label in labels}
    for example in examples:
        if example.label in known:
            kept.append(example)
        else:
            similar = by_spelling.get(corpus_checks.normalize(example.label))
            hint = "does not have it" if similar is None else f"has {similar!r}"
            on_bad_line(f"{example.where}: unknown label {example.label!r}: train {hint}")
    return kept
