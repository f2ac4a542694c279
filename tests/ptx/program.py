"""A parser of kernels in PTX."""

import re
from typing import NamedTuple


class Operation(NamedTuple):
    """`@guard name operands`, the name split at its dots."""

    name: list[str]
    operands: list[str]
    guard: tuple[str, bool] | None
    text: str


class Program:
    """The operations of a kernel, and the positions of its labels."""

    def __init__(self, text: str):
        self.operations: list[Operation] = []
        self.labels: dict[str, int] = {}
        body = text[text.index("{", text.index(".entry")) + 1 :]
        body = re.sub(r"//[^\n]*|\.loc[^\n]*|\.section(.|\n)*", "", body)
        for part in body.split(";"):
            statement = part.strip()
            while start := re.match(r"([$\w]+)\s*:\s*|[{}](?![^{}]*\}\s*,)\s*", statement):
                if start[1]:
                    self.labels[start[1]] = len(self.operations)
                statement = statement[start.end() :]
            if statement and not re.match(r"\.(reg|shared|local|pragma|file)", statement):
                self.operations.append(_operation(" ".join(statement.split())))


def _operation(text: str) -> Operation:
    guard = re.match(r"@(!?)(%?\w+) (.*)", text)
    name, _, rest = (guard[3] if guard else text).partition(" ")
    return Operation(name.split("."), parts(rest), (guard[2], guard[1] == "!") if guard else None, text)


def parts(text: str) -> list[str]:
    """Split at commas outside brackets."""
    return [part.strip() for part in re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,{[])+", text) if part.strip()]
