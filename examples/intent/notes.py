"""What a corpus does that makes its result mean less: texts under two intents, labels alike, texts seen in training."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from .formats import Example
from .text import tokenize

Tokens = tuple[str, ...]


def by_text(examples: Iterable[Example]) -> dict[Tokens, list[Example]]:
    """Group examples by what the model sees of a text: not its case, not its spaces."""
    groups: dict[Tokens, list[Example]] = defaultdict(list)
    for example in examples:
        groups[tuple(tokenize(example.text))].append(example)
    return groups


def conflicts(train: Mapping[Tokens, Sequence[Example]]) -> list[str]:
    """Return a note on the texts that are labelled with more than one intent."""
    found = [examples for examples in train.values() if len({e.label for e in examples}) > 1]
    if not found:
        return []
    first = found[0]
    places = {example.label: example.where for example in first}
    listed = ", ".join(f"{label} ({where})" for label, where in sorted(places.items())[:3])
    return [f"{_count(len(found), 'text')} of train under two intents or more, e.g. {first[0].text!r:.60}: {listed}"]


def look_alikes(labels: Iterable[str]) -> list[str]:
    """Return a note on the intents whose names differ in case, spaces, hyphens or underscores alone."""
    groups: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        groups[spelling(label)].append(label)
    alike = [" and ".join(map(repr, sorted(group))) for group in groups.values() if len(group) > 1]
    return [f"taken for different intents, though spelled alike: {'; '.join(alike[:5])}"] if alike else []


def spelling(label: str) -> str:
    """Return what is left of a label without case, spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", label).casefold())


def rare(train: Sequence[Example], test: Sequence[Example]) -> list[str]:
    """Return notes on the intents that have a single example in train, or none in test."""
    counts = Counter(example.label for example in train)
    single = [example for example in train if counts[example.label] == 1]
    single.sort(key=lambda example: not example.where.endswith(":1"))  # a header with unknown names looks like that
    notes = []
    if single:
        suspect = single[0].where.endswith(":1") and len(single) < len(counts)
        header = "; is that a header?" if suspect else ""
        where = f"{single[0].label!r} ({single[0].where}{header})"
        notes.append(f"{len(single)} of {len(counts)} intents with a single example in train, e.g. {where}")
    if untested := sorted(counts.keys() - {example.label for example in test}):
        notes.append(f"{len(untested)} of {len(counts)} intents with no example in test, e.g. {untested[0]!r}")
    return notes


def leaks(train: Mapping[Tokens, Sequence[Example]], held_out: Sequence[Example], name: str) -> list[str]:
    """Return a note on the texts of another split that train has too, and how many have another intent there."""
    seen = [(example, train.get(tuple(tokenize(example.text)))) for example in held_out]
    twins = [(example.label, {twin.label for twin in found}) for example, found in seen if found]
    if not twins:
        return []
    other = sum(label not in labels for label, labels in twins)
    otherwise = f", {other} of them with another intent" if other else ""
    return [f"{len(twins)} of {len(held_out)} {name} texts also stand in train{otherwise}"]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"
