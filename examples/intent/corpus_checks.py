"""Checks of a corpus: texts with conflicting labels, labels spelled alike, rare labels, and leaks between splits."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from .formats import Example
from .text import tokenize

Tokens = tuple[str, ...]


def group_by_tokens(examples: Iterable[Example]) -> dict[Tokens, list[Example]]:
    """Group examples by their tokens, which ignore case and spaces."""
    groups: dict[Tokens, list[Example]] = defaultdict(list)
    for example in examples:
        groups[tuple(tokenize(example.text))].append(example)
    return groups


def conflicting_labels(train: Mapping[Tokens, Sequence[Example]]) -> list[str]:
    """Return a warning about texts with more than one label."""
    found = [examples for examples in train.values() if len({e.label for e in examples}) > 1]
    if not found:
        return []
    first = found[0]
    locations = {example.label: example.where for example in first}
    listed = ", ".join(f"{label} ({where})" for label, where in sorted(locations.items())[:3])
    texts = "1 text" if len(found) == 1 else f"{len(found)} texts"
    return [f"{texts} of train with conflicting labels, e.g. {first[0].text!r:.60}: {listed}"]


def similar_labels(labels: Iterable[str]) -> list[str]:
    """Return a warning about labels that differ only in case, spaces, hyphens or underscores."""
    groups: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        groups[normalize(label)].append(label)
    similar = [" and ".join(map(repr, sorted(group))) for group in groups.values() if len(group) > 1]
    return [f"different intents with similar names: {'; '.join(similar[:5])}"] if similar else []


def normalize(label: str) -> str:
    """Return a label without case, spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", label).casefold())


def rare_labels(train: Sequence[Example], test: Sequence[Example]) -> list[str]:
    """Return warnings about labels with a single example in train, or none in test."""
    counts = Counter(example.label for example in train)
    single = [example for example in train if counts[example.label] == 1]
    single.sort(key=lambda example: not example.where.endswith(":1"))  # may be a header with unknown names
    warnings = []
    if single:
        suspect = single[0].where.endswith(":1") and len(single) < len(counts)
        header = "; is that a header?" if suspect else ""
        where = f"{single[0].label!r} ({single[0].where}{header})"
        warnings.append(f"{len(single)} of {len(counts)} intents with a single example in train, e.g. {where}")
    if untested := sorted(counts.keys() - {example.label for example in test}):
        warnings.append(f"{len(untested)} of {len(counts)} intents with no example in test, e.g. {untested[0]!r}")
    return warnings


def leaks(train: Mapping[Tokens, Sequence[Example]], held_out: Sequence[Example], name: str) -> list[str]:
    """Return a warning about texts of another split that also occur in train, and how many differ in their label."""
    matches = [(example, train.get(tuple(tokenize(example.text)))) for example in held_out]
    labels = [(example.label, {match.label for match in found}) for example, found in matches if found]
    if not labels:
        return []
    other = sum(label not in others for label, others in labels)
    different = f", {other} of them with another intent" if other else ""
    return [f"{len(labels)} of {len(held_out)} {name} texts also occur in train{different}"]
