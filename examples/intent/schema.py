"""The schema of the files of a bundle: types and ranges of every field. A bundle is untrusted input."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Size = Annotated[int, Meta(ge=1, le=1 << 16)]
Rate = Annotated[float, Meta(ge=0, lt=1)]
Threshold = Annotated[float, Meta(ge=0, le=1e9)]  # of `calibration.uncertainty`
SmallCount = Annotated[int, Meta(ge=1, le=64)]
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


class CalibrationFields(Struct, forbid_unknown_fields=True):
    """The fields of `calibration.Calibration`."""

    temperature: Annotated[float, Meta(ge=1e-3, le=1e3)]
    threshold: Threshold | None


class Configuration(Struct, forbid_unknown_fields=True):
    """`config.json`."""

    model: Model
    labels: Annotated[tuple[Name, ...], Meta(min_length=1)]
    tags: Annotated[tuple[Tag, ...], Meta(min_length=1)] | None
    calibration: CalibrationFields
    about: About

    def __post_init__(self) -> None:
        """Raise ValueError for repeated names, tags that do not begin with O, and a history that is not a list."""
        _check_distinct("labels", self.labels)
        _check_distinct("tags", self.tags or ())
        if self.tags and self.tags[0] != "O":
            raise ValueError(f"the first of the tags must be O; got {self.tags[0]:.40}")
        if not isinstance(self.about.get("history", []), list):
            raise ValueError("the history must be a list")


class Words(Struct, forbid_unknown_fields=True):
    """`vocabulary.json`: the fields of `text.Vocabulary`."""

    words: tuple[Name, ...]
    buckets: Annotated[int, Meta(ge=1, le=1 << 24)]
    min_n: SmallCount
    max_n: SmallCount
    width: SmallCount

    def __post_init__(self) -> None:
        """Raise ValueError for repeated words."""
        _check_distinct("words", self.words)


def _check_distinct(field: str, names: tuple[str, ...]) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"{field} must be distinct; {len(names) - len(set(names))} of {len(names)} are repeated")
