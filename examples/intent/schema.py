"""What the files of a bundle may hold: every field with its type and range. A bundle is data from a stranger."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Size = Annotated[int, Meta(ge=1, le=1 << 16)]
Rate = Annotated[float, Meta(ge=0, lt=1)]
Threshold = Annotated[float, Meta(ge=0, le=1e9)]  # of how many intents a text may be undecided between
Span = Annotated[int, Meta(ge=1, le=64)]
Name = Annotated[str, Meta(min_length=1)]
Tag = Annotated[str, Meta(pattern=r"\A(O|[BI]-\S+)\Z")]
About = dict[str, str | bool | int | float | list[dict[str, float | None]] | None]


class Manifest(Struct, forbid_unknown_fields=True):
    """`manifest.json`."""

    format: Annotated[int, Meta(ge=1, le=1 << 16)]
    sha256: dict[str, str]


class Model(Struct, forbid_unknown_fields=True):
    """The fields of `classifier.Config`."""

    features: Size
    hidden: Size
    input_dropout: Rate
    output_dropout: Rate
    causal: bool


class Fitted(Struct, forbid_unknown_fields=True):
    """The fields of `calibration.Calibration`."""

    temperature: Annotated[float, Meta(ge=1e-3, le=1e3)]
    threshold: Threshold | None


class Configuration(Struct, forbid_unknown_fields=True):
    """`config.json`."""

    model: Model
    labels: Annotated[tuple[Name, ...], Meta(min_length=1)]
    tags: Annotated[tuple[Tag, ...], Meta(min_length=1)] | None
    calibration: Fitted
    about: About

    def __post_init__(self) -> None:
        """Refuse names that stand twice, tags without the one that says none, and a history that is no list."""
        _distinct("labels", self.labels)
        _distinct("tags", self.tags or ())
        if self.tags and self.tags[0] != "O":
            raise ValueError(f"the first of the tags must be O; got {self.tags[0]:.40}")
        if not isinstance(self.about.get("history", []), list):
            raise ValueError("the history must be a list")


class Words(Struct, forbid_unknown_fields=True):
    """`vocabulary.json`: the fields of `text.Vocabulary`."""

    words: tuple[Name, ...]
    buckets: Annotated[int, Meta(ge=1, le=1 << 24)]
    shortest: Span
    longest: Span
    width: Span

    def __post_init__(self) -> None:
        """Refuse words that stand twice."""
        _distinct("words", self.words)


def _distinct(field: str, names: tuple[str, ...]) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"{field} must be distinct; {len(names) - len(set(names))} of {len(names)} are repeated")
