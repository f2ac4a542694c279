"""A corpus: train, valid and test. Its layout is recognised by its files; what has no split of its own is held out."""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from . import notes
from .errors import UserError
from .formats import READERS, Example, Report, read_json, read_pairs, read_snips

BUNDLED = Path(__file__).parent / "corpus"
SPLITS = {"train": ("train",), "valid": ("valid", "val", "dev", "validation"), "test": ("test",)}
CLINC = {"train": "train", "valid": "val", "test": "test"}
UNDERSTOOD = """a folder with train, valid and test as .tsv, .csv or .jsonl, one such file, a CLINC150 folder or .json \
file (train, val, test lists), or a SNIPS folder (train/seq.in, train/label, ...)"""


@dataclasses.dataclass
class Corpus:
    """Examples for training, choosing and testing.

    Attributes:
        name: where it came from.
        train: what params are fitted to.
        valid: what choices are made by.
        test: what is reported.
        outside: texts of the test that have no intent here (CLINC150's out-of-scope queries).
        notes: what the reader of a result should know: held out, skipped, overlaps.
    """

    name: str
    train: list[Example]
    valid: list[Example]
    test: list[Example]
    outside: list[Example] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def labels(self) -> tuple[str, ...]:
        """Give the intents that stand in train, sorted."""
        return tuple(sorted({example.label for example in self.train}))


def load(path: Path = BUNDLED, *, skip_bad_lines: bool = False, seed: int = 0) -> Corpus:
    """Read a corpus from a folder or a file; raises `UserError` with file and line for what cannot be used."""
    skipped: list[str] = []

    def report(message: str) -> None:
        if not skip_bad_lines:
            raise UserError(f"{message}\nTo leave bad lines out and count them: --skip-bad-lines")
        skipped.append(message)

    try:
        splits = _alike(_splits(path, report), report)
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read: {error.strerror}") from error
    corpus = Corpus(str(path), splits["train"], splits.get("valid", []), splits.get("test", []), splits.get("oos", []))
    if not corpus.train:
        raise UserError(f"{path}: train has no examples")
    if len(corpus.labels) < 2:
        raise UserError(f"{path}: needs two intents or more to tell apart; got {', '.join(corpus.labels)} alone")
    known = notes.by_text(corpus.train)
    corpus.notes += notes.conflicts(known) + notes.look_alikes(corpus.labels)
    if "test" not in splits:
        corpus.train, corpus.test = hold_out(corpus.train, 0.2, seed)
        corpus.notes.append(f"no test split: {len(corpus.test)} of train held out, stratified")
    if "valid" not in splits:
        corpus.train, corpus.valid = hold_out(corpus.train, 0.1, seed + 1)
        corpus.notes.append(f"no validation split: {len(corpus.valid)} of train held out, stratified")
    for name in ("valid", "test"):
        known = _known(getattr(corpus, name), corpus.labels, report)
        setattr(corpus, name, known)
        if not known:
            few = "" if name in splits else ", since no intent has enough to hold one out: add that split"
            raise UserError(f"{path}: {name} has no examples{few}")
    corpus.notes += [f"skipped {message}" for message in skipped[:5]]
    if len(skipped) > 5:
        corpus.notes.append(f"skipped {len(skipped) - 5} bad lines more, {len(skipped)} in all")
    corpus.notes += notes.rare(corpus.train, corpus.test)
    known = notes.by_text(corpus.train)
    for name, split in (("valid", corpus.valid), ("test", corpus.test), ("out-of-scope", corpus.outside)):
        corpus.notes += notes.leaks(known, split, name)
    return corpus


def hold_out(examples: list[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Take a fraction of every intent's examples away, at least one of two; both parts keep their order."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, example in enumerate(examples):
        groups[example.label].append(i)
    taken: set[int] = set()
    draw = random.Random(seed)
    for label in sorted(groups):
        members = groups[label]
        count = 0 if len(members) < 2 else max(1, round(fraction * len(members)))
        taken.update(draw.sample(members, count))
    kept = [example for i, example in enumerate(examples) if i not in taken]
    return kept, [example for i, example in enumerate(examples) if i in taken]


def _splits(path: Path, report: Report) -> dict[str, list[Example]]:
    """Read the splits there are, under the names train, valid, test and oos."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder. --data takes {UNDERSTOOD}")
    if path.is_file() and path.suffix in READERS:
        return {"train": list(READERS[path.suffix](path, report))}
    if path.suffix == ".json" or (path / "data_full.json").exists():
        return _clinc(path / "data_full.json" if path.is_dir() else path, report)
    if path.is_file():
        raise UserError(f"{path}: unknown kind of file {path.suffix!r}. --data takes {UNDERSTOOD}")
    if (path / "train" / "seq.in").exists():
        return {s: list(read_snips(path / s, report)) for s in SPLITS if (path / s).exists()}
    files = {split: _file(path, names) for split, names in SPLITS.items()}
    if files["train"] is None:
        there = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise UserError(f"{path}: no train file in it; it holds {there}. --data takes {UNDERSTOOD}")
    return {split: list(READERS[file.suffix](file, report)) for split, file in files.items() if file is not None}


def _clinc(path: Path, report: Report) -> dict[str, list[Example]]:
    """Read CLINC150; its out-of-scope queries of the test have no intent, those of train and val are not used."""
    document = read_json(path)
    splits = {ours: list(read_pairs(path, document, theirs, report)) for ours, theirs in CLINC.items()}
    if "oos_test" in document:
        splits["oos"] = list(read_pairs(path, document, "oos_test", report))
    return splits


def _file(folder: Path, stems: tuple[str, ...]) -> Path | None:
    """Find the one file of a split, None if there is none."""
    found = [folder / f"{stem}{suffix}" for stem in stems for suffix in READERS]
    found = [file for file in found if file.exists()]
    if len(found) > 1:
        raise UserError(f"{folder}: which one is it, {' or '.join(file.name for file in found)}? Leave one.")
    return found[0] if found else None


def _alike(splits: dict[str, list[Example]], report: Report) -> dict[str, list[Example]]:
    """Where a text of train has tags, report those of train, valid and test that have none."""
    if not any(example.tags for example in splits["train"]):
        return splits
    for name in SPLITS.keys() & splits.keys():
        for example in splits[name]:
            if not example.tags:
                report(f"{example.where}: has no tags, as others have")
        splits[name] = [example for example in splits[name] if example.tags]
    return splits


def _known(examples: Iterable[Example], labels: tuple[str, ...], report: Report) -> list[Example]:
    """Keep the examples whose intent stands in train; report the others."""
    known, kept = set(labels), []
    alike = {notes.spelling(label): label for label in labels}
    for example in examples:
        if example.label in known:
            kept.append(example)
        else:
            near = alike.get(notes.spelling(example.label))
            there = "none such" if near is None else repr(near)
            report(f"{example.where}: unknown label {example.label!r}: train has {there}")
    return kept
